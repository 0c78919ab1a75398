"""`python -m tf_mirrored.bench`: every way takes its turn, and the file says what was printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.report.tables.benches import read_benches
from tf_mirrored.bench import main

BENCH = ("python", "-m", "tf_mirrored.bench")


@pytest.mark.long
@pytest.mark.needs_torch
@pytest.mark.needs_tensorflow
def test_all_ways_are_timed_and_kept(tmp_path: Path, run_cli) -> None:
    made = tmp_path / "keras.json"
    done = run_cli(
        [
            *BENCH,
            "--dataset",
            "synthetic:papers=300,num_features=16",
            "--rounds",
            "2",
            "--steps",
            "2",
        ]
        + ["--json", str(made)],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (bench,), problems = read_benches(made)
    assert not problems
    names = [row[0] for row in bench.rows]
    assert names == ["as it trains", "own gradient", "gathered", "own dropout", "torch"]
    assert bench.rows[0][3].startswith("1.00 ")
    assert all(name in done.stdout for name in names)
    assert all(row[1] > 0 for row in bench.rows)


@pytest.mark.parametrize("flag", ["--rounds", "--steps", "--threads"])
def test_nothing_can_be_measured_no_times(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag, "0"]) == 2
    assert f"{flag}: expected a whole number from 1, got 0" in capsys.readouterr().err
