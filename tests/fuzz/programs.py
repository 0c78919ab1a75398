"""The child of the fuzzer: runs one program after another in this process, as a user would.

`python -m tests.fuzz.programs FOLDER` reads a case a line from stdin, as JSON: the program, its
words, and the folder to be in. It answers with a line: the exit code and what was said on stderr. A
crash or a hang is for the parent to see.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded

_MOST_MEMORY = 12 << 30  # of addresses: a MemoryError, not the end of the machine


def _single(words: Sequence[str]) -> int:
    import torch

    from baselines import single

    torch.set_num_interop_threads = lambda count: None  # only once a process
    return guarded(single.main)


def _report(name: str) -> Callable[[Sequence[str]], int]:
    def run(words: Sequence[str]) -> int:
        from gnn_core.report import analysis, demo, scaling

        return {"analysis": analysis, "demo": demo, "scaling": scaling}[name].main(list(words))

    return run


def _sweep(words: Sequence[str]) -> int:
    from gnn_core.sweep.__main__ import main

    return guarded(main)


def _datasets(words: Sequence[str]) -> int:
    from gnn_core.data import datasets

    return datasets.main(list(words))


def _deploy(words: Sequence[str]) -> int:
    from gnn_core.deploy.__main__ import main

    return guarded(lambda: main(list(words)))


def _checkpoint(words: Sequence[str]) -> int:
    """Resume from `ckpt/last.safetensors`, as a run would, and read its weights."""
    from tests.unit.test_checkpoint import made

    def main() -> int:
        from gnn_core.training.checkpoint import LAST, state_of, weights_of

        folder = Path("ckpt")
        weights_of(folder / LAST)
        if data := made(folder).read_last():
            state_of(data)
        return 0

    return guarded(main)


def _compare(words: Sequence[str]) -> int:
    from gnn_core.sweep import compare

    def main() -> int:
        compare._parse(words, None)  # to run it takes minutes
        return 0

    return guarded(main)


PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "single": _single,
    "sweep": _sweep,
    "datasets": _datasets,
    "deploy": _deploy,
    "checkpoint": _checkpoint,
    "compare": _compare,
    **{name: _report(name) for name in ("analysis", "demo", "scaling")},
}


@contextlib.contextmanager
def _said(folder: Path) -> Iterator[Path]:
    """Let stdout and stderr of this process, of libraries too, go into files of the folder."""
    before = [os.dup(1), os.dup(2)]
    out, err = (os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("o", "e"))
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        yield folder / "e"
    finally:
        for stream, descriptor in zip((sys.stdout, sys.stderr), before, strict=True):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)
        os.close(out)
        os.close(err)


def _answer(case: dict[str, Any], own: Path) -> dict[str, Any]:
    words = case["words"]
    sys.argv = [case["program"], *words]
    os.chdir(case["folder"])
    with _said(own) as err:
        try:
            code: Any = PROGRAMS[case["program"]](words)
        except SystemExit as leaving:
            code = leaving.code
        except BaseException:  # noqa: BLE001 - it is what is looked for
            traceback.print_exc()
            code = "traceback"
    return {"code": code, "err": err.read_text(encoding="utf-8", errors="replace")[-6000:]}


def main() -> None:
    """Answer until stdin ends."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    own = Path(sys.argv[1])
    cases = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)  # for a program that is told to read stdin
    os.dup2(nothing, 0)
    for line in cases:
        answers.write(json.dumps(_answer(json.loads(line), own)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
