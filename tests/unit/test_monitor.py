"""A rank that waits: what it makes of another one that computes, sleeps, stands still or has gone.

The other rank is a process of its own, as under any launcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnn_core.training import monitor as module
from gnn_core.training.monitor import RankMonitor
from gnn_core.training.other_rank import OtherRank
from gnn_core.training.world import Lost, Stopped, World
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3.0  # seconds; then some for looks and words
OTHER = """
import json, sys, time
from gnn_core.training.monitor import RankMonitor

def compute():
    while True:
        sum(range(100_000))

def hold_the_interpreter():  # no other thread runs meanwhile, and nothing answers
    while True:
        sum(range(200_000_000))

monitor = RankMonitor(1, 1000.0)
print(json.dumps(monitor.card()), flush=True)
monitor.watch(json.loads(input()))
print("watches", flush=True)
{then}
"""
BEHAVIOURS = {
    "sleeps": "time.sleep(60)",
    "computes": "compute()",
    "holds": "hold_the_interpreter()",
    "has come": "monitor.begin(); time.sleep(60)",
    "debugs": "import pdb; pdb.set_trace()\ntime.sleep(60)",
    "fails": "time.sleep(1); monitor.tell_failure('no such file: x'); time.sleep(60)",
    "locks": (
        "import filelock; filelock.FileLock(sys.argv[1] + '/lock').acquire(); time.sleep(60)"
    ),
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> World:
    """Rank 0, which looks soon."""
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(module, "_FIRST_WORD_SECONDS", 2.0)
    return World()


@contextlib.contextmanager
def other_rank(
    world: World, behaviour: str, folder: Path, limit: float = LIMIT
) -> Iterator[subprocess.Popen[str]]:
    """Rank 1, which behaves like that, watched by rank 0."""
    script = OTHER.replace("{then}", BEHAVIOURS[behaviour])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    monitor = world.monitor = RankMonitor(0, limit)
    try:
        cards = [monitor.card(), json.loads(process.stdout.readline())]
        process.stdin.write(json.dumps(cards) + "\n")
        process.stdin.flush()
        monitor.watch(cards)
        assert process.stdout.readline() == "watches\n"
        yield process
    finally:
        monitor.end()
        monitor.close()
        process.kill()
        process.wait()


def wait_for(world: World, seconds: float) -> None:
    """Be in a collective that nobody finishes; Lost and Stopped pass."""
    with world.waiting() as wait:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)
            wait.check()


def test_a_rank_that_fails_tells_the_others_why(alone: World, tmp_path: Path) -> None:
    with other_rank(alone, "fails", tmp_path, limit=1000.0):
        with pytest.raises(Lost, match=r"^rank 1 \(.*\) failed: no such file: x$"):
            wait_for(alone, 30)


def test_a_rank_that_stands_still_is_named_and_ends_the_wait(alone: World, tmp_path: Path) -> None:
    with other_rank(alone, "computes", tmp_path) as process:
        wait_for(alone, 2)
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(Lost) as caught:
            wait_for(alone, 30)
    assert LIMIT <= time.monotonic() - begun < LIMIT + 5
    message = str(caught.value)
    assert message.startswith("rank 1 (")
    assert f"pid {process.pid}) is stopped (SIGSTOP); nothing came for " in message
    assert "(--collective-timeout 3); start all again, with --resume" in message
    assert "\n" not in message


def test_a_rank_that_stands_still_is_ended_where_others_go_on_without_it(
    alone: World, tmp_path: Path
) -> None:
    with other_rank(alone, "computes", tmp_path) as process:
        alone.monitor.ends_stopped = True
        wait_for(alone, 2)
        os.kill(process.pid, signal.SIGSTOP)
        until = time.monotonic() + patient(10)
        with alone.waiting() as wait:
            while process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
                wait.check()  # a collective of Horovod fails now
        assert process.poll() == -signal.SIGKILL


@pytest.mark.long
def test_a_rank_that_stands_still_after_it_has_come(alone: World, tmp_path: Path) -> None:
    with other_rank(alone, "has come", tmp_path) as process:
        wait_for(alone, 2)
        alone.monitor._begun = 0  # the same collective, which it is in
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(Lost, match=r"is stopped \(SIGSTOP\)"):
            wait_for(alone, 30)


def test_a_rank_that_does_nothing_ends_the_wait(alone: World, tmp_path: Path) -> None:
    with other_rank(alone, "sleeps", tmp_path), pytest.raises(Lost) as caught:
        wait_for(alone, 30)
    assert "does nothing" in str(caught.value)


@pytest.mark.long
def test_a_rank_that_has_ended(alone: World, tmp_path: Path) -> None:
    with other_rank(alone, "computes", tmp_path) as process:
        process.kill()
        process.wait()
        with pytest.raises(Lost, match=r"rank 1 \(.*\) has ended"):
            wait_for(alone, 30)


@pytest.mark.parametrize(
    "behaviour",
    ["computes", *(pytest.param(b, marks=pytest.mark.long) for b in ("holds", "debugs", "locks"))],
)
def test_a_rank_with_a_reason_is_waited_for_and_named(
    alone: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], behaviour: str
) -> None:
    words = {
        "computes": ": is busy",
        "holds": ": is busy",
        "debugs": ": is in a debugger",
        "locks": ": waits for a lock that another process holds",
    }
    with contextlib.ExitStack() as stack:
        if behaviour == "locks":
            from filelock import FileLock

            stack.enter_context(FileLock(tmp_path / "lock"))
        stack.enter_context(other_rank(alone, behaviour, tmp_path))
        wait_for(alone, 2.5 * LIMIT)
    said = capsys.readouterr().out
    assert said.startswith("waiting    for rank 1 (")
    assert words[behaviour] in said


def test_a_rank_that_is_to_stop_waits_a_little_for_the_others(alone: World, tmp_path: Path) -> None:
    alone.grace_seconds = 0.5
    alone.stop_signal = signal.SIGTERM
    begun = time.monotonic()
    with other_rank(alone, "computes", tmp_path), pytest.raises(Stopped):
        wait_for(alone, 30)
    assert time.monotonic() - begun > 0.5


def test_a_wait_that_no_exception_reaches_ends_the_process(tmp_path: Path) -> None:
    """As under TensorFlow: the main thread is in C."""
    script = """
import json, os, subprocess, sys, time
from gnn_core.training import monitor as module
module.FIRST_LOOK_SECONDS = 0.5
module._UNPICKED_SECONDS = 1.0
monitor = module.RankMonitor(0, 2.0)
monitor.last_words = lambda reason: print("the last word:", reason)
card = monitor.card()
monitor.watch([card, {**card, "pid": 2**22 + 1}])
monitor.begin()
time.sleep(60)
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=40
    )
    assert (done.returncode, time.monotonic() - begun < 15) == (1, True)
    assert done.stderr.startswith("rank 0 failed: rank 1 (")
    assert "has ended" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.startswith("the last word: rank 1")


def test_strangers_are_not_answered(alone: World) -> None:
    import socket

    monitor = RankMonitor(0, LIMIT)
    card = monitor.card()
    monitor.watch([card, {**card, "token": ""}])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(1)
        for asked in (b"", b"x" * 3000, b"[]", b'{"token": "guess", "asks": true}'):
            stranger.sendto(asked, ("127.0.0.1", card["port"]))
        with pytest.raises(TimeoutError):
            stranger.recvfrom(10)
        known = json.dumps({"token": card["token"], "asks": True}).encode()
        stranger.sendto(known, ("127.0.0.1", card["port"]))
        assert json.loads(stranger.recvfrom(4096)[0])["rank"] == 0
    monitor.close()


@pytest.mark.parametrize("has_answered", [True, False])
@pytest.mark.parametrize(("is_local", "lost_after"), [(True, 5.0), (False, 60.0)])
def test_a_host_that_is_cut_off_is_left_to_mpirun_for_a_minute(
    is_local: bool, lost_after: float, has_answered: bool
) -> None:
    """A rank that ended sooner would make it wait for an answer of that host."""
    card = {"host": "two", "pid": 2**22 + 1, "started": 0}
    other = OtherRank(1, card, None, is_local)
    reported = dict.fromkeys(("cpu_seconds", "bytes", "begun"), 0)
    if has_answered:
        other.hear({**reported, "disk": False, "long_wait": "", "waits": False}, now=100.0)
    monitor = RankMonitor(0, 5.0)
    before, after = (
        monitor._lost([other], 5.0, 100.0, 100.0 + lost_after + s) for s in (-0.5, 0.5)
    )
    assert before == [] and after == [other]
    said = other.doing(100.0 + lost_after + 0.5)
    assert ("has not answered for" if has_answered else "has never answered") in said
    assert ("does a firewall stop UDP?" in said) == (not has_answered and not is_local)
