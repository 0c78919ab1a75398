"""Time to accuracy and cost, worked out by hand: what is counted, and what is never made up."""

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
from gnn_core.report.tables.target import default_targets, reach, target_rows, target_table
from tests.unit.made_records import epoch, run


def scored(
    strategy: str, ranks: int, seconds: float, *scores: float | None, **more: Any
) -> RunRecord:
    """A run whose epoch 0 is a warm-up of 100 s; each epoch with its validation score or None."""
    epochs = [
        dataclasses.replace(epoch(number, 100.0 if number == 0 else seconds), valid_accuracy=score)
        for number, score in enumerate(scores)
    ]
    return run(strategy, ranks, epochs=epochs, **more)


def test_the_first_epoch_that_is_good_enough_counts_with_its_warm_up() -> None:
    one = reach(scored("single", 1, 8.0, 0.5, 0.81, 0.7, 0.9), 0.8)
    assert (one.seconds, one.epochs, one.best) == (108.0, 2, 0.9)
    assert reach(scored("single", 1, 8.0, 0.8), 0.8).seconds == 100.0


def test_an_epoch_that_was_not_evaluated_cannot_reach_it() -> None:
    assert reach(scored("single", 1, 8.0, None, None, 0.9), 0.5).seconds == 116.0
    assert reach(scored("single", 1, 8.0, None, None), 0.5) == reach(run(epochs=[]), 0.5)
    assert reach(run(), 0.5).best is None


def test_evaluation_is_not_counted() -> None:
    slow = scored("single", 1, 8.0, 0.5, 0.9, evaluation_seconds=1000.0)
    assert reach(slow, 0.8).seconds == 108.0


def test_not_reached_is_reported_with_how_far_it_came() -> None:
    table = target_table([scored("single", 1, 8.0, 0.5, 0.75)], target=0.8)
    assert table.cells[0][4:9] == ("80.00", "not reached", "-", "0 of 1", "75.00")
    assert table.numbers["seconds_to_target"][0] is None


def test_a_lucky_run_does_not_hide_those_that_never_got_there() -> None:
    lucky, poor = scored("ddp", 2, 4.0, 0.5, 0.9), scored("ddp", 2, 4.0, 0.5, 0.6)
    (row,) = target_rows([lucky, poor], 0.8)
    assert row.seconds is None and (row.reached, row.judged) == (1, 2)
    (row,) = target_rows([lucky, lucky, poor], 0.8)
    assert row.seconds is not None and row.seconds.middle == 104.0
    table = target_table([lucky, lucky, poor], target=0.8)
    assert table.cells[0][5:8] == ("104 (104..not reached)", "2", "2 of 3")


def test_the_default_is_a_point_below_the_median_single_run_of_the_same_work() -> None:
    records = [scored("single", 1, 8.0, best) for best in (0.8, 0.9, 0.82)]
    other = scored("single", 1, 8.0, 0.2, config={"hidden": 8})
    assert sorted(default_targets([*records, other]).values()) == pytest.approx([0.19, 0.81])
    rows = target_rows([*records, other, scored("ddp", 2, 4.0, 0.5, 0.815)])
    by_name = {(row.row.strategy, row.row.settings["hidden"]): row for row in rows}
    hidden = records[0].config["hidden"]
    assert by_name["ddp", hidden].target == pytest.approx(0.81)
    assert by_name["ddp", hidden].reached == 1


def test_without_a_single_run_nothing_is_a_target() -> None:
    failed = scored("single", 1, 8.0, 0.9, status="failed", error="x")
    table = target_table([scored("ddp", 2, 4.0, 0.9), failed])
    assert table.cells[0][4:8] == ("-", "-", "-", "-")
    assert any("no target for ddp on cora" in note for note in table.notes)


def test_a_resumed_run_is_left_out() -> None:
    """How long it trained before is in another record."""
    resumed = scored("ddp", 2, 4.0, 0.9, resumed_from={"run_id": "a", "epoch": 3})
    table = target_table([scored("single", 1, 8.0, 0.9), resumed])
    assert [cells[1] for cells in table.cells] == ["single"]
    assert "left out, resumed or with other ranks on the way: 1 run" in table.notes


def test_link_prediction_is_judged_by_its_mrr() -> None:
    ranked = [dataclasses.replace(epoch(0, 9.0), valid_mrr=0.25, valid_accuracy=0.9)]
    table = target_table([run(epochs=ranked, config={"task": "link"})], target=0.2)
    assert table.headings[4] == "target MRR"
    assert table.cells[0][4:6] == ("0.2000", "9.00") and table.cells[0][8] == "0.2500"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    times: dict[str, float] = {"training_seconds": 3000.0, "evaluation_seconds": 600.0}
    two = {"hosts": ["a", "b"], "ranks_per_host": [1, 1]}
    write_record(scored("single", 1, 8.0, 0.5, 0.9, **times), tmp_path / "runs")
    write_record(scored("ddp", 2, 80.0, 0.5, 0.9, **two, **times), tmp_path / "runs")
    write_record(scored("horovod", 2, 8.0, 0.5, 0.6), tmp_path / "runs")
    return tmp_path / "runs"


def test_a_cost_is_hosts_times_hours_times_price(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3600 s are an hour; 108 s to the target are 0.03 of one, on two hosts 180 s are 0.1."""
    command = [str(folder), "--table", "cost", "--price", "2", "--format", "csv"]
    assert main(command) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    cost = {line["strategy"]: (line["cost"], line["cost_to_target"]) for line in lines}
    assert {name: [float(part) for part in cost[name]] for name in ("single", "ddp")} == {
        "single": [pytest.approx(2.0), pytest.approx(0.06)],
        "ddp": [pytest.approx(4.0), pytest.approx(0.2)],
    }
    assert cost["horovod"] == ("", "")  # no seconds told, target not reached
    assert main([*command[:-2], "--currency", "EUR"]) == 0
    out = capsys.readouterr().out
    assert "| cost (EUR) |" in out and "price: 2 EUR per host-hour, as given" in out
    assert "not reached" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--table", "cost"], "--price X"),
        (["--table", "cost", "--price", "-1"], "at least 0, got '-1'"),
        (["--table", "cost", "--price", "nan"], "expected a finite number at least 0, got 'nan'"),
        (["--currency", "EUR"], "--price X"),
        (["--price", "1"], "no difference to --table speed"),
        (["--target", "0.8"], "no difference to --table speed"),
        (["--table", "target", "--target", "80"], "for 80 percent give 0.8"),
        (["--table", "target", "--target", "0"], "above 0, at most 1, got 0"),
        (["--table", "target", "--target", "high"], "expected a number, got 'high'"),
        (["--figures-format", "svg"], "--figures DIR"),
    ],
)
def test_flags_that_cannot_be_meant_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main([str(folder), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ")
    assert named in captured.err and captured.err.count("\n") == 1


def test_a_section_of_a_document_takes_the_price(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:cost runs begin -->\n<!-- figures:cost end -->\n")
    assert main(["--readme", str(readme)]) == 2
    assert "README.md:1 (figures:cost)" in capsys.readouterr().err
    assert main(["--readme", str(readme), "--price", "2"]) == 0
    assert "price: 2 per host-hour" in readme.read_text()
