"""Benchmark files: what is read, what is refused, and how it looks in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gnn_core.config import UsageError
from gnn_core.report.tables.benches import bench_table, read_benches
from tests.unit.made_records import MACHINE

VALUES: dict[str, Any] = {
    "benchmark": "sampler",
    "machine": MACHINE,
    "versions": {"numpy": "2.4"},
    "commit": "c0ffee" * 6,
    "dirty": False,
    "settings": {"fanouts": [15, 10], "batch": 1024},
    "columns": ["what", "edges/s", "ms"],
    "rows": [["ours", 3.2e7, 1.23456], ["a|b", 5, None]],
    "notes": ["median of 20"],
}


def write(folder: Path, name: str = "sampler.json", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in {**VALUES, **changes}.items() if value is not ...}
    (folder / name).write_text(json.dumps(values))
    return folder / name


def test_the_rows_become_a_table_with_its_origin(tmp_path: Path) -> None:
    write(tmp_path, more="for another reader")
    (bench,), problems = read_benches(tmp_path)
    assert problems == []
    table = bench_table(bench)
    assert table.headings == ("what", "edges/s", "ms")
    assert table.cells == (("ours", "32000000", "1.23"), ("a|b", "5", "-"))
    assert "| a\\|b |" in table.markdown()
    assert table.notes == (
        "median of 20",
        "settings: fanouts 15,10, batch 1024",
        "versions: numpy 2.4",
        "machine: Test CPU, 2 cores, 8 GiB",
    )
    assert list(table.numbers["ms"])[0] == 1.23456


def test_files_are_read_by_name_and_hidden_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path, "b.json", benchmark="second")
    write(tmp_path / "deep", "a.json", benchmark="third")
    write(tmp_path, "a.json", benchmark="first")
    write(tmp_path, ".c.json.tmp")
    write(tmp_path, ".d.json")
    names = [bench.benchmark for bench in read_benches(tmp_path, tmp_path / "a.json")[0]]
    assert names == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": ...}, "field rows is missing"),
        ({"rows": [["a", 1]]}, "rows[0]: expected a list of 3 cells"),
        ({"rows": [["a", 1, [2]]]}, "rows[0]: expected cells"),
        ({"columns": ["a", 1, "b"]}, "columns: expected a list of texts"),
        ({"machine": "fast"}, "machine: expected dict"),
        ({"settings": {"x": float("nan")}}, "NaN"),
    ],
)
def test_a_file_that_is_no_benchmark_is_named(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    write(tmp_path, "good.json")
    write(tmp_path, "bad.json", **changes)
    benches, (problem,) = read_benches(tmp_path)
    assert len(benches) == 1
    assert "bad.json: " in problem and named in problem and "\n" not in problem


def test_a_path_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no .*nowhere"):
        read_benches(tmp_path / "nowhere")
