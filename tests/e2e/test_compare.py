"""Strategies that take turns: what is left of it, a run that fails, Ctrl-C, and bad input."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gnn_core.measure.records import read_records
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, ROOT, Place

COMPARE = str(ROOT / "baselines" / "compare.py")


def words(place: Place, *options: str, hidden: str = "16", batch: str = "128") -> list[str]:
    """A comparison small enough for a test."""
    given = ["--dataset", DATASET, "--records", str(place.records), "--epochs", "2", *options]
    model = ["--hidden", hidden, "--fanouts", "5,5", "--global-batch-size", batch]
    return [*given, "--", "--cache-dir", str(place.cache), "--device", "cpu", *model]


@pytest.mark.needs_torch
@pytest.mark.needs_tensorflow
def test_both_frameworks_and_ranks_take_turns(run_cli: Callable, place: Place) -> None:
    options = ("--rounds", "1", "--ranks", "2", "--only", "one", "ddp")
    done = run_cli(["python", COMPARE, *words(place, *options)], timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    ended = re.findall(r"^round 1/1  (\w+) +(\d) ranks? +[\d.]+ s/epoch$", done.stdout, re.M)
    assert sorted(ended) == [("ddp", "2"), ("one", "1")]
    assert re.search(r"the test accuracies agree: all 2 lie between", done.stdout)
    (folder,) = place.records.iterdir()
    kinds = sorted(file.suffix for file in folder.iterdir())
    assert kinds == [".jsonl", ".jsonl", ".md", ".png"]  # no log: every run ended well
    records, problems = read_records(folder)
    assert problems == []
    assert [record.strategy for record in records] == [strategy for strategy, _ in ended]
    for record in records:
        assert [epoch.warm_up for epoch in record.epochs] == [True, False]
        assert [epoch.valid_accuracy is None for epoch in record.epochs] == [True, False]


@pytest.mark.needs_torch
def test_a_run_that_fails_is_reported_and_the_others_go_on(run_cli: Callable, place: Place) -> None:
    """A learning rate at which the loss is no number before long."""
    options = ("--rounds", "1", "--only", "single")
    command = [*words(place, *options), "--lr", "1e30", "--optimizer", "sgd"]
    done = run_cli(["python", COMPARE, *command])
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert " failed: " in line
    log = Path(line.rpartition("; see ")[2])
    assert log.name == "round-1-single.log" and log.stat().st_size > 0
    assert "1 failed" in done.stdout


@pytest.mark.needs_torch
def test_ctrl_c_ends_the_run_and_prints_what_there_is(place: Place) -> None:
    """In the second run, which would last for a long time."""
    options = ("--rounds", "500", "--only", "single")
    with job(["python", COMPARE, *words(place, *options)], place.folder) as compare:
        compare.wait_until(lambda: "\nround 1/" in compare.out and compare.out.endswith("\n"))
        compare.wait_until(lambda: bool(psutil.Process(compare.pid).children()))
        before = compare.out
        os.kill(compare.pid, signal.SIGINT)
        assert compare.end() == 130  # and nothing that it started is left
        assert compare.err == ""
        after = compare.out.removeprefix(before)
    assert after.startswith("stopped; what there is:\n")
    assert "| single " in after


@pytest.mark.parametrize(
    ("options", "extra", "named"),
    [
        (["--epochs", "1"], [], "--epochs: expected a whole number from 2, got 1"),
        (["--rounds", "x"], [], "--rounds: expected a whole number, got 'x'"),
        (["--ranks", "1,0"], [], "--ranks: expected numbers such as 1,2"),
        (["--only", "horovd"], [], "unknown strategy 'horovd', did you mean horovod?"),
        (["--onlly", "single"], [], "--onlly"),
        (["--dataset", "nonsense"], [], "unknown data set 'nonsense'"),
        ([], ["--hiden", "5"], "unknown flag --hiden, did you mean --hidden?"),
        ([], ["--epochs", "5"], "--epochs after `--`: compare sets it"),
        ([], ["--strategy", "one"], "--strategy after `--`: "),
        (["--records", "/dev/null/x"], [], "--records: expected a folder"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    run_cli: Callable, tmp_path: Path, options: list[str], extra: list[str], named: str
) -> None:
    where = ["--records", str(tmp_path / "records")]
    done = run_cli(["python", COMPARE, *where, *options, "--", *extra])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and named in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("records/*"))
