"""One command starts coordinator, servers and workers; and what happens when some are killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gnn_core.measure.records import read_records
from tests.conftest import ROOT
from tests.patience import patient

pytest.importorskip("grpc")
pytestmark = pytest.mark.needs_torch
PROGRAM = "baselines/param_server.py"
SMALL = (
    *("--dataset", "synthetic:papers=2000", "--layers", "2", "--hidden", "16"),
    *("--fanouts", "5,5", "--global-batch-size", "100", "--eval-every", "1000"),
    *("--progress", "lines", "--patience", "0"),
)


class Job:
    """The command, while it runs."""

    def __init__(self, folder: Path, *flags: str):
        self.folder = folder
        words = [sys.executable, "-u", PROGRAM, *SMALL, "--servers", "1"]
        words += [] if "--workers" in flags else ["--workers", "2"]
        words += ["--records", str(folder / "records"), "--checkpoint-dir", str(folder / "saved")]
        self._output = (folder / "output").open("w")
        self.process = subprocess.Popen(
            [*words, *flags], cwd=ROOT, stdout=self._output, stderr=self._output
        )
        self.started: list[psutil.Process] = []

    @property
    def said(self) -> str:
        return (self.folder / "output").read_text()

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + patient(60)
        while not what():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def wait_for_training(self, processes: int = 3) -> None:
        self.wait_for(lambda: "\nepoch " in self.said)
        self.started = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.started) == processes, self.said

    def of_role(self, role: str) -> list[psutil.Process]:
        return [one for one in self.started if role in one.cmdline()[-5:]]

    def wait_until_none_is_left(self) -> None:
        self.wait_for(lambda: not any(one.is_running() for one in self.started))

    def end(self) -> None:
        for one in self.started:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self.process.kill()
        self.process.wait(patient(10))
        self._output.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def begin(*flags: str) -> Job:
        jobs.append(Job(tmp_path, *flags))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


def test_a_killed_worker_is_done_without_and_a_signal_saves(start: Callable[..., Job]) -> None:
    job = start("--epochs", "100000", "--staleness", "1")
    job.wait_for_training()
    job.of_role("worker")[0].kill()
    job.wait_for(lambda: "lost       worker" in job.said)
    said = len(job.said)
    job.wait_for(lambda: "\nepoch " in job.said[said:])  # the other one goes on
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(patient(60)) == 128 + signal.SIGTERM, job.said
    assert (job.folder / "saved" / "last.safetensors").is_file()
    assert len(list((job.folder / "records").glob("*param-server*"))) == 1
    assert "Traceback" not in job.said
    job.wait_until_none_is_left()


def test_nothing_is_left_of_a_killed_command(start: Callable[..., Job]) -> None:
    job = start("--epochs", "100000", "--workers", "1")
    job.wait_for_training(2)
    job.process.kill()
    job.wait_until_none_is_left()


def test_a_killed_server_ends_the_run_with_one_line(start: Callable[..., Job]) -> None:
    job = start("--epochs", "100000", "--workers", "1", "--collective-timeout", "5")
    job.wait_for_training(2)
    job.of_role("server")[0].kill()
    assert job.process.wait(patient(60)) == 1
    assert "failed: server 0 " in job.said
    assert "Traceback" not in job.said
    job.wait_until_none_is_left()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--staleness", "-1"], "--staleness: expected a whole number of at least 0, or inf"),
        (["--staleness", "1.5"], "--staleness: expected a whole number of at least 0, or inf"),
        (["--servers", "257"], "--servers: expected a whole number at least 1 and at most 256"),
        (["--role", "worker"], "--role: --role worker needs --coordinator"),
        (["--norm", "batch"], "--norm batch: expected a norm that no other worker is asked for"),
        (["--partitions", "x"], "the param-server strategy ignores it"),
        (["--role", "worker", "--coordinator", "here"], "--coordinator: expected HOST:PORT"),
        (["--role", "server", "--coordinator", "localhost:1"], "expected the secret that all"),
        (
            ["--staleness", "2", "--checkpoint-dir", "x", "--checkpoint-every-steps", "3"],
            "a checkpoint is saved after each epoch",
        ),
    ],
)
def test_a_mistake_is_one_line(
    in_process: Callable, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str
) -> None:
    from baselines.param_server import main

    monkeypatch.setenv("RINGSAGE_JOB_SECRET", "")
    run = in_process(main, flags)
    assert run.code == 2
    assert words in run.err
    assert run.err.count("\n") == 1 and run.err.startswith("error: ")


@pytest.mark.parametrize("staleness", ["0", pytest.param("inf", marks=pytest.mark.long)])
def test_a_standby_takes_the_place_of_a_killed_server(
    start: Callable[..., Job], run_cli: Callable, tmp_path: Path, staleness: str
) -> None:
    """No update is lost or made twice: the curve is that of one process, or of the journal."""
    flags = ["--epochs", "15", "--precision", "fp64"]
    journal = tmp_path / "journal.json"
    stale = ["--staleness", staleness] if staleness != "0" else []
    job = start(*flags, *stale, "--standby", *(["--journal", str(journal)] if stale else []))
    job.wait_for_training(4)
    job.of_role("server")[0].kill()
    assert job.process.wait(patient(120)) == 0, job.said
    assert "lost       server 0; its standby has taken its place" in job.said
    job.wait_until_none_is_left()
    again = ["python", PROGRAM, "--workers", "2", *stale, "--replay", str(journal)]
    if not stale:
        again = ["python", "baselines/single.py"]
    run = run_cli([*again, *SMALL, *flags, "--records", str(tmp_path / "again")], timeout=120)
    assert run.returncode == 0, run.stderr
    (record,), _ = read_records(tmp_path / "records")
    (other,), _ = read_records(tmp_path / "again")
    assert record.parameter_server is not None and record.parameter_server.lost_servers == 1
    tolerance = 0 if stale else 1e-9
    assert record.step_losses == pytest.approx(other.step_losses, rel=tolerance, abs=0)
    assert record.final == pytest.approx(other.final, rel=tolerance, abs=0)
