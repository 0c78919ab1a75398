"""The short table of the README, and the picture beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.report.curve_figure import curve_figure, main
from gnn_core.report.tables.side_by_side import overview_table
from gnn_core.usage import UsageError
from tests.unit.made_records import run

LARGE = DatasetInfo("large", fingerprint="cd", splits={"train": 140, "test": 1000})


def on_large(*arguments: object, **changes: object) -> RunRecord:
    return run(*arguments, dataset=LARGE, **changes)  # type: ignore[arg-type]


def test_a_strategy_has_one_line_at_its_most_ranks_of_the_longest_epochs() -> None:
    small = [run(seconds=1.0), run("ddp", 2, 0.5)]
    large = [on_large("single", 1, 8.0), on_large("horovod", 1, 8.0), on_large("horovod", 2, 5.0)]
    table = overview_table([*small, *large])
    assert [line[:4] for line in table.cells] == [
        ("single", "1", "8.00", "1.00"),
        ("horovod", "2", "5.00", "1.60"),
    ]
    assert "data set large, 1 round" in table.notes[0]


def test_ranks_that_share_a_core_are_left_out() -> None:
    table = overview_table([run(seconds=8.0), run("ddp", 2, 5.0), run("ddp", 4, 4.0)])
    assert [line[:2] for line in table.cells] == [("single", "1"), ("ddp", "2")]


def test_without_runs_there_are_no_lines() -> None:
    assert overview_table([]).cells == ()


def curves(precision: str) -> list[RunRecord]:
    config = {"precision": precision, "dropout": 0.0}
    losses = [3.0, 2.0, 1.0]
    return [
        run(config=config, step_losses=losses),
        run("horovod", 2, config=config, step_losses=[3.0, 2.0, 1.1]),
        run("horovod", 8, config=config, step_losses=losses),
    ]


def test_the_figure_has_a_line_for_each_run_of_up_to_four_ranks(tmp_path: Path) -> None:
    records = [*curves("fp32"), *curves("fp64"), run(config={"precision": "fp32", "dropout": 0.3})]
    left, right = curve_figure(records).axes
    assert [line.get_label() for line in left.lines] == ["single, 1 rank", "horovod, 2 ranks"]
    (first, second) = right.lines  # a precision each, at the step that differs
    assert list(first.get_ydata()) == list(second.get_ydata()) == pytest.approx([0.1])
    for record in records:
        write_record(record, tmp_path)
    assert main([str(tmp_path), str(tmp_path / "out" / "curves.svg")]) == 0
    assert (tmp_path / "out" / "curves.svg").read_text().startswith("<?xml")
    assert main([str(tmp_path), str(tmp_path / "curves.pdf")]) == 2


def test_a_figure_without_a_single_run_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="expected a `single` run and others in fp64"):
        curve_figure([*curves("fp32"), *curves("fp64")[1:]])
    lost = [dataclasses.replace(one, status="failed", error="x") for one in curves("fp32")]
    with pytest.raises(UsageError, match="got 0 runs"):
        curve_figure([*lost, *curves("fp64")])
