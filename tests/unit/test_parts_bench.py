"""The benchmark of parts counts rows and writes a record that the report reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.bench import parts
from gnn_core.data.graph import write_graph
from gnn_core.report.tables.benches import bench_table, read_benches
from tests.unit.made_graphs import with_train

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


def test_a_graph_without_features_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_graph(with_train(9, 4), tmp_path / "graph")
    assert parts.main([str(tmp_path / "graph"), "--cache-dir", str(tmp_path / "cache")]) == 2
    assert "expected features, whose rows are counted, got none" in capsys.readouterr().err


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parts.main(["--help"])
    assert capsys.readouterr().out.startswith("usage: python -m gnn_core.bench.parts ")
