"""Curves: which runs are compared, over which steps, and what the largest distance is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.table import Table
from gnn_core.report.tables.agreement import curves_table
from tests.unit.made_records import epoch, run

LOSSES = [2.0] * 12


def curve(
    strategy: str = "horovod",
    ranks: int = 2,
    losses: list[float] | None = None,
    *,
    accuracy: float = 0.8,
    **changes: Any,
) -> RunRecord:
    return run(strategy, ranks, accuracy=accuracy, step_losses=losses or LOSSES, **changes)


def moved(step: int, by: float) -> list[float]:
    return [loss + by * (at == step) for at, loss in enumerate(LOSSES)]


def row(table: Table, line: int = 0) -> dict[str, str]:
    return dict(zip(table.headings, table.cells[line], strict=True))


def test_the_largest_relative_difference_and_that_of_the_first_steps() -> None:
    losses = [*moved(9, 0.002)[:10], *moved(11, -0.01)[10:]]
    shown = row(curves_table([curve("single", 1), curve(losses=losses, accuracy=0.79)]))
    assert (shown["dataset"], shown["strategy"], shown["ranks"]) == ("cora", "horovod", "2")
    assert (shown["precision"], shown["dropout"], shown["steps"]) == ("fp32", "0.8", "12")
    assert shown["largest distance"] == "5.0e-03"
    assert shown["in first 10 steps"] == "1.0e-03"
    assert shown["test accuracy, points"] == "-1.00"


def test_equal_to_the_last_bit_reads_0() -> None:
    table = curves_table([curve("single", 1), curve()])
    shown = row(table)
    assert (shown["largest distance"], shown["in first 10 steps"]) == ("0", "0")
    assert shown["test accuracy, points"] == "0.00"
    assert len(table.notes) == 1


def test_a_row_is_the_farthest_of_its_seeds() -> None:
    records = []
    for seed, by in ((0, 0.002), (1, -0.02), (2, 0.0)):
        config = {"seed": seed}
        records += [
            curve("single", 1, config=config),
            curve(losses=moved(0, by), accuracy=0.8 - 0.01 * (seed == 1), config=config),
        ]
    table = curves_table(records)
    assert len(table.cells) == 1
    shown = row(table)
    assert (shown["runs"], shown["largest distance"]) == ("3", "1.0e-02")
    assert shown["test accuracy, points"] == "-1.00"


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"seed": 1}},
        {"config": {"dropout": 0.1}},
        {"config": {"precision": "fp64"}},
        {"config": {"scale_lr": True}},
    ],
)
def test_other_settings_or_seeds_are_not_compared(changes: dict[str, Any]) -> None:
    table = curves_table([curve("single", 1), curve(**changes)])
    assert table.cells == ()
    assert "want of another run" in table.notes[1] and "single on cora, 1 rank" in table.notes[1]
    assert "want of a `single` run" in table.notes[2]
    assert "horovod on cora, 2 ranks" in table.notes[2]


def test_other_data_of_the_same_name_is_not_compared() -> None:
    single = curve("single", 1)
    other = curve(dataset=dataclasses.replace(single.dataset, fingerprint="cd"))
    assert curves_table([single, other]).cells == ()


def test_scaled_learning_rates_draw_another_curve_at_each_number_of_ranks() -> None:
    scaled = {"config": {"scale_lr": True}}
    table = curves_table([curve("single", 1, **scaled), curve(**scaled), curve(ranks=1, **scaled)])
    assert [cells[4] for cells in table.cells] == ["1"]


def test_cosine_needs_equal_epochs_and_constant_rates_do_not() -> None:
    longer = [*LOSSES, 1.0]
    for schedule, rows in (("cosine", 0), ("constant", 1)):
        table = curves_table(
            [
                curve("single", 1, config={"lr_schedule": schedule, "epochs": 3}),
                curve(losses=longer, config={"lr_schedule": schedule, "epochs": 4}),
            ]
        )
        assert len(table.cells) == rows
    shown = row(table)
    assert shown["steps"] == "12"  # those that both have
    assert shown["test accuracy, points"] == "-"  # not trained alike


def test_a_resumed_run_is_compared_from_its_first_step_on() -> None:
    """Cora's 140 targets are one step per epoch; epochs 10 and 11 were left to the resumed run."""
    single = curve("single", 1, [float(step + 1) for step in range(12)])
    epochs = [epoch(10, 8.0), epoch(11, 8.0)]
    resumed = curve(losses=[11.0, 12.0], resumed_from={"run_id": "x", "epoch": 10}, epochs=epochs)
    shown = row(curves_table([single, resumed]))
    assert (shown["steps"], shown["largest distance"]) == ("2", "0")
    assert shown["in first 10 steps"] == "-"


def test_runs_without_losses_and_failed_ones_are_named() -> None:
    table = curves_table(
        [curve("single", 1), curve(), run("horovod", 4), curve(ranks=8, status="failed", error="x")]
    )
    assert [cells[4] for cells in table.cells] == ["2"]
    assert "horovod on cora, 4 ranks" in table.notes[1]
    assert table.notes[2] == "left out, not ended well: 1 run"


def test_settings_stand_in_a_column_where_rows_differ_in_them() -> None:
    none = {"config": {"aggregator": "none"}}
    table = curves_table([curve("single", 1), curve(), curve("single", 1, **none), curve(**none)])
    assert [cells[-1] for cells in table.cells] == ["aggregator=mean", "aggregator=none"]
