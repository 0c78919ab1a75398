"""A job in the background, with everything it started: to be watched, signalled and outlived."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.e2e.small import LAUNCHING, ROOT
from tests.forked import Forked, is_possible, server
from tests.patience import patient

_RANKS = (b"OMPI_COMM_WORLD_RANK=", b"RANK=")  # by mpirun, by torchrun


def _heed_signals() -> None:
    """The tests may have been started to ignore these (nohup, a shell's `&`): it is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Job:
    """A command in a session of its own; `python` stands for this interpreter.

    Its output goes to files: a pipe that nobody reads would hold it up.
    """

    def __init__(self, command: Sequence[str], folder: Path):
        words = [sys.executable if word == "python" else str(word) for word in command]
        env = {**os.environ, **LAUNCHING, "PYTHONUNBUFFERED": "1"}
        stem = folder / str(time.monotonic_ns())
        self._files = (stem.with_suffix(".out"), stem.with_suffix(".err"))
        self._process: subprocess.Popen[bytes] | Forked
        if words[0] == sys.executable and is_possible(words[1:], {}):
            self._process = server().start(words[1:], env, ROOT, self._files)
            return
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = subprocess.Popen(
                words,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_heed_signals,
                env=env,
            )

    @property
    def pid(self) -> int:
        """The process that was started: the launcher, if there is one."""
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has said so far."""
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self._files[1].read_text(errors="replace")

    def wait_until(self, happened: Callable[[], bool], seconds: float = 90) -> None:
        """Return as soon as `happened()`; fail when the job ends before, or time runs out."""
        deadline = time.monotonic() + patient(seconds)
        while not happened():
            assert self._process.poll() is None, f"it ended too soon:\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.out}\n{self.err}"
            time.sleep(0.01)

    def pid_of_rank(self, rank: int) -> int:
        """The process of that rank."""
        for pid in self._members():
            with contextlib.suppress(OSError):
                names = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if any(name + str(rank).encode() in names for name in _RANKS):
                    return pid
        raise AssertionError(f"rank {rank} is not running")

    def end(self, seconds: float = 60) -> int:
        """Wait for the end of the job and of all that it started; its exit code."""
        deadline = time.monotonic() + patient(seconds)
        try:
            code = self._process.wait(patient(seconds))
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {patient(seconds):g} s:\n{self.out}\n{self.err}")
        while left := self._members():
            assert time.monotonic() < deadline, f"it left processes behind: {left}"
            time.sleep(0.05)
        return code

    def kill(self) -> None:
        """End whatever is left, if a test has failed."""
        for pid in [*self._members(), self.pid]:
            if self._process.poll() is None or pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _members(self) -> list[int]:
        """Every process of the session, zombies included: nobody but their parent could end them.

        Ranks are in process groups of their own, so a group would not do; those of torchrun are in
        sessions of their own, so its children are sought too.
        """
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(folder.name)) == self.pid:
                    found.append(int(folder.name))
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks = psutil.Process(self.pid).children(recursive=True)
            found += [rank.pid for rank in ranks if rank.pid not in found]
        return [pid for pid in found if pid != self.pid or self._process.poll() is None]


@contextlib.contextmanager
def job(command: Sequence[str], folder: Path) -> Iterator[Job]:
    """Start a job; whatever happens, nothing of it is left."""
    started = Job(command, folder)
    try:
        yield started
    finally:
        started.kill()
