"""Python programs in processes that have numpy, numba and torch imported already.

One process imports them, starts no thread, and forks for every program: exit code, output, signals
and threads are those of a process of its own, without the seconds of CPU that the imports take.
The modules of this repository are imported anew by each. It ends as soon as its exit functions have
run: to take all modules apart would copy every page of them. What is decided while Python or a
library is loaded (`python -X`, variables such as OMP_NUM_THREADS) needs a start of the usual kind.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ("numpy", "numba", "scipy.sparse", "pandas", "psutil", "safetensors", "torch", "yaml")
_OF_TENSORFLOW = ("tf_mirrored", "keras", "cora_models")  # in the names of programs
# Variables that nothing reads while it is imported.
_HARMLESS = (
    *("RINGSAGE_", "http_proxy", "https_proxy", "no_proxy", "PYTHONUNBUFFERED", "PYTHONPATH"),
    *("PATH", "OMPI_ALLOW_RUN_AS_ROOT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_"),
)


def is_possible(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether `python <words>` with these variables more is the same in a forked process.

    TensorFlow is not: it wants to be imported before torch.
    """
    program = words[1] if words[0] == "-m" and len(words) > 1 else words[0]
    is_program = words[0] == "-m" or program.endswith(".py")
    early = any(name in program for name in _OF_TENSORFLOW)
    return is_program and not early and all(name.startswith(_HARMLESS) for name in env)


class Forked:
    """A forked program: what the tests use of `subprocess.Popen`."""

    def __init__(self, server: Server, pid: int, files: tuple[Path, Path]):
        self.pid = pid
        self.returncode: int | None = None
        self._server, self._files = server, files

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and to stderr."""
        self.wait(timeout)
        out, err = (file.read_text(errors="replace") for file in self._files)
        return out, err

    def poll(self) -> int | None:
        """The exit code, minus the signal that killed it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.code_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code. Raises subprocess.TimeoutExpired."""
        begun = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - begun > timeout:
                raise subprocess.TimeoutExpired("python", timeout)
            time.sleep(0.01)
        return code


class Server:
    """The process that forks."""

    def __init__(self) -> None:
        self._count = 0
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def start(
        self,
        words: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        files: tuple[Path, Path] | None = None,
    ) -> Forked:
        """Begin `python <words>` in a session of its own.

        Args:
            words: a program's file, or -m and its name, and what follows.
            env: all variables that it has.
            cwd: its working folder.
            files: for stdout and for stderr; temporary ones by default.
        """
        self._count += 1
        stem = Path(self._folder.name) / str(self._count)
        out, err = files or (stem.with_suffix(".out"), stem.with_suffix(".err"))
        for file in (out, err):
            file.touch()
        request = {"words": list(words), "env": dict(env), "cwd": str(cwd)}
        pid = self._ask({**request, "files": [str(out), str(err)]})
        return Forked(self, int(pid), (out, err))

    def code_of(self, pid: int) -> int | None:
        """The exit code of a program that has ended; None while it runs."""
        code: int | None = self._ask({"wait": pid})
        return code

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@functools.cache
def server() -> Server:
    """The process that forks for all tests of this one."""
    made = Server()
    atexit.register(made.close)
    return made


def _serve() -> Iterator[dict[str, Any]]:
    """Fork for each request of stdin; the request, in the child."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            ended, status = os.waitpid(request["wait"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
        elif pid := os.fork():
            for _ in range(10_000):  # until signals to its group reach it; it may have ended before
                if os.getsid(pid) == pid:
                    break
                time.sleep(0.001)
            print(json.dumps(pid), flush=True)
        else:
            os.setsid()
            yield request
            return


def _become(request: Mapping[str, Any]) -> None:
    """Be `python <words>`."""
    # The tests may have been started to ignore these: by nohup, or by a shell's `&`.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate([os.devnull, *request["files"]]):
        descriptor = os.open(file, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    paths = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path]
    first, *rest = request["words"]
    sys.orig_argv = [sys.executable, first, *rest]
    if first == "-m":
        sys.path[0] = request["cwd"]
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(first).resolve().parent)
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _code_of(request: Mapping[str, Any]) -> int:
    """Be that program to its end; its exit code."""
    code: Any = 0
    try:
        _become(request)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


if __name__ == "__main__":
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.freeze()
    for asked in _serve():
        os._exit(_code_of(asked))
