"""The table of link prediction: who shares a line, what is counted, and its place beside others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnn_core.config import RunConfig
from gnn_core.measure.metrics import RankingTally, split_fields
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.tables.links import link_table
from gnn_core.report.tables.speed import accuracy_table, speed_table
from tests.unit.made_records import run

LINK = RunConfig(dataset="synthetic", task="link").to_dict()


def link_run(
    strategy: str = "horovod", ranks: int = 2, mrr: float = 0.5, **config: Any
) -> RunRecord:
    """A run of 100 test references, half a minute of training and as long an evaluation."""
    tally = RankingTally(70.0, 100 * mrr, (40, 60, 80), 90.0, 100)
    made = run(strategy, ranks, accuracy=None, config={**LINK, **config})
    return dataclasses.replace(
        made, final=split_fields("test", tally), training_seconds=30.0, evaluation_seconds=30.0
    )


def test_seeds_share_a_line_and_epochs_do_not() -> None:
    records = [
        link_run(mrr=0.50, seed=0, epochs=10),
        link_run(mrr=0.52, seed=1, epochs=10),
        link_run(mrr=0.60, epochs=30),
        link_run("ddp", mrr=0.51, epochs=10),
    ]
    table = link_table(records)
    shown = [dict(zip(table.headings, cells, strict=True)) for cells in table.cells]
    assert [(row["strategy"], row["epochs"], row["seeds"]) for row in shown] == [
        ("horovod", "10", "2"),
        ("ddp", "10", "1"),
        ("horovod", "30", "1"),
    ]
    first = shown[0]
    assert first["test MRR"] == "0.5100 ± 0.0141"
    assert (first["hits@1"], first["hits@100"], first["AUC"]) == ("0.4000", "0.8000", "0.9000")
    assert (first["minutes"], first["evaluation"]) == ("1.00", "50 %")
    assert "settings" not in table.headings


def test_accuracy_of_pairs_has_columns_where_it_is_known() -> None:
    old, new = link_run(), link_run(seed=1)
    new.final.update(test_pair_accuracy=0.8511, test_average_precision=0.9)
    assert "AP" not in link_table([old]).headings
    table = link_table([old, new])
    row = dict(zip(table.headings, table.cells[0], strict=True))
    assert (row["accuracy %"], row["AP"], row["seeds"]) == ("85.11", "0.9000", "2")
    assert any(note.startswith("accuracy, AP") for note in table.notes)


def test_settings_that_differ_are_reported() -> None:
    table = link_table([link_run(negatives=1), link_run(negatives=5)])
    assert [cells[-1] for cells in table.cells] == ["negatives=1", "negatives=5"]


def test_more_ranks_than_cores_are_marked() -> None:
    table = link_table([link_run(ranks=2), link_run(ranks=4)])
    assert [cells[2] for cells in table.cells] == ["2", "4*"]
    assert any(note.startswith("`*`") for note in table.notes)


def test_runs_of_another_task_or_without_an_end_are_not_in_it() -> None:
    failed = dataclasses.replace(link_run(), status="failed", error="x")
    table = link_table([run(), failed])
    assert table.cells == ()
    assert any("not ended well" in note for note in table.notes)


@pytest.mark.parametrize("table_of", [accuracy_table, speed_table])
def test_other_tables_show_its_mrr(table_of: Any) -> None:
    alone = table_of([link_run("single", 1)])
    assert "test MRR" in alone.headings and "test accuracy" not in alone.headings
    assert "0.5000" in alone.cells[0]
    both = table_of([link_run("single", 1), run()])
    assert "test accuracy, test MRR" in both.headings
