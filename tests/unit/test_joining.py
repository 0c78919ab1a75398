"""Calls that wait in C for other ranks: bounded, told about, and open to signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gnn_core import joining
from gnn_core.joining import await_ranks_at_store, call_in_time
from gnn_core.usage import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_what_comes_in_time_is_returned_or_raised() -> None:
    assert call_in_time(lambda: 7, 5, lambda: "") == 7
    with pytest.raises(KeyError):
        call_in_time(lambda: {}["x"], 5, lambda: "")


def test_what_does_not_come_is_named_and_reported_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "LONG_SECONDS", 0.1)
    for name in ("OMPI_COMM_WORLD_SIZE", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    waits = threading.Event()
    with pytest.raises(UsageError) as caught:
        call_in_time(waits.wait, 0.5, lambda: "rank 1 is not there")
    waits.set()
    assert str(caught.value) == (
        "expected 2 ranks within 0.5 s, but rank 1 is not there; start them all, or wait longer "
        "with --start-timeout"
    )
    reported = capsys.readouterr().out.splitlines()
    assert set(reported) == {"waiting    for all ranks to join: rank 1 is not there"}


JOINS = """
import ctypes, os, signal, sys, time
from gnn_core.joining import call_in_time
from gnn_core.launch import guarded
libc = ctypes.CDLL(None)

def join():
    libc.signal(signal.SIGTERM, 1)  # SIG_IGN, as a library that has a handler of its own
    print("joins", flush=True)
    libc.sleep(60)

sys.exit(guarded(lambda: call_in_time(join, float(sys.argv[1]), lambda: "nobody came")))
"""


def test_sigterm_ends_a_process_that_joins_whatever_the_library_has_installed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", JOINS, "50"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "joins\n"
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(5) == -signal.SIGTERM


def test_a_process_that_gives_up_ends_though_its_thread_hangs() -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", JOINS, "1"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: expected all ranks within 1 s, but nobody came; start them all, or wait longer "
        "with --start-timeout\n",
    )
    assert time.monotonic() - begun < 10


def test_ranks_meet_at_the_store_of_horovodrun(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("horovod.runner.http.http_server").RendezvousServer()
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", str(server.start()))
    try:
        with pytest.raises(UsageError, match=r"within 0.5 s, got 1: rank 1 did not arrive at 127"):
            await_ranks_at_store(0, 2, 0.5)
        await_ranks_at_store(1, 2, 5)  # rank 0 has come before
    finally:
        server.stop()
