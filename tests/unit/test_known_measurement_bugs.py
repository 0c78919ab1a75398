"""Ways in which training code is known to have reported wrong numbers, and that we do not.

Each was found in published code that trains graph networks or compares strategies. One test, or a
few, for each, through public functions only; what else is tested of them stands behind it.

- Rates divided by a reading of the clock instead of elapsed time (test_timing).
- "Test" results computed on the validation split (test_records).
- An accuracy that is the mean of means over ranks or batches (test_metrics), with the last batch
  dropped (test_loader, test_records).
- NaN that turned into 0 (test_records, test_damaged_records).
- Warm-up (compilation, cold caches) counted in the speed (test_summary, test_timing).
- A speed-up printed upside down (test_summary, test_gallery).
- The time of an epoch taken from the fastest rank, or from rank 0 (test_timing).
- Targets counted twice, where ranks are padded to equal steps (test_loader, test_evaluate).
- Fractions and percent taken for each other (test_records, test_target).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import Tally, split_fields
from gnn_core.measure.records import read_records, write_record
from gnn_core.measure.run_record import DatasetInfo, EpochRecord, RunRecord
from gnn_core.measure.timing import Stopwatch, lap_to_vector, slowest_lap
from gnn_core.report.analysis import main
from gnn_core.report.generated_blocks import TABLES
from tests.unit.made_graphs import with_train
from tests.unit.made_records import epoch, run

SPLITS = DatasetInfo("cora", fingerprint="ab", splits={"train": 140, "valid": 500, "test": 1000})


def numbers(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The lines of a table's CSV, by strategy and ranks; strings as they stand there."""
    capsys.readouterr()
    assert main([str(folder), "--format", "csv", *arguments]) == 0
    lines = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {(line["strategy"], int(line["ranks"])): line for line in lines}


def written(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        write_record(record, folder)
    return folder


# --- a rate is a count over elapsed time ---------------------------------------------------------


def test_a_rate_does_not_depend_on_when_it_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """140 targets in 8 s are 17.5 a second in 1970 and in 2100, and on a clock far from 0."""
    batch = {"config": {"global_batch_size": 10}}
    for year in (1970, 2100):
        folder = written(
            tmp_path / str(year),
            run("ddp", 1, 8.0, started_at=f"{year}-01-02T03:04:05+00:00", **batch),
            run("ddp", 2, 8.0, config={"global_batch_size": 20}),
        )
        line = numbers(folder, capsys, "--table", "weak")["ddp", 1]
        assert float(line["targets_per_second_per_rank"]) == 17.5
    now = iter([1.7e9, 1.7e9 + 8.0])
    assert Stopwatch(lambda: next(now)).lap()["total"] == 8.0


# --- a test result is of the test split ----------------------------------------------------------


def test_the_test_column_is_the_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = {
        **split_fields("valid", Tally(1.0, 450, 500)),
        **split_fields("test", Tally(1.0, 700, 1000)),
    }
    epochs = [dataclasses.replace(epoch(0, 1.0), valid_accuracy=0.9)]
    folder = written(tmp_path, run(final=final, epochs=epochs, dataset=SPLITS))
    for table in ("speed", "accuracy"):
        line = numbers(folder, capsys, "--table", table)["single", 1]
        assert line["test_accuracy"] == "0.7"


def test_a_test_result_of_as_many_targets_as_the_validation_split_is_refused(
    tmp_path: Path,
) -> None:
    wrong = run(final=dict(split_fields("test", Tally(1.0, 450, 500))), dataset=SPLITS)
    (record,) = read_records(written(tmp_path, wrong))[0]
    assert record.status == "failed"
    assert "final.test_count is 500, but the split has 1000" in str(record.error)


# --- sums are divided once, and nothing is dropped ------------------------------------------------


def test_an_accuracy_is_no_mean_of_means() -> None:
    """Ranks of 90 and 10 targets, batches of 64 and 36: always 0.82 of 100, whoever counts."""
    ranks = [Tally(9.0, 81, 90), Tally(1.0, 1, 10)]
    batches = [Tally(6.4, 63, 64), Tally(3.6, 19, 36)]
    for parts in (ranks, batches):
        vectors = np.stack([part.to_vector() for part in parts])
        whole = Tally.from_vector(vectors.sum(axis=0))
        assert whole.accuracy == 0.82
        assert whole.loss == pytest.approx(0.1)
        means = [part.accuracy for part in parts]
        assert whole.accuracy != pytest.approx(sum(filter(None, means)) / 2)


@pytest.mark.parametrize("missing", [1, 12])
def test_a_dropped_last_batch_is_found_out(tmp_path: Path, missing: int) -> None:
    short_test = dict(split_fields("test", Tally(1.0, 800, 1000 - missing)))
    short_epoch = dataclasses.replace(epoch(1, 8.0), num_targets=140 - missing)
    written(tmp_path, run(final=short_test), run(epochs=[epoch(0, 9.0), short_epoch]))
    records, _ = read_records(tmp_path)
    assert [record.status for record in records] == ["failed", "failed"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_padding_counts_no_target_twice_and_the_remainder_is_kept(world_size: int) -> None:
    """23 targets in steps of 8 leave 7, which 2, 3 or 4 ranks cannot share equally."""
    graph = with_train(num_nodes=40, num_train=23)
    seen: list[int] = []
    for rank in range(world_size):
        loader = Loader(
            graph,
            "train",
            fanouts=(2, 2),
            global_batch_size=8,
            seed=1,
            prefetch=0,
            rank=rank,
            world_size=world_size,
        )
        for batch in loader.batches(0):
            seen += batch.targets[: batch.num_real].tolist()
    assert sorted(seen) == graph.split("train").tolist()


def test_an_epoch_that_took_targets_twice_is_found_out(tmp_path: Path) -> None:
    padded = dataclasses.replace(epoch(1, 8.0), num_targets=144)
    (record,), _ = read_records(written(tmp_path, run(epochs=[epoch(0, 9.0), padded])))
    assert record.status == "failed" and "num_targets is 144" in str(record.error)


# --- NaN is no number, and no 0 -------------------------------------------------------------------


def test_nan_is_a_failed_run_in_every_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverged = [epoch(0, 100.0), dataclasses.replace(epoch(1, 1e-3), train_loss=math.nan)]
    folder = written(tmp_path, run("ddp", 2, epochs=diverged, final={"test_accuracy": math.nan}))
    written(folder, run(seconds=8.0))
    line = numbers(folder, capsys)["ddp", 2]
    assert (line["failed"], line["runs"]) == ("1", "0")
    assert {line[name] for name in ("seconds_per_epoch", "speedup", "test_accuracy")} == {""}
    assert main([str(folder)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "| ddp" in line]
    assert "1 failed" in row and " 0.00 " not in row and "nan" not in row
    for table in TABLES:
        if table in ("accuracy", "target", "cost", "memory"):
            price = ["--price", "1"] * (table == "cost")
            assert main([str(folder), "--table", table, *price]) == 0
            assert "| ddp" not in capsys.readouterr().out  # left out, and said so


def test_a_file_that_holds_nan_is_named_and_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_record(run(), tmp_path)
    values = json.loads(file.read_text())
    values["final"]["test_accuracy"] = math.nan
    file.write_text(json.dumps(values))
    assert main([str(tmp_path)]) == 2
    assert "holds NaN" in capsys.readouterr().err


def test_an_accuracy_that_nobody_measured_is_not_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, run(), run("ddp", 2, 4.0, None))
    assert numbers(folder, capsys)["ddp", 2]["test_accuracy"] == ""
    assert Tally().accuracy is None and Tally().loss is None


# --- time -----------------------------------------------------------------------------------------


def test_warm_up_is_in_no_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A first epoch of 100 s would make 2 ranks look 1.04 times as fast, not 2."""
    single, ddp = [epoch(0, 100.0, 0.0), epoch(1, 8.0)], [epoch(0, 100.0, 0.0), epoch(1, 4.0)]
    folder = written(tmp_path, run(epochs=single), run("ddp", 2, epochs=ddp))
    line = numbers(folder, capsys)["ddp", 2]
    assert float(line["seconds_per_epoch"]) == 4.0
    assert float(line["speedup"]) == 2.0
    assert float(line["communicate_share"]) == 0.25
    now = iter(float(second) for second in (0, 100, 108))
    watch = Stopwatch(lambda: next(now))
    assert watch.warm_up and watch.lap()["total"] == 100.0
    assert not watch.warm_up and watch.lap()["total"] == 8.0


def test_a_speed_up_above_1_is_faster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(
        tmp_path, run(seconds=8.0), run("ddp", 1, 10.0), run("ddp", 2, 4.0), run("horovod", 2, 16.0)
    )
    lines = numbers(folder, capsys)
    assert float(lines["ddp", 2]["speedup"]) == 2.0
    assert float(lines["ddp", 2]["own_speedup"]) == 2.5
    assert float(lines["horovod", 2]["speedup"]) == 0.5
    assert float(lines["ddp", 2]["efficiency"]) == 1.0


def test_its_least_is_not_above_its_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow and fast repeats of both: 6/5 .. 10/4, around 8/4.5."""
    repeats = [run(seconds=seconds) for seconds in (6.0, 8.0, 10.0)]
    folder = written(tmp_path, *repeats, run("ddp", 2, 4.0), run("ddp", 2, 5.0))
    line = numbers(folder, capsys)["ddp", 2]
    reported = [float(line[name]) for name in ("speedup_min", "speedup", "speedup_max")]
    assert reported == pytest.approx([1.2, 8 / 4.5, 2.5])


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_an_epoch_takes_as_long_as_its_slowest_rank(slowest: int) -> None:
    """Whichever that is; evaluation, which one rank may do alone, decides nothing."""
    seconds = [4.0, 5.0, 6.0]
    seconds[slowest] = 9.0
    evaluation = [0.0 if rank == slowest else 50.0 for rank in range(3)]
    laps = [
        {"compute": took, "evaluate": beside, "total": took + beside}
        for took, beside in zip(seconds, evaluation, strict=True)
    ]
    lap = slowest_lap(np.stack([lap_to_vector(one) for one in laps]))
    record = EpochRecord.of(1, Tally(1.0, 1, 140), lap, lr=0.1, warm_up=False, num_sampled_edges=0)
    assert record.seconds == 9.0 and record.sections["compute"] == 9.0


# --- fractions and percent ------------------------------------------------------------------------


def test_percent_is_no_accuracy(tmp_path: Path) -> None:
    values = json.loads(write_record(run(), tmp_path).read_text())
    for bad in (81.3, 1.0001, -0.1):
        values["final"]["test_accuracy"] = bad
        (tmp_path / "bad.jsonl").write_text(json.dumps({**values, "run_id": "x"}))
        assert "expected a fraction of 0 to 1" in read_records(tmp_path)[1][0]


def test_a_program_reads_fractions_and_a_person_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, run(accuracy=0.813))
    line = numbers(folder, capsys)["single", 1]
    assert (line["test_accuracy"], line["efficiency"]) == ("0.813", "1.0")
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert " 81.30 " in out and " 100 % " in out


def test_a_loss_of_one_point_is_0_01_and_not_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, run(accuracy=0.8), run("ddp", 2, 4.0, 0.785))
    assert numbers(folder, capsys)["ddp", 2]["speedup_mark"] == "!"
