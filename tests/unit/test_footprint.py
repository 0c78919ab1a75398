"""Memory: the graph counted once per host, and nothing made up where a rank told nothing."""

from __future__ import annotations

import dataclasses

from gnn_core.measure.run_record import DatasetInfo, ProcessMemory, RunRecord
from gnn_core.report.table import GIB
from gnn_core.report.tables.memory import footprint, graph_bytes, memory_table
from tests.unit.made_records import run

# 4 offsets, 10 neighbours, 3 x 5 features of float32, 3 labels, 3 splits
SMALL = DatasetInfo("tiny", 3, 10, 5, 2, "ab")
SMALL_BYTES = 4 * 8 + 10 * 4 + 15 * 4 + 3 * 4 + 3
BIG = DatasetInfo("big", 2**20, 2**20, 256, 2, "ab")


def measured(dataset: DatasetInfo, *memory: ProcessMemory, hosts: int = 1) -> RunRecord:
    each = len(memory) // hosts
    record = run("horovod", len(memory), memory=list(memory), dataset=dataset)
    return dataclasses.replace(
        record, hosts=[f"h{host}" for host in range(hosts)], ranks_per_host=[each] * hosts
    )


def test_the_graph_is_counted_by_its_arrays() -> None:
    assert graph_bytes(SMALL) == SMALL_BYTES
    half = dataclasses.replace(SMALL, name="synthetic:papers=3,feature_dtype=bfloat16")
    assert graph_bytes(half) == SMALL_BYTES - 15 * 2
    assert graph_bytes(SMALL, "fp16") == SMALL_BYTES - 15 * 2
    assert graph_bytes(DatasetInfo("unknown")) is None
    sparse = dataclasses.replace(SMALL, feature_bytes=7)
    assert graph_bytes(sparse) == SMALL_BYTES - 15 * 4 + 7


def test_each_host_holds_one_graph_and_ranks_share_it() -> None:
    ranks = [ProcessMemory(5000, 1000), ProcessMemory(7000, 2000)]
    one = footprint(measured(SMALL, *ranks))
    assert (one.pss, one.largest_peak_rss) == (3000, 7000)
    assert one.own_per_rank == (3000 - SMALL_BYTES) / 2
    assert footprint(measured(SMALL, *ranks, hosts=2)).own_per_rank == (3000 - 2 * SMALL_BYTES) / 2


def test_a_sum_without_one_of_its_ranks_is_unknown() -> None:
    one = footprint(measured(SMALL, ProcessMemory(5000, 1000), ProcessMemory(7000, None)))
    assert (one.pss, one.own_per_rank, one.largest_peak_rss) == (None, None, 7000)
    assert footprint(measured(SMALL, ProcessMemory(), ProcessMemory())).largest_peak_rss is None


def test_the_table_is_in_gib_and_says_how_features_were_counted() -> None:
    table = memory_table([measured(BIG, ProcessMemory(3 * GIB, GIB), ProcessMemory(2 * GIB, GIB))])
    assert table.headings[3:] == ("graph", "sum of PSS", "largest peak RSS", "own per rank")
    assert table.cells == (("big", "horovod", "2", "1.02", "2.00", "3.00", "0.492"),)
    assert "counted with 4 bytes per number" in table.notes[-1]
    reported = dataclasses.replace(BIG, feature_bytes=2**20)
    assert not any(
        "counted with" in n for n in memory_table([measured(reported, ProcessMemory())]).notes
    )


def test_a_graph_that_was_not_all_in_memory_is_reported() -> None:
    table = memory_table([measured(BIG, ProcessMemory(GIB, GIB // 2))])
    assert table.cells[0][-1].startswith("-0.5")
    assert table.notes[-1].startswith("below 0")


def test_runs_that_tell_nothing_are_shown_as_such() -> None:
    table = memory_table([run(), run(status="failed", error="x")])
    assert table.cells == (("cora", "single", "1", "-", "-", "-", "-"),)
    assert table.notes[-1] == "left out, not ended well: 1 run"
