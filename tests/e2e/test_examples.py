"""The digits: a script without a graph under each launcher; the loss is that of one process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.measure.records import read_records
from tests.e2e.small import LAUNCHERS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STARTS = {
    "horovod": (LAUNCHERS / "horovodrun", "-np", "2", sys.executable),
    "ddp": (LAUNCHERS / "torchrun", "--standalone", "--nproc-per-node", "2"),
    "mirrored": (sys.executable,),
    "multiworker": (LAUNCHERS / "mpirun", "-np", "2", sys.executable),
}


def last_loss(run_cli: Callable, folder: Path, strategy: str, program: str) -> float:
    """Run an example in a folder; the loss that it prints."""
    start = STARTS.get(strategy, (sys.executable,))
    done = run_cli([*start, EXAMPLES / program, "--strategy", strategy], cwd=folder, timeout=240)
    assert done.returncode == 0, done.stderr
    return float(re.search(r"last loss (\S+),", done.stdout)[1])


@pytest.mark.needs_horovod
def test_digits_in_torch(run_cli: Callable, tmp_path: Path) -> None:
    single = last_loss(run_cli, tmp_path, "single", "digits_torch.py")
    together = last_loss(run_cli, tmp_path, "horovod", "digits_torch.py")
    assert together == pytest.approx(single, rel=1e-5)
    records, problems = read_records(tmp_path / "results" / "digits")
    assert problems == [] and {record.strategy for record in records} == {"single", "horovod"}
    for record in records:
        assert (record.status, len(record.epochs)) == ("ok", 10)
        assert record.final["test_accuracy"] > 0.9


@pytest.mark.long
@pytest.mark.needs_tensorflow
def test_digits_under_every_other_strategy(run_cli: Callable, tmp_path: Path) -> None:
    programs = {"digits_torch.py": ("single", "ddp")}
    programs["digits_keras.py"] = ("one", "mirrored", "multiworker")
    for program, strategies in programs.items():
        first, *others = [last_loss(run_cli, tmp_path, one, program) for one in strategies]
        assert others == pytest.approx([first] * len(others), rel=1e-5)
    assert len(read_records(tmp_path / "results" / "digits")[0]) == 5


def test_they_stay_short() -> None:
    for file in EXAMPLES.glob("digits_*.py"):
        assert len(file.read_text("utf-8").splitlines()) < 80, file.name
