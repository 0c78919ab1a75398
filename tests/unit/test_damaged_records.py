"""Folders as they come from clusters: what is damaged is named in a line, the rest is used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.measure.records import read_records, write_record
from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.generated_blocks import TABLES
from tests.unit.made_records import CLUSTER, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in (run(), run("horovod", 2, 4.0)):
        write_record(record, tmp_path / "runs")
    return tmp_path / "runs"


def a_line(folder: Path, **changes: Any) -> str:
    """One line of a sound record of its own, with changes."""
    extra = folder.parent / "extra"
    values = json.loads(write_record(run(), extra).read_text())
    return json.dumps({**values, **changes})


def damaged(folder: Path) -> dict[str, str]:
    """Kind of the damage -> a line that has it."""
    line = a_line(folder)
    return {
        "schema version 2, this reads 1": a_line(folder, schema_version=2),
        "schema version None, this reads 1": "{}",
        "not whole JSON": line[: len(line) // 2],
        "holds NaN": a_line(folder, training_seconds=float("nan")),
        "holds Infinity": a_line(folder, training_seconds=float("inf")),
        "expected a fraction of 0 to 1": a_line(folder, final={"test_accuracy": 80.0}),
        "training_seconds: expected float, got text": a_line(folder, training_seconds="8"),
        "field strategy is missing": json.dumps(
            {name: value for name, value in json.loads(line).items() if name != "strategy"}
        ),
        "started_at: expected UTC": a_line(folder, started_at="yesterday"),
        "finished_at: expected UTC": a_line(folder, finished_at="2026-01-02T03:04:05"),
        "holds a whole number of 400 digits": line.replace('"epoch": 2', f'"epoch": {"9" * 400}'),
        "holds a whole number of 5000 digits": line.replace(
            '"world_size": 1', f'"world_size": {"1" * 5000}'
        ),
        "holds 1e999, which is more": line.replace('"seconds": 8.0', '"seconds": 1e999'),
        "holds -1e999, which is more": line.replace('"seconds": 8.0', '"seconds": -1e999'),
        "holds 'status' twice": line.replace('"status": "ok"', '"status": "ok", "status": "ok"'),
        "nested too deeply": a_line(folder, versions={"x": json.loads("[" * 900 + "]" * 900)}),
        "nested too deeply for a record": "[" * 200_000,
        "config.hidden: expected a whole number": a_line(folder, config={"hidden": "7"}),
        "config.global_batch_size: expected a whole number at least": a_line(
            folder, config={"global_batch_size": 0}
        ),
        "config.seed: expected a whole number": a_line(folder, config={"seed": [1]}),
        "config.own: expected text": a_line(folder, config={"own": {"a": 1}}),
        "machine.load_average: expected float": a_line(folder, machine={"load_average": "high"}),
        "machine.gpus: expected list": a_line(folder, machine={"gpus": "one"}),
        "not a run record": "[]",
        "\ufffd": "\ufffd",
    }


@pytest.mark.parametrize("kind", range(25))
def test_each_damage_is_one_line_and_the_good_runs_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: int
) -> None:
    named, line = list(damaged(folder).items())[kind]
    (folder / "bad.jsonl").write_text(line + "\n")
    assert main([str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("not used: ")
    assert "bad.jsonl:1: " in captured.err
    assert named in captured.err or named == "\ufffd"
    assert "2 runs used, 1 line not used" in captured.out and "2.00" in captured.out


def test_a_run_that_is_there_twice_counts_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted(folder.iterdir())[0]
    (folder / "copy.jsonl").write_bytes(first.read_bytes())
    assert main([str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "is also in" in captured.err
    assert "3 files, 2 runs used, 1 line not used" in captured.out


def test_bytes_that_are_no_text_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.jsonl").write_bytes(b"\x1f\x8b\x00\xff\xfe")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("table", TABLES)
def test_when_nothing_is_left_it_is_one_line_after_the_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    lines = damaged(folder)
    for file in folder.iterdir():
        file.unlink()
    (folder / "bad.jsonl").write_text("\n".join(lines.values()))
    price = ["--price", "1"] if table == "cost" else []
    assert main([str(folder), "--table", table, *price]) == 2
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    assert captured.out == "" and len(said) == len(lines) + 1
    assert all(line.startswith("not used: ") for line in said[:-1])
    assert said[-1].startswith("error: expected run records")


def test_machines_are_not_mixed_in_a_comparison(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run("ddp", 2, 2.0, machine=CLUSTER), folder)
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "machine M1: Test CPU, 2 cores" in out and "machine M2: Test CPU, 64 cores" in out
    assert "4.00" in out  # seconds are told
    assert "no speed-up for ddp on cora at 2 ranks: its `single` runs are of another machine" in out
    assert main([str(folder), "--force"]) == 0
    assert "4.00?" in capsys.readouterr().out


ODD: dict[str, list[RunRecord]] = {
    "no epochs": [run(epochs=[])],
    "links without scores": [run(config={"task": "link"}, accuracy=None, epochs=[]), run()],
    "links of an unknown machine": [run(config={"task": "link"}, machine={})],
    "unknown machines": [run(machine={}), run("horovod", 2, machine={})],
    "no settings": [
        dataclasses.replace(run(strategy, ranks), config={}, dataset=DatasetInfo("x"))
        for strategy, ranks in (("single", 1), ("ddp", 2))
    ],
    "no time at all": [run(seconds=0.0), run("ddp", 2, 0.0)],
    "failed": [run(status="failed", error="x", epochs=[])],
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", ODD)
def test_records_that_tell_little_make_no_table_fall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, table: str
) -> None:
    for record in ODD[name]:
        write_record(record, tmp_path)
    price = ["--price", "1"] if table == "cost" else []
    code = main([str(tmp_path), "--table", table, *price])
    captured = capsys.readouterr()
    if code == 0:
        assert captured.err == "" and "nan" not in captured.out.lower().split()
    else:
        assert code == 2 and captured.out == ""
        assert captured.err.startswith("error: expected runs for --table")
        assert captured.err.count("\n") == 1


def test_a_missing_score_of_link_prediction_is_no_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run(config={"task": "link"}, accuracy=None), tmp_path)
    assert main([str(tmp_path), "--table", "links"]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert "0.0000" not in row and row.count(" - ") >= 5
    assert main([str(tmp_path), "--table", "links", "--format", "csv"]) == 0
    assert ",,,,," in capsys.readouterr().out


def test_no_bit_of_a_record_turns_without_a_word(folder: Path) -> None:
    file = sorted(folder.iterdir())[0]
    before, random = file.read_bytes(), np.random.default_rng(4)
    whole, problems = read_records(folder)
    assert problems == []
    for _ in range(150):
        data = bytearray(before)
        data[random.integers(len(data) - 1)] ^= 1 << random.integers(8)
        file.write_bytes(data)
        found, problems = read_records(folder)
        assert len(found) == 1 and problems and all("\n" not in one for one in problems)
    file.write_bytes(before)
    assert read_records(folder) == (whole, [])


def test_a_record_without_a_checksum_is_read_and_one_that_was_changed_is_not(folder: Path) -> None:
    line = a_line(folder, launch_command="another")
    (folder / "changed.jsonl").write_text(line)
    found, (problem,) = read_records(folder)
    assert len(found) == 2 and "changed since it was written" in problem
    values = json.loads(line)
    del values["sha256"]
    (folder / "changed.jsonl").write_text(json.dumps(values))
    found, problems = read_records(folder)
    assert len(found) == 3 and problems == []


def test_a_line_without_end_is_cut_and_the_others_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnn_core.measure.records._MOST_LINE_BYTES", 20_000)
    (folder / "long.jsonl").write_text('{"notes": "' + "x" * 100_000 + '"}\n' + "[]\n")
    found, problems = read_records(folder)
    assert len(found) == 2 and len(problems) == 2
    assert "long.jsonl:1: not whole JSON" in problems[0] and "long.jsonl:2" in problems[1]
