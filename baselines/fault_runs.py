"""A run that is hit by a signal at a chosen moment, how it ends, and how its successor ends.

`faults_bench` makes many of them, one after the other.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.launches import ROOT
from gnn_core.training.checkpoint import LAST, UNFINISHED, state_of
from gnn_core.usage import UsageError

EPOCHS, INTERVAL = 8, 3  # of a run; steps between two checkpoints
DATASET = "synthetic:papers=20000,num_features=16,num_topics=8"
FLAGS = (
    *("--dataset", DATASET, "--hidden", "16", "--fanouts", "5,5", "--global-batch-size", "1024"),
    *("--epochs", str(EPOCHS), "--precision", "fp64", "--lr", "0.01", "--dropout", "0.3"),
    *("--device", "cpu", "--progress", "lines"),
)
WAITS = ("--start-timeout", "20", "--collective-timeout", "8")  # seconds
MOMENTS = ("start", "preparing", "training", "saving", "evaluating", "end")
KILL, STOP = "SIGKILL", "SIGSTOP"
TOLERANCE = 1e-9  # of a loss in fp64, relatively
_MARK = "RINGSAGE_FAULT_RUN"  # in the environment of all processes of a run
_RANKS = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "RANK")
_LOOK_SECONDS = 0.001
_MOST_SECONDS = 180.0  # of a run that nothing happens to
_LATEST = {"preparing": 0.1, "training": 0.02, "evaluating": 0.02, "end": 0.5}  # after its begin
_FAULT_LINE = re.compile(
    r"fail|lost|exit|signal|error|stopped|killed|answer|arrive|goes on", re.IGNORECASE
)


@dataclass(frozen=True)
class Way:
    """A way to start two ranks, and which of its processes are hit.

    The words are for `command`. The last of the victims starts all others.
    """

    words: tuple[str, ...]
    victims: tuple[str, ...] = ("rank 0", "rank 1", "launcher")
    start_seconds: float = 3.0  # a fault at the start comes within these


_HOROVOD, _PAIR = "horovod_gnn/train.py", ("-np", "2")
WAYS: Mapping[str, Way] = {
    "mpirun": Way(("mpirun", *_PAIR, "python", _HOROVOD)),
    "horovodrun": Way(
        ("horovodrun", "--gloo", *_PAIR, "--network-interfaces", "lo", "python", _HOROVOD)
    ),
    "elastic": Way(
        (
            *("horovodrun", *_PAIR, "--min-np", "1", "--slots-per-host", "1"),
            *("--network-interfaces", "lo", "--host-discovery-script", "{folder}/hosts.sh"),
            *("python", _HOROVOD),
        )
    ),
    "ddp": Way(("torchrun", "--standalone", "--nproc-per-node", "2", "baselines/ddp.py")),
    "multiworker": Way(
        (
            *("mpirun", *_PAIR, "python", "tf_mirrored/train.py"),
            *("--strategy", "multiworker", "--threads", "1"),
        ),
        start_seconds=8.0,
    ),
    "param-server": Way(
        ("python", "baselines/param_server.py", "--workers", "2"),
        ("worker", "server", "coordinator"),
    ),
}
"""By name, in the order of the table."""


@dataclass(frozen=True)
class Fault:
    """What happens to a run: which signal hits which process at which moment.

    `epoch` (of `EPOCHS`) and `share` (0 to 1, of the time that the moment lasts) say when exactly.
    """

    moment: str
    victim: str
    signal: str
    epoch: int
    share: float


def planned(way: str, runs: int, seed: int) -> list[Fault]:
    """The faults of so many runs: all kinds in random order, then again; fewer are the first."""
    drawn = random.Random(f"{seed} {way}")
    *members, first = WAYS[way].victims
    hits = [(one, number) for number in (KILL, STOP) for one in members] + [(first, KILL)]
    kinds = [(moment, *hit) for moment in MOMENTS for hit in hits]

    def endless() -> Any:
        while True:
            drawn.shuffle(kinds)
            for kind in kinds:
                yield Fault(*kind, drawn.randrange(1, EPOCHS - 1), drawn.random())

    return list(islice(endless(), runs))


class FaultRun:
    """A run that is hit, and the one that goes on from what it has left.

    Args:
        way: of `WAYS`, by name.
        fault: what happens to it.
        folder: for all that it writes; new.
        cache: of prepared graphs.
        bound: seconds from the hit in which all of it must have ended.
        whole: the record of the same training without a fault.
    """

    def __init__(
        self, way: str, fault: Fault, folder: Path, cache: Path, bound: float, whole: RunRecord
    ):
        self._way, self._fault, self._folder = WAYS[way], fault, folder
        self._cache = folder / "cache" if fault.moment == "preparing" else cache
        self._bound, self._whole = bound, whole
        self._saved, self._log = folder / "saved", folder / "run.log"
        self._steps = len(whole.step_losses or []) // EPOCHS
        self._seen = 0  # steps that a checkpoint had, as long as the run was looked at
        folder.mkdir(parents=True)
        hosts = folder / "hosts.sh"
        hosts.write_text("#!/bin/sh\nprintf 'localhost\\n127.0.0.1\\n'\n", encoding="utf-8")
        hosts.chmod(0o755)

    def row(self) -> dict[str, Any]:
        """Make both runs; what is to be said of them. Nothing of them is left."""
        found: dict[str, Any] = {**vars(self._fault), "was_hit": False, "problems": []}
        problems: list[str] = found["problems"]
        try:
            code = self._hit_run(found)
            first = last = self._record("records")
            found["exit_code"], found["resumed"] = code, code != 0 or first is None
            if found["resumed"]:
                last = self._resumed(problems)
            if last is not None:
                problems += differences(last, self._whole)
                found["redone"] = self._redone(first, last) if found["resumed"] else 0
                if found["redone"] > INTERVAL:
                    problems.append(f"{found['redone']} steps were made twice")
            elif not problems:
                problems.append("the run that goes on left no record")
        except (ValueError, UsageError) as problem:  # a checkpoint that is not whole
            problems.append(str(problem))
        return found

    # --- the run that is hit ----------------------------------------------------------------------

    def _hit_run(self, found: dict[str, Any]) -> int | None:
        """Start it, hit it and wait for its end; the exit code, None where it does not end."""
        fault = self._fault
        with self._running("records", self._log) as job:
            began = time.monotonic()
            if self._await_moment(job):
                victim = self._victim(job)
                time.sleep(fault.share * _LATEST.get(fault.moment, 0.0))
                self._look()
                began = time.monotonic()
                if victim is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, getattr(signal, fault.signal))
                        found["was_hit"] = True
            elif job.code is None:
                found["problems"].append(f"the moment did not come within {_MOST_SECONDS:g} s")
            found["ended"] = job.wait(began + self._bound)
            found["seconds"] = round(time.monotonic() - began, 2)
            found["half_written"] = any(self._saved.glob(f".*{UNFINISHED}"))
            found["left"] = job.commands()
            code = job.code
        if fault.victim != self._way.victims[-1]:
            text = self._log.read_text(encoding="utf-8", errors="replace")
            found["named"] = is_named(text, fault.victim)
        if not found["ended"]:
            found["problems"].append(f"not ended {self._bound:g} s after the hit")
        return code

    @contextlib.contextmanager
    def _running(self, records: str, log: Path) -> Iterator[_Job]:
        """The training, or what is left of it; whatever happens, nothing of it is left."""
        flags = [*FLAGS, *WAITS, "--checkpoint-every-steps", str(INTERVAL), "--resume"]
        for name, folder in (
            ("cache-dir", self._cache),
            ("records", self._folder / records),
            ("checkpoint-dir", self._saved),
        ):
            flags += [f"--{name}", str(folder)]
        job = _Job([*command(self._way.words, self._folder), *flags], log)
        try:
            yield job
        finally:
            job.kill()

    def _await_moment(self, job: _Job) -> bool:
        """Wait for the moment; False where it does not come, or the run ends before."""
        fault = self._fault
        if fault.moment == "start":
            time.sleep(fault.share * self._way.start_seconds)
            return True
        at = fault.epoch * self._steps
        happened: dict[str, Callable[[], bool]] = {
            "preparing": lambda: any(self._cache.rglob(".*.lock")),
            "training": lambda: self._look() > at and self._seen % self._steps != 0,
            "saving": lambda: any(self._saved.glob(f".{LAST}*{UNFINISHED}")),
            "evaluating": lambda: self._look() > at and self._seen % self._steps == 0,
            "end": lambda: self._look() >= self._steps * EPOCHS,
        }
        if fault.moment == "saving" and not _until(job, lambda: self._look() >= at):
            return False
        return _until(job, happened[fault.moment])

    def _victim(self, job: _Job) -> int | None:
        """The process that is to be hit, as soon as it is there; None where the run has ended."""
        if self._fault.victim == self._way.victims[-1]:
            return job.pid
        found: list[int] = []

        def is_there() -> bool:
            found.extend(job.members(self._fault.victim))
            return bool(found)

        return found[0] if _until(job, is_there) else None

    def _look(self) -> int:
        """How many steps the checkpoint has. Raises ValueError for one that is not whole."""
        self._seen = max(self._seen, self._saved_steps())
        return self._seen

    def _saved_steps(self) -> int:
        try:
            data = (self._saved / LAST).read_bytes()
        except FileNotFoundError:
            return 0
        try:
            progress = state_of(data).progress
        except Exception as problem:
            raise ValueError(f"{LAST} is not whole: {problem}") from None
        return progress.epoch * self._steps + progress.step

    # --- the run that goes on ---------------------------------------------------------------------

    def _resumed(self, problems: list[str]) -> RunRecord | None:
        """Go on with --resume; the record."""
        self._look()
        with self._running("resumed", self._folder / "resumed.log") as job:
            if not job.wait(time.monotonic() + _MOST_SECONDS) or job.code != 0:
                how = "does not end" if job.code is None else f"ends with exit code {job.code}"
                problems.append(f"the run that goes on {how}")
                return None
        return self._record("resumed")

    def _record(self, folder: str) -> RunRecord | None:
        """The record in a folder of this run; None where it left none."""
        if not (self._folder / folder).is_dir():
            return None
        records, _ = read_records(self._folder / folder)
        return records[-1] if records else None

    def _redone(self, first: RunRecord | None, last: RunRecord) -> int:
        """Steps that were made twice, as far as a checkpoint or a record tells."""
        done = max(self._seen, len(first.step_losses or []) if first is not None else 0)
        return done - (self._steps * EPOCHS - len(last.step_losses or []))


def command(words: Sequence[str], folder: Path) -> list[str]:
    """The words that start a way: launchers beside this Python, programs in this repository."""
    beside = Path(sys.executable).parent
    made = []
    for place, word in enumerate(words):
        if word == "python":
            word = sys.executable
        elif word.endswith(".py"):
            word = str(ROOT / word)
        elif place == 0:
            word = str(beside / word)
        made.append(word.format(folder=folder))
    return made


def is_named(text: str, victim: str) -> bool:
    """Whether the output of a run says which of its processes has gone.

    Launchers and ranks name a rank by its number. An elastic job names hosts, which are one here.
    """
    name, _, number = victim.partition(" ")
    which = rf"\b(rank|worker|process name)\b[\s:]*{number}\b" if number else rf"\b{name} \d"
    if number:
        which += r"|goes on    on 1 rank\b"
    lines = [line for line in text.splitlines() if _FAULT_LINE.search(line)]
    # torchrun and horovodrun say the number in a line of its own
    lines += re.findall(r"(?:^|\])\s*(?:rank\s+|Process name): .*", text, re.MULTILINE)
    return any(re.search(which, line, re.IGNORECASE) for line in lines)


def differences(last: RunRecord, whole: RunRecord) -> list[str]:
    """Where the end of a run is not that of the run without a fault."""
    found = [
        f"{name}: {last.final.get(name)}, without a fault {whole.final[name]}"
        for name in ("test_accuracy", "valid_accuracy", "best_epoch")
        if last.final.get(name) != whole.final[name]
    ]
    own, all_losses = last.step_losses or [], whole.step_losses or []
    tail = all_losses[len(all_losses) - len(own) :]
    if len(own) > len(all_losses) or not all(
        math.isclose(mine or math.nan, theirs or math.nan, rel_tol=TOLERANCE)
        for mine, theirs in zip(own, tail, strict=True)
    ):
        found.append("losses of steps are others than without a fault")
    return found


def _until(job: _Job, happened: Callable[[], bool]) -> bool:
    """Wait until it has happened; False where the job ends before, or that takes too long."""
    deadline = time.monotonic() + _MOST_SECONDS
    while not happened():
        if job.code is not None or time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


class _Job:
    """A command and all that it starts, told by a mark in their environment."""

    def __init__(self, words: Sequence[str], log: Path):
        mark = uuid.uuid4().hex
        self._mark = f"{_MARK}={mark}".encode()
        with log.open("wb") as stream:
            self._child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", _MARK: mark},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._child.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._child.poll()

    def members(self, victim: str = "") -> list[int]:
        """The processes that are there, or those of them that `victim` is the name of."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                names = (folder / "environ").read_bytes().split(b"\0")
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if self._mark in names and (not victim or _is(victim, words, names)):
                    found.append(int(folder.name))
        return sorted(found)

    def wait(self, until: float) -> bool:
        """Wait until nothing of it is there any more; False when that takes too long."""
        while self.code is None or self.members():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def commands(self) -> list[str]:
        """The command lines of what is there."""
        found = []
        for pid in self.members():
            with contextlib.suppress(OSError):
                data = Path("/proc", str(pid), "cmdline").read_bytes()
                found.append(data.replace(b"\0", b" ").decode(errors="replace")[:200])
        return found

    def kill(self) -> None:
        """End whatever is there."""
        while self.code is None or self.members():
            for pid in self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _is(victim: str, words: Sequence[str], names: Sequence[bytes]) -> bool:
    """Whether a process is the one so called, by its command line and its environment."""
    is_python = Path(words[0]).name.startswith("python")
    if not is_python or not any(word.endswith(".py") for word in words):
        return False
    name, _, number = victim.partition(" ")
    if not number:
        return "--role" in words and words[words.index("--role") + 1] == name
    return any(f"{variable}={number}".encode() in names for variable in _RANKS)
