"""Runs of programs with Keras that share the seconds in which TensorFlow is imported.

A process imports TensorFlow, starts nothing of it, and forks for every run: each has threads and
devices of its own, as if it had been typed. MPI must be met before TensorFlow is imported, so what
`mpirun` starts is started the usual way. One such process serves all tests of this one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERAS = str(ROOT / "tf_mirrored" / "train.py")
TRAIN = "tf_mirrored.train"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str


class Runs:
    """Starts runs, several at a time if need be."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __call__(self, words: Sequence[Any], seconds: float = 90, **env: str) -> Outcome:
        """Run to the end."""
        return self.start(words, **env).end(seconds)

    def start(
        self, words: Sequence[Any], linger: float = 0, program: str = TRAIN, **env: str
    ) -> Run:
        """Begin a run, which lingers for so long after it is done; `program`: the module."""
        self._count += 1
        stem = Path(self._folder.name) / str(self._count)
        files = [f"{stem}.out", f"{stem}.err"]
        request = {"words": list(map(str, words)), "files": files, "linger": linger, "env": env}
        request["program"] = program
        return Run(self, self._ask(request), [Path(file) for file in files])

    def code_of(self, pid: int, seconds: float) -> int:
        """The exit code of a run, minus the signal that killed it; waits so long for it."""
        code: int | None = self._ask({"wait": pid, "seconds": seconds})
        if code is None:
            os.kill(pid, signal.SIGKILL)
            self._ask({"wait": pid, "seconds": 10})
            pytest.fail(f"still running after {seconds} s")
        return code

    def close(self) -> None:
        """End the process, and whatever of its runs is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


class Run:
    """A run that was started."""

    def __init__(self, runs: Runs, pid: int, files: list[Path]):
        self.pid = pid
        self._runs = runs
        self._files = files
        self._code: int | None = None

    @property
    def out(self) -> str:
        """What it has said so far."""
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self._files[1].read_text(errors="replace")

    def wait_for(self, file: Path, seconds: float = 90) -> None:
        """Return when the file is there."""
        deadline = time.monotonic() + seconds
        while not file.exists():
            assert Path(f"/proc/{self.pid}").exists(), f"it ended:\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.out}\n{self.err}"
            time.sleep(0.02)

    def end(self, seconds: float = 90) -> Outcome:
        """Wait for its end; how it was."""
        if self._code is None:
            self._code = self._runs.code_of(self.pid, seconds)
        return Outcome(self._code, self.out, self.err)


@functools.cache
def runs() -> Runs:
    """The process that forks for all tests of this one."""
    made = Runs()
    atexit.register(made.close)
    return made


def two_workers(**more: Any) -> list[dict[str, str]]:
    """TF_CONFIG of each of two workers on this host."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        listener.close()
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}, **more}
            )
        }
        for index in range(2)
    ]


def serve() -> Iterator[dict[str, Any]]:
    """Fork for each request of stdin; the request, in the child."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps(_waited(request["wait"], request["seconds"])), flush=True)
        elif pid := os.fork():
            print(json.dumps(pid), flush=True)
        else:
            yield request
            return


def _waited(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def become(request: Mapping[str, Any]) -> int:
    """Be `python -m <program> <words>`; the exit code."""
    for number, file in enumerate(request["files"], start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    module = importlib.import_module(request["program"])
    sys.argv = [str(module.__file__), *request["words"]]
    if request["linger"]:
        atexit.register(time.sleep, request["linger"])

    from gnn_core.launch import guarded

    return guarded(module.main)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from tf_mirrored.quiet import without_greeting

    with without_greeting():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

    import tf_mirrored.learner
    import tf_mirrored.train  # noqa: F401

    for asked in serve():
        sys.exit(become(asked))
