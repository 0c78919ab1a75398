"""The benchmark of parts counts rows and writes a record that the report reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.bench import parts
from gnn_core.report.tables.benches import bench_table, read_benches

PAPERS = "synthetic:papers=1000,num_features=8"


def test_rows_are_counted_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "parts.json"
    flags = [PAPERS, "--cache-dir", str(tmp_path / "cache"), "--ranks", "2", "--fetch-window", "1"]
    flags += ["--global-batch-size", "64", "--fanouts", "3,2", "--json", str(file)]
    assert parts.main(flags) == 0
    (bench,), problems = read_benches(file)
    assert not problems
    rows = [dict(zip(bench.columns, row, strict=True)) for row in bench.rows]
    assert [(row["targets by"], row["cache"]) for row in rows] == [
        *(("slices", share) for share in (0.0, 0.2)),
        *(("owner", share) for share in (0.0, 0.2)),
    ]
    slices, slices_cached, owner, cached = rows
    assert owner["remote"] < slices["remote"] < slices["rows a step"]
    assert slices["fetched"] == slices["remote"] > slices_cached["fetched"]
    assert cached["fetched"] < owner["fetched"] == owner["fixed set"]
    assert cached["of slices"] == pytest.approx(cached["fetched"] / slices["remote"], abs=0.02)
    ratio = cached["fixed set"] / cached["fetched"]
    assert cached["fixed set / fetched"] == pytest.approx(ratio, abs=0.02)
    assert bench_table(bench).text() in capsys.readouterr().out
