"""Ranks that gain less than half of what they should: a sentence says why and what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.rows import row_of
from gnn_core.report.sentences import larger_batch, slowdown
from gnn_core.report.tables.speed import speed_table
from tests.unit.made_records import CLUSTER, MACHINE, epoch, run


def two_ranks(seconds: float = 9.0, communicate: float = 0.1, **changes: Any) -> RunRecord:
    """One step an epoch: 140 targets in a batch of 140."""
    epochs = [epoch(number, seconds, communicate) for number in range(3)]
    return run("horovod", 2, epochs=epochs, **changes)


def why(record: RunRecord, speedup: float = 0.8) -> str:
    return slowdown(row_of([record]), speedup, "single") or ""


def test_only_ranks_that_gain_little_are_explained() -> None:
    row = row_of([two_ranks()])
    assert slowdown(row, 1.0, "single") is None  # an efficiency of one half
    assert slowdown(row, None, "single") is None
    assert slowdown(row_of([run()]), 0.4, "single") is None  # one rank divides nothing
    assert why(two_ranks(), 0.8).startswith(
        "2 ranks of `horovod` do not pay: 0.80 times as fast as `single`, an efficiency of 40 %. "
    )
    four = run("horovod", 4, machine=CLUSTER)
    assert why(four, 1.5).startswith("4 ranks of `horovod` pay little: 1.50 times")


def test_each_cause_is_reported_with_what_to_change() -> None:
    assert "explain it; repeat the runs" in why(two_ranks())
    assert "30 % of an epoch is communication; give a step more work" in why(two_ranks(9.0, 0.3))
    short = why(two_ranks(0.0123))
    assert "A step of 12.3 ms has too little work to divide" in short
    assert "train in one process" in short
    busy = why(two_ranks(machine={**MACHINE, "others_running": 3}))
    assert "Processes of other programs were running as it began (3); repeat it on a quiet" in busy
    crowded = why(two_ranks(config={"threads": 2}))
    assert "2 ranks x 2 threads share 2 cores; start 1 at most on such a host." in crowded


@pytest.mark.parametrize(
    ("batch", "targets", "larger"), [(140, 140, None), (70, 140, 140), (64, 127, None)]
)
def test_a_larger_batch_is_never_above_the_split(
    batch: int, targets: int, larger: int | None
) -> None:
    epochs = [dataclasses.replace(epoch(1, 0.01), num_targets=targets)]
    record = run("horovod", 2, epochs=epochs, config={"global_batch_size": batch})
    assert larger_batch(row_of([record])) == larger
    assert ("--global-batch-size" in why(record)) == (larger is not None)


def test_the_speed_table_says_it_first() -> None:
    table = speed_table([run(), two_ranks(10.0)])
    assert "40 %" in table.cells[1]
    assert table.notes[0].startswith("2 ranks of `horovod` do not pay: 0.80 times as fast as")
    assert "do not pay" not in " ".join(speed_table([run(), two_ranks(5.0)]).notes)


def test_a_framework_that_is_slow_by_itself_is_named() -> None:
    """Keras takes 4 times as long; its 2 ranks gain as they should."""
    notes = speed_table([run(), run("one", 1, 32.0), run("mirrored", 2, 20.0)]).notes
    assert "`one`, is 0.25 times as fast as `single`, and 2 ranks are 1.60 times" in notes[0]
