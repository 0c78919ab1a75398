"""The partition benchmark writes a record that the report reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.bench import partitioning
from gnn_core.report.tables.benches import bench_table, read_benches

PAPERS = "synthetic:papers=1000,num_features=8"


def test_methods_are_compared_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", PAPERS, "--cache-dir", str(tmp_path / "cache"), "--parts", "2"]
    file = tmp_path / "partitioning.json"
    assert partitioning.main([*flags, "--methods", "hash,refine", "--json", str(file)]) == 0
    (bench,), problems = read_benches(file)
    assert not problems and [row[0] for row in bench.rows] == ["hash", "refine"]
    by_hash, refined = (dict(zip(bench.columns, row, strict=True)) for row in bench.rows)
    assert by_hash["cut %"] == pytest.approx(50, abs=5) and refined["cut %"] < by_hash["cut %"]
    assert by_hash["cut / METIS"] is None and refined["memory MB"] > 0
    assert bench_table(bench).text() in capsys.readouterr().out


@pytest.mark.parametrize("flag", [["--methods", "metiss"], ["--parts", "0"], ["--parts", "x"]])
def test_wrong_flags_are_refused(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert partitioning.main(flag) == 2
    assert "expected " in capsys.readouterr().err
