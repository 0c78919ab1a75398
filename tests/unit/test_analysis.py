"""The table as it is shown: on a terminal and as CSV; and the mistakes it tells."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.tables.speed import accuracy_table, speed_table
from tests.unit.made_records import CLUSTER, run


def test_the_table_says_what_its_rows_differ_in() -> None:
    table = speed_table([run(), run(config={"threads": 2, "fanouts": [4, 4]}), run("ddp", 2)])
    assert table.headings[-1] == "settings"
    assert "fanouts=4,4, threads=2" in table.markdown()
    assert "hidden=" not in table.markdown()
    assert "settings" not in speed_table([run(), run("ddp", 2)]).headings


def test_the_table_is_aligned_and_markdown() -> None:
    lines = speed_table([run(), run("horovod", 2, 0.0123)]).markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert set(lines[1]) <= set("|-: ")
    assert " 0.0123 |" in lines[3]


def test_the_accuracy_table_joins_machines_and_threads() -> None:
    records = [
        run(accuracy=0.80, config={"seed": 0}),
        run(accuracy=0.84, config={"seed": 1, "threads": 2}, machine=CLUSTER),
        run("horovod", 2, accuracy=0.81),
        run("horovod", 2, accuracy=0.1, status="failed", error="x"),
    ]
    table = accuracy_table(records)
    assert table.cells == (
        ("cora", "single", "1", "fp32", "82.00 ± 2.83", "2", "2"),
        ("cora", "horovod", "2", "fp32", "81.00", "1", "1"),
    )


def test_features_alone_are_told_from_the_graph() -> None:
    """Only what the rows differ in, the aggregator first; never a seed or a path."""
    records = [
        run(config={"aggregator": name, "hidden": hidden, "seed": seed, "records": f"/r{seed}"})
        for name, hidden in (("mean", 128), ("none", 256))
        for seed in (0, 1)
    ]
    table = accuracy_table([*records, run("horovod", 2, status="interrupted", error="x")])
    assert [cells[-1] for cells in table.cells] == [
        "aggregator=mean, hidden=128",
        "aggregator=none, hidden=256",
    ]
    assert table.notes[-1] == "left out, not ended well: 1 run"


def test_the_usual_precision_stands_first() -> None:
    records = [run(config={"precision": name}) for name in ("bf16", "fp64", "fp32")]
    assert [cells[3] for cells in accuracy_table(records).cells] == ["fp32", "bf16", "fp64"]


def test_graphs_of_one_name_are_told_apart() -> None:
    other = dataclasses.replace(run().dataset, fingerprint="cd34567890")
    for table_of in (accuracy_table, speed_table):
        table = table_of([run(), run(dataset=other)])
        assert sorted(cells[-1] for cells in table.cells) == ["graph=ab", "graph=cd345678"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in (run(), run("horovod", 2, 4.0), run("horovod", 4, 4.0, 0.5)):
        write_record(record, tmp_path / "results" / "runs")
    return tmp_path / "results"


def test_the_command_prints_the_table_and_where_the_records_lie(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("| dataset | strategy |")
    assert "2.00 " in out[3] and "4*" in out[4] and "2.00!" in out[4]
    assert out[-1] == f"records: {folder} (3 files, 3 runs used, 0 lines not used)"


def test_csv_holds_unrounded_numbers_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--format", "csv"]) == 0
    captured = capsys.readouterr()
    lines = list(csv.DictReader(io.StringIO(captured.out)))
    assert [line["speedup"] for line in lines] == ["1.0", "2.0", "2.0"]
    assert [line["speedup_mark"] for line in lines] == ["", "", "!"]
    assert lines[1]["efficiency"] == "1.0" and lines[1]["communicate_share"] == "0.25"
    assert "records:" in captured.err


def test_output_goes_to_a_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tables" / "speed.md"
    assert main([str(folder), "--format", "markdown", "--output", str(file)]) == 0
    assert file.read_text().startswith("| dataset |") and "\n- records: " in file.read_text()
    assert [entry.name for entry in file.parent.iterdir()] == ["speed.md"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_nothing_to_show_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any
) -> None:
    make(tmp_path / "empty")
    assert main([str(tmp_path / "empty")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: expected") and captured.err.count("\n") == 1


def test_bad_lines_are_named_and_the_rest_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jsonl").write_text('{"schema_version": 1,\n')
    assert main([str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("not used: ") and "broken.jsonl:1" in captured.err
    assert "3 runs used, 1 line not used" in captured.out
    for file in (folder / "runs").iterdir():
        file.unlink()
    assert main([str(folder)]) == 2


@pytest.mark.parametrize("arguments", [["--format", "xml"], ["--check"], ["--what"]])
def test_wrong_flags_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_models_of_a_program_of_its_own_have_rows_of_their_own() -> None:
    """Each has a recipe, so that a setting tells rows of one model apart only."""
    base = {"seed": 0, "precision": "fp32", "threads": 1, "dataset": "cora"}
    words = {**base, "model": "words", "width": 128}
    both = {**base, "model": "graph+words", "width": 256}

    def made(config: dict[str, object], accuracy: float) -> RunRecord:
        return dataclasses.replace(run("one", 1, accuracy=accuracy), config=config)

    records = [made(words, 0.5), made({**words, "seed": 1}, 0.6), made(both, 0.8)]
    table = accuracy_table([*records, made({**words, "threads": 2, "seed": 2}, 0.55)])
    assert [cells[:3] for cells in table.cells] == [
        ("cora", "graph+words", "one"),
        ("cora", "words", "one"),
    ]
    assert "settings" not in table.headings
    assert [cells[5].split()[0] for cells in table.cells] == ["80.00", "55.00"]

    tuned = accuracy_table([*records, made({**words, "width": 64}, 0.4)])
    assert [cells[-1] for cells in tuned.cells] == ["-", "width=128", "width=64"]
