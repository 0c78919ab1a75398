"""The benchmark of ranks runs every entry in turn and judges all of them by the bound."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.report.tables.benches import read_benches
from tests.e2e.jobs import job
from tests.e2e.small import DATASET

pytestmark = pytest.mark.needs_horovod
BENCH = ["python", "-m", "baselines.ranks_bench"]
ENTRIES = ["single", "bound", "bound, in step", "horovod over mpi", "horovod over gloo", "ddp"]


@pytest.mark.long
@pytest.mark.parametrize("busy", [0, 1])
def test_every_entry_takes_its_turn_and_is_judged_by_the_bound(
    tmp_path: Path, run_cli: Callable, busy: int
) -> None:
    made = tmp_path / "ranks.json"
    flags = ["--dataset", DATASET, "--epochs", "2", "--rounds", "1", "--busy", str(busy)]
    flags += ["--json", str(made)]
    done = run_cli([*BENCH, *flags], timeout=300)
    assert done.returncode == 0, done.stderr
    (bench,), problems = read_benches(made)
    assert not problems
    assert [row[0] for row in bench.rows] == ENTRIES
    seconds = json.loads(made.read_text())["seconds"]
    assert all(len(seconds[name]) == 1 for name in ENTRIES)
    share = f"{seconds['bound'][0] / seconds['ddp'][0]:.2f}"
    assert bench.rows[5][4] == f"{share} ({share} .. {share})"
    assert seconds["bound, in step"][0] > 0
    assert bench.rows[1][4] == "1.00 (1.00 .. 1.00)"
    assert all(name in done.stdout for name in ENTRIES)
    assert ("busy: 1 other processes computed meanwhile" in bench.notes) == (busy == 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ranks", "0"], "--ranks: expected a whole number from 1, got 0"),
        (["--epochs", "1"], "--epochs: expected a whole number from 2, got 1"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--json", "/proc/nowhere/ranks.json"], "json"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    run_cli: Callable, flags: list[str], words: str
) -> None:
    done = run_cli([*BENCH, *flags])
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_ctrl_c_is_one_line_and_leaves_nobody_behind(tmp_path: Path) -> None:
    flags = ["--dataset", DATASET, "--rounds", "9", "--busy", "1"]
    with job([*BENCH, *flags], tmp_path) as started:
        started.wait_until(lambda: "round 1/9" in started.err)
        os.killpg(started.pid, signal.SIGINT)
        assert started.end() == 130
        assert started.err.splitlines()[-1] == "interrupted" and "Traceback" not in started.err
