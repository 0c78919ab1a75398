"""Strong and weak scaling are sorted apart, by hand-made grids of ranks and batches."""

from __future__ import annotations

from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.rows import Row, summarize
from gnn_core.report.series import Series, scaling_series
from gnn_core.report.tables.speed import weak_points, weak_table
from tests.unit.made_records import CLUSTER, run


def at(
    strategy: str, ranks: int, batch: int, seconds: float = 8.0, accuracy: float = 0.8, **more: Any
) -> RunRecord:
    config = {"global_batch_size": batch, **more.pop("config", {})}
    return run(strategy, ranks, seconds, accuracy, config=config, **more)


def cell(row: Row | None) -> tuple[str, int, int] | None:
    return row and (row.strategy, row.ranks, row.settings["global_batch_size"])


def reported(series: tuple[Series, ...]) -> list[tuple[Any, list[tuple[int, int]]]]:
    """The base of each series, and (ranks, batch) of its rows."""
    return [
        (cell(one.base), [(row.ranks, row.settings["global_batch_size"]) for row in one.rows])
        for one in series
    ]


def sorted_apart(*records: RunRecord, **options: Any) -> tuple[list[Any], list[Any]]:
    rows, _ = summarize(records, **options)
    found = scaling_series(rows, **options)
    return reported(found.strong), reported(found.weak)


def test_one_rank_begins_both() -> None:
    strong, weak = sorted_apart(
        at("ddp", 1, 64), at("ddp", 2, 64), at("ddp", 4, 64), at("ddp", 2, 128), at("ddp", 4, 256)
    )
    base = ("ddp", 1, 64)
    assert (base, [(1, 64), (2, 64), (4, 64)]) in strong
    assert weak == [(base, [(1, 64), (2, 128), (4, 256)])]
    assert all((2, 128) not in rows and (4, 256) not in rows for base, rows in strong if base)


def test_a_whole_grid_has_rows_and_columns_and_never_both_in_one() -> None:
    grid = [at("ddp", ranks, batch) for ranks in (1, 2) for batch in (64, 128)]
    strong, weak = sorted_apart(*grid)
    assert strong == [(("ddp", 1, 128), [(1, 128), (2, 128)]), (("ddp", 1, 64), [(1, 64), (2, 64)])]
    assert weak == [(("ddp", 1, 64), [(1, 64), (2, 128)])]


def test_strong_runs_alone_are_not_weak_and_the_other_way_round() -> None:
    strong, weak = sorted_apart(at("ddp", 1, 64), at("ddp", 2, 64), at("ddp", 4, 64))
    assert len(strong) == 1 and weak == []
    strong, weak = sorted_apart(at("ddp", 1, 64), at("ddp", 2, 128))
    assert strong == [] and len(weak) == 1


def test_a_batch_that_ranks_share_unevenly_is_compared_exactly() -> None:
    """100 / 3 and 33 are not the same work per rank; 100 / 3 and 200 / 6 are."""
    assert sorted_apart(at("ddp", 1, 33), at("ddp", 3, 100))[1] == []
    assert len(sorted_apart(at("ddp", 3, 100), at("ddp", 6, 200))[1]) == 1


@pytest.mark.parametrize(
    "other",
    [
        at("ddp", 2, 128, config={"hidden": 8}),
        at("ddp", 2, 128, config={"precision": "bf16"}),
        at("ddp", 2, 128, config={"threads": 2}),
        at("ddp", 2, 128, config={"epochs": 3}),
        at("ddp", 2, 128, machine=CLUSTER),
        at("ddp", 2, 128, status="failed", error="x"),
    ],
)
def test_everything_else_has_to_be_equal(other: RunRecord) -> None:
    assert sorted_apart(at("ddp", 1, 64), other)[1] == []


def test_without_an_own_run_the_one_process_of_the_framework_is_the_base() -> None:
    single, one = at("single", 1, 64), at("one", 1, 64)
    _, weak = sorted_apart(single, one, at("horovod", 2, 128), at("mirrored", 2, 128))
    assert weak == [(("single", 1, 64), [(2, 128)]), (("one", 1, 64), [(2, 128)])]
    assert sorted_apart(one, at("horovod", 2, 128))[1] == []


def test_every_speed_up_of_the_table_is_in_a_strong_series() -> None:
    """Also over a `single` of another framework, and over one with more threads."""
    single = at("single", 1, 64, config={"threads": 2})
    strong, weak = sorted_apart(single, at("mirrored", 2, 64), at("ddp", 2, 64))
    assert strong == [(None, [(2, 64)]), (None, [(2, 64)])] and weak == []
    assert sorted_apart(single)[0] == []


def test_a_base_of_another_machine_is_refused_unless_forced() -> None:
    far = at("ddp", 1, 64, machine=CLUSTER), at("ddp", 2, 128)
    assert sorted_apart(*far)[1] == []
    rows, _ = summarize(far, force=True)
    (series,) = scaling_series(rows, force=True).weak
    assert (cell(series.base), series.base_mark) == (("ddp", 1, 64), "?")
    assert [one.mark for one in weak_points(series)] == ["", "?"]


def test_ranks_on_several_hosts_are_a_series_of_their_own() -> None:
    spread = at("ddp", 4, 256, hosts=["a", "b"], ranks_per_host=[2, 2])
    _, weak = sorted_apart(at("ddp", 1, 64), at("ddp", 2, 128), at("ddp", 4, 256), spread)
    base = ("ddp", 1, 64)
    assert weak == [(base, [(1, 64), (2, 128), (4, 256)]), (base, [(4, 256)])]


def test_weak_efficiency_by_hand() -> None:
    """140 targets in 8 s are 17.5 a second; 2 ranks at 5 s do 28 of the ideal 35: 80 %."""
    table = weak_table([at("ddp", 1, 64, 8.0), at("ddp", 2, 128, 5.0), at("ddp", 2, 128, 4.0)])
    assert list(table.numbers["targets_per_second_per_rank"]) == [17.5, pytest.approx(15.75)]
    assert list(table.numbers["weak_efficiency"]) == [1.0, pytest.approx(0.9)]
    assert list(table.numbers["weak_efficiency_min"])[1] == pytest.approx(0.8)
    assert list(table.numbers["weak_efficiency_max"])[1] == pytest.approx(1.0)
    assert "90 % (80..100)" in table.markdown()
    assert list(table.numbers["global_batch_size"]) == [64, 128]


def test_what_a_larger_batch_costs_in_accuracy_is_marked() -> None:
    table = weak_table([at("ddp", 1, 64), at("ddp", 2, 128, 4.0, 0.7), at("ddp", 4, 256, 4.0)])
    assert [cells[8] for cells in table.cells] == ["100 %", "100 %!", "50 %"]
    assert [cells[2] for cells in table.cells] == ["1", "2", "4*"]
    assert sum("`!`" in note for note in table.notes) == 1


def test_a_base_of_several_strategies_is_shown_once() -> None:
    table = weak_table([at("single", 1, 64), at("horovod", 2, 128), at("ddp", 2, 128)])
    assert [cells[1] for cells in table.cells] == ["single", "horovod", "ddp"]


def test_a_series_without_a_base_has_no_efficiency_and_says_so() -> None:
    table = weak_table([at("ddp", 2, 128), at("ddp", 4, 256)])
    assert [cells[8] for cells in table.cells] == ["-", "-"]
    assert any("no weak efficiency for ddp on cora at 64" in note for note in table.notes)
