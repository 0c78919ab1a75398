"""Records -> rows: every number is worked out here by hand from tiny records."""

from __future__ import annotations

from typing import Any

import pytest

from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.report.rows import Row, accuracy_over_seeds, machine_words, summarize
from gnn_core.report.tables.speed import speed_table
from tests.unit.made_records import CLUSTER, epoch, run


def only(records: list[RunRecord], strategy: str, ranks: int, **options: Any) -> Row:
    rows, _ = summarize(records, **options)
    (row,) = [row for row in rows if (row.strategy, row.ranks) == (strategy, ranks)]
    return row


def test_speed_up_is_t1_over_tn_and_larger_is_faster() -> None:
    records = [run(seconds=8.0), run("horovod", 2, 5.0), run("horovod", 4, 16.0)]
    assert only(records, "single", 1).speedup == 1.0
    assert only(records, "horovod", 2).speedup == pytest.approx(1.6)
    assert only(records, "horovod", 2).efficiency == pytest.approx(0.8)
    assert only(records, "horovod", 4).speedup == pytest.approx(0.5)


def test_the_median_of_repeated_runs_counts_and_warm_up_does_not() -> None:
    """Warm-up epochs of 100 s are in every record and in no number."""
    records = [run(seconds=8.0), run(seconds=6.0), run(seconds=40.0), run("ddp", 2, 4.0)]
    single = only(records, "single", 1)
    assert single.seconds is not None and single.runs == 3
    assert (single.seconds.middle, single.seconds.low, single.seconds.high) == (8.0, 6.0, 40.0)
    assert only(records, "ddp", 2).speedup == pytest.approx(2.0)


def test_an_epoch_cut_short_does_not_make_a_run_fast() -> None:
    """The median over epochs, so that one odd epoch does not decide."""
    odd = run(epochs=[epoch(0, 100.0), epoch(1, 8.0), epoch(2, 8.0), epoch(3, 1.0)])
    row = only([odd], "single", 1)
    assert row.seconds is not None and row.seconds.middle == 8.0


def test_a_run_of_warm_up_only_has_no_time() -> None:
    rows, _ = summarize([run(epochs=[epoch(0, 100.0)])])
    assert rows[0].seconds is None and rows[0].speedup is None
    assert rows[0].communicate_share is None


def test_communicate_share_is_of_all_measured_seconds() -> None:
    """(0.5 * 2 + 0.25 * 6) / 8, not the average of the two shares."""
    record = run(epochs=[epoch(0, 100.0), epoch(1, 2.0, 0.5), epoch(2, 6.0, 0.25)])
    assert only([record], "single", 1).communicate_share == pytest.approx(2.5 / 8)


def test_accuracy_is_over_seeds() -> None:
    """Repeating a seed is no second observation; the deviation is that of a sample."""
    seeds = [(0, 0.80), (0, 0.80), (1, 0.82), (2, 0.84)]
    spread = accuracy_over_seeds([run(accuracy=a, config={"seed": s}) for s, a in seeds])
    assert spread is not None and spread.count == 3
    assert spread.middle == pytest.approx(0.82)
    assert spread.high - spread.middle == pytest.approx(0.02)
    assert accuracy_over_seeds([run(accuracy=None)]) is None


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        (["avx2", "avx512_bf16", "amx_bf16"], " with AMX"),
        (["avx2", "avx512_bf16"], " with AVX-512 BF16"),
        (["avx2"], ""),
        (None, ""),  # older records
    ],
)
def test_a_machine_is_reported_with_its_unit_for_bf16_products(
    flags: list[str] | None, unit: str
) -> None:
    facts = {"cpu_model": "Xeon", "cpu_flags": flags, "cores_available": 2, "memory_bytes": 2**33}
    assert machine_words(facts) == f"Xeon{unit}, 2 cores, 8 GiB"


def test_seeds_share_a_row_and_settings_do_not() -> None:
    records = [
        run(config={"seed": 1}),
        run(config={"seed": 2, "records": "elsewhere", "progress": "off"}),
        run(config={"hidden": 8}),
        run(config={"precision": "bf16"}),
        run(config={"prefetch": 0}),
        run(config={"a_new_setting": 1}),
    ]
    rows, _ = summarize(records)
    assert sorted(row.runs for row in rows) == [1, 1, 1, 1, 2]


def test_records_from_before_there_was_a_model_share_a_row_with_the_default() -> None:
    older = run()
    del older.config["model"]
    rows, _ = summarize([run(), older, run(config={"model": "other"})])
    assert sorted(row.runs for row in rows) == [1, 2]


def test_failed_runs_are_counted_and_never_used() -> None:
    dead = run("horovod", 2, 0.001, status="failed", error="epochs[1].train_loss is nan")
    stopped = run("horovod", 2, 0.001, status="interrupted", error="stopped")
    row = only([run(), run("horovod", 2, 4.0), dead, stopped], "horovod", 2)
    assert (row.runs, row.failed, row.interrupted) == (1, 1, 1)
    assert row.speedup == pytest.approx(2.0)
    lone = only([run(), dead], "horovod", 2)
    assert (lone.runs, lone.failed) == (0, 1)
    assert lone.seconds is None and lone.accuracy is None and lone.speedup is None
    assert "1 failed" in speed_table([run(), dead]).markdown()


@pytest.mark.parametrize(
    "other",
    [
        run("horovod", 2, config={"fanouts": [3, 3]}),
        run("horovod", 2, config={"precision": "bf16"}),
        run("horovod", 2, dataset=DatasetInfo("pubmed", fingerprint="ab")),
        run("horovod", 2, dataset=DatasetInfo("cora", fingerprint="other files")),
    ],
)
def test_only_the_same_work_is_compared(other: RunRecord) -> None:
    rows, notes = summarize([run(), other])
    (row,) = [row for row in rows if row.strategy == "horovod"]
    assert row.speedup is None
    assert len(notes) == 1 and "no `single` run with the same settings" in notes[0]


def test_a_different_seed_or_number_of_threads_is_the_same_work() -> None:
    records = [run(config={"seed": 1}), run("horovod", 2, 4.0, config={"seed": 2, "pin": True})]
    assert only(records, "horovod", 2).speedup == pytest.approx(2.0)


def test_other_machines_are_refused_unless_forced() -> None:
    records = [run(machine=CLUSTER, seconds=8.0), run("horovod", 2, 4.0)]
    refused = only(records, "horovod", 2)
    assert refused.speedup is None
    _, notes = summarize(records)
    assert "another machine (Test CPU, 64 cores, 8 GiB); --force" in notes[0]
    forced = only(records, "horovod", 2, force=True)
    assert forced.speedup == pytest.approx(2.0)
    assert forced.speedup_mark == "?"


def test_the_same_machine_is_preferred_when_forced() -> None:
    records = [run(machine=CLUSTER, seconds=1.0), run(seconds=8.0), run("horovod", 2, 4.0)]
    row = only(records, "horovod", 2, force=True)
    assert (row.speedup, row.speedup_mark) == (pytest.approx(2.0), "")


def test_the_fastest_single_process_is_the_one_to_beat() -> None:
    """Two threads in one process are fairly compared with two ranks, and so is a short run."""
    records = [run(seconds=8.0), run(seconds=5.0, config={"threads": 2}), run("horovod", 2, 4.0)]
    assert only(records, "horovod", 2).speedup == pytest.approx(1.25)


def test_a_single_run_trained_as_long_is_preferred() -> None:
    """A short benchmark would lend its poor accuracy as the mark to meet."""
    records = [
        run(seconds=7.0, accuracy=0.3, config={"epochs": 3}),
        run(seconds=8.0, accuracy=0.8, config={"epochs": 9}),
        run("horovod", 2, 4.0, accuracy=0.5, config={"epochs": 9}),
    ]
    row = only(records, "horovod", 2)
    assert (row.speedup, row.speedup_mark) == (pytest.approx(2.0), "!")


@pytest.mark.parametrize(
    ("accuracy", "mark"), [(0.9, ""), (0.8, ""), (0.79, ""), (0.789, "!"), (None, "!")]
)
def test_a_speed_up_that_costs_accuracy_is_marked(accuracy: float | None, mark: str) -> None:
    assert only([run(), run("ddp", 2, 4.0, accuracy)], "ddp", 2).speedup_mark == mark
    if mark:
        table = speed_table([run(), run("ddp", 2, 4.0, accuracy)])
        assert "2.00!" in table.markdown() and any("1 point" in note for note in table.notes)


def test_more_threads_than_cores_are_marked() -> None:
    """Two cores: 2 ranks fit, 4 do not, 2 with two threads do not; per host, not in all."""
    spread = {"hosts": ["a", "b"], "ranks_per_host": [2, 2]}
    records = [
        run("horovod", 2),
        run("horovod", 4),
        run("ddp", 2, config={"threads": 2}),
        run("ddp", 4, **spread),
    ]
    crowded = {(row.strategy, row.ranks): row.crowded for row in summarize(records)[0]}
    assert crowded == {
        ("horovod", 2): False,
        ("horovod", 4): True,
        ("ddp", 2): True,
        ("ddp", 4): False,
    }
    text = speed_table(records).markdown()
    assert " 4* |" in text and " 4 (2+2) |" in text
