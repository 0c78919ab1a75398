"""Run records: what is written is read back whole, and nothing untrue gets through."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gnn_core.config import UsageError
from gnn_core.measure import records
from gnn_core.measure.metrics import Tally, split_fields
from gnn_core.measure.records import begin_run, read_records, require_writable, write_record
from gnn_core.measure.run_record import DatasetInfo, EpochRecord, ProcessMemory, RunRecord

TINY = DatasetInfo("tiny", 10, 30, 4, 3, "ab12", {"train": 4, "valid": 2, "test": 3}, 160)


def epoch(number: int = 0, **changes: Any) -> EpochRecord:
    made = EpochRecord(
        epoch=number,
        train_loss=0.1 + 0.2,  # 0.30000000000000004: every digit must come back
        train_accuracy=0.5,
        valid_accuracy=1.0,
        lr=0.01,
        seconds=2.0,
        sections={"compute": 1.5, "communicate": 0.25, "evaluate": 4.0, "other": 0.25},
        warm_up=number == 0,
        num_targets=4,
        num_sampled_edges=17,
    )
    return dataclasses.replace(made, **changes)


def run(**changes: Any) -> RunRecord:
    record = begin_run(
        strategy="horovod",
        config={"dataset": "tiny", "task": "node", "fanouts": [5, 5], "precision": "fp32"},
        config_digest="d1",
        dataset=TINY,
        rank_hosts=["left.example.org", "left", "right"],
        controller="mpi",
    )
    final = {**split_fields("valid", Tally(1.0, 2, 2)), **split_fields("test", Tally(1.5, 2, 3))}
    filled: dict[str, Any] = {"epochs": [epoch(0), epoch(1)], "final": {**final, "best_epoch": 1}}
    return record.finished("ok", **{**filled, **changes})


def written(record: RunRecord, folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(write_record(record, folder).read_text())
    return values


def test_a_gzipped_record_is_read_too(tmp_path: Path) -> None:
    plain = write_record(run(), tmp_path)
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    once = read_records(tmp_path / plain.name)[0]
    plain.unlink()
    assert read_records(tmp_path) == (once, [])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4])
    found, (problem,) = read_records(tmp_path)
    assert found == once and "cut.jsonl.gz: expected a gzipped file" in problem


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = run(
        step_losses=[1 / 3, 0.1, 1e-300],
        memory=[ProcessMemory(100, 60), ProcessMemory(None, None)],
        resumed_from={"run_id": "f00", "epoch": 1},
        notes=["a note"],
    )
    path = write_record(record, tmp_path / "deep" / "runs")
    assert path.read_text().count("\n") == 1 and path.read_text().endswith("}\n")
    assert path.read_text().startswith('{"schema_version": 1,')
    again, problems = read_records(tmp_path)
    assert problems == []
    assert again == [record]


def test_a_record_tells_its_origin() -> None:
    record = run()
    assert record.world_size == 3
    assert (record.hosts, record.ranks_per_host) == (["left", "right"], [2, 1])
    assert record.machine["cores_available"] >= 1
    assert record.versions["numpy"] == np.__version__
    assert record.launch_command
    assert record.started_at.endswith("+00:00") and record.started_at < str(record.finished_at)


def test_the_file_is_named_after_the_run(tmp_path: Path) -> None:
    record = run(
        run_id="0123456789abcdef",
        started_at="2026-01-02T03:04:05.678901+00:00",
        dataset=dataclasses.replace(TINY, name="/data/my graph"),
    )
    name = write_record(record, tmp_path).name
    assert name == "20260102T030405Z-horovod-my-graph-np3-01234567.jsonl"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_numpy_numbers_and_tuples_are_written_as_plain_ones(tmp_path: Path) -> None:
    losses = np.array([0.5, 0.25], dtype=np.float64)
    epochs = [epoch(0, train_loss=np.float64(0.5), num_targets=np.int64(4), warm_up=np.True_)]
    values = written(run(step_losses=losses, epochs=epochs), tmp_path)
    assert values["step_losses"] == [0.5, 0.25]
    assert values["epochs"][0]["train_loss"] == 0.5
    assert values["epochs"][0]["warm_up"] is True
    assert values["status"] == "ok"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_a_failed_run_and_never_a_zero(tmp_path: Path, bad: float) -> None:
    values = written(run(epochs=[epoch(0), epoch(1, train_loss=bad)]), tmp_path)
    assert values["status"] == "failed"
    assert values["epochs"][1]["train_loss"] is None
    assert f"epochs[1].train_loss is {bad}" in values["error"]
    (record,), problems = read_records(tmp_path)
    assert problems == []
    assert record.status == "failed" and record.epochs[1].train_loss is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step_losses": [0.5, math.nan]}, "step_losses[1] is nan"),
        ({"final": {"test_accuracy": math.nan}}, "final.test_accuracy is nan"),
        ({"training_seconds": math.inf}, "training_seconds is inf"),
        ({"epochs": [epoch(0, sections={"wait": math.nan})]}, "epochs[0].sections.wait is nan"),
        ({"epochs": [epoch(0, train_loss=None)]}, "train_loss is missing"),
        (
            {"epochs": [epoch(0, valid_accuracy=81.5)]},
            "valid_accuracy is 81.5, expected a fraction",
        ),
        ({"epochs": [epoch(0, seconds=-1.0, sections={})]}, "seconds is -1.0 s"),
        ({"epochs": [epoch(0, sections={"compute": 2.5})]}, "something counts twice"),
        ({"epochs": [epoch(1), epoch(1)]}, "follows epoch 1"),
        ({"epochs": [epoch(0, num_targets=3)]}, "num_targets is 3, but an epoch has 4 targets"),
        ({"epochs": [epoch(0, num_targets=5)]}, "num_targets is 5, but an epoch has 4 targets"),
        ({"final": {"test_accuracy": 97.0}}, "final.test_accuracy is 97.0, expected a fraction"),
        ({"final": {"val_accuracy": 0.5}}, "names no split of train, valid, test"),
    ],
)
def test_what_cannot_be_true_makes_a_run_a_failed_one(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    values = written(run(**changes), tmp_path)
    assert values["status"] == "failed"
    assert named in values["error"]
    assert "\n" not in values["error"]


def test_a_test_accuracy_made_on_validation_nodes_is_found_out(tmp_path: Path) -> None:
    """Also one whose evaluation dropped its last batch: the count is not the split's."""
    values = written(run(final=split_fields("test", Tally(1.0, 2, 2))), tmp_path)
    assert values["status"] == "failed"
    assert "final.test_count is 2, but the split has 3 targets" in values["error"]
    asked = {**run().config, "eval_nodes": 2}
    changes = {"final": split_fields("test", Tally(1.0, 2, 2)), "config": asked}
    assert written(run(**changes), tmp_path)["status"] == "ok"


def test_an_interrupted_epoch_may_be_short(tmp_path: Path) -> None:
    """A resumed run enters one half-way, a stopped run leaves one half-way; others are whole."""
    resumed = run(epochs=[epoch(3, num_targets=1), epoch(4)], resumed_from={"epoch": 3})
    assert written(resumed, tmp_path)["status"] == "ok"
    short = [epoch(0), epoch(1, num_targets=2)]
    stopped = run().finished("interrupted", epochs=short)
    values = written(stopped, tmp_path)
    assert (values["status"], values["error"]) == ("interrupted", "stopped from outside")


def test_a_failed_run_keeps_its_own_error_in_one_line(tmp_path: Path) -> None:
    failed = run().finished("failed", "rank 1:\n  out of memory", epochs=[])
    assert failed.error == "rank 1: out of memory"
    both = written(failed.finished("failed", failed.error, step_losses=[math.nan]), tmp_path)
    assert both["error"] == "rank 1: out of memory; step_losses[0] is nan"


def test_a_run_that_was_only_begun_is_no_success(tmp_path: Path) -> None:
    begun = begin_run(
        strategy="single",
        config={},
        config_digest="d",
        dataset=DatasetInfo("tiny"),
        rank_hosts=["h"],
    )
    assert written(begun, tmp_path)["status"] == "failed"
    assert written(begun, tmp_path)["error"] == "the run did not reach its end"


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "magic"},
        {"status": "fine"},
        {"controller": "smoke"},
        {"controller": "nccl"},  # of another strategy
        {"world_size": 4},
    ],
)
def test_words_outside_the_schema_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(run(), **changes)


def test_an_epoch_record_takes_sums_and_a_lap() -> None:
    lap = {"compute": 3.0, "evaluate": 2.0, "other": 0.5, "total": 5.5, "overlapped_sample": 9.0}
    made = EpochRecord.of(2, Tally(2.0, 3, 4), lap, lr=0.1, warm_up=False, num_sampled_edges=8)
    assert (made.train_loss, made.train_accuracy, made.num_targets) == (0.5, 0.75, 4)
    assert made.seconds == 3.5
    assert made.sections == {name: value for name, value in lap.items() if name != "total"}
    assert made.valid_accuracy is None


def test_a_dataset_is_described_by_its_graph() -> None:
    sizes = {"train": 4, "valid": 2, "test": 3}
    graph = SimpleNamespace(
        name="tiny",
        num_nodes=10,
        num_edges=30,
        num_features=4,
        num_classes=3,
        fingerprint="ab12",
        feature_bytes=160,
        split=lambda name: np.arange(sizes[name]),
    )
    assert DatasetInfo.of(graph) == TINY


def test_every_bad_line_is_named_and_the_good_ones_are_used(tmp_path: Path) -> None:
    good, other = run(), run()
    line = write_record(good, tmp_path).read_text()
    values = json.loads(line)
    lines = [
        json.dumps({**values, "schema_version": 2}),
        line[: len(line) // 2],
        json.dumps({**values, "run_id": "n", "training_seconds": math.nan}),
        json.dumps({**values, "run_id": "w", "world_size": "3"}),
        json.dumps({**values, "run_id": "u", "speed": 1}),
        json.dumps({key: value for key, value in values.items() if key != "hosts"}),
        json.dumps({**values, "run_id": "a", "final": {"test_accuracy": 97}}),
        json.dumps({**values, "run_id": "s", "status": "fine"}),
        "[1, 2]",
        "",
        line.strip(),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    write_record(other, tmp_path / "more")
    found, problems = read_records(tmp_path)
    assert sorted(record.run_id for record in found) == sorted([good.run_id, other.run_id])
    expected = [
        ("a.jsonl:1", "schema version 2, this reads 1"),
        ("a.jsonl:2", "not whole JSON"),
        ("a.jsonl:3", "NaN"),
        ("a.jsonl:4", "world_size: expected int, got text"),
        ("a.jsonl:5", "unknown field speed"),
        ("a.jsonl:6", "field hosts is missing"),
        ("a.jsonl:7", "expected a fraction"),
        ("a.jsonl:8", "status: expected one of"),
        ("a.jsonl:9", "not a run record"),
        ("", f"run {good.run_id[:8]} is also in"),
    ]
    assert len(problems) == len(expected)
    for (where, what), problem in zip(expected, problems, strict=True):
        assert where in problem and what in problem and "\n" not in problem


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write_record(run(), tmp_path)
    found, problems = read_records(tmp_path, path)
    assert (len(found), problems) == (1, [])


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".20260102-x.jsonl").write_text("{")
    (tmp_path / ".20260102-x.jsonl.12.tmp").write_text("{")
    assert read_records(tmp_path) == ([], [])


def test_a_path_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no .*nowhere"):
        read_records(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    """At the start of a run and at its end; a file in the way fails for root too."""
    (tmp_path / "runs").write_text("a file")
    for attempt in (lambda folder: write_record(run(), folder), require_writable):
        with pytest.raises(UsageError, match="--records DIR") as caught:
            attempt(tmp_path / "runs")
        assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_record(run(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_require_writable_leaves_no_trace(tmp_path: Path) -> None:
    require_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_published_records_are_read_where_they_are_named(tmp_path: Path) -> None:
    write_record(run(run_id="a" * 32), tmp_path / "runs")
    write_record(run(run_id="b" * 32), tmp_path / "reference" / "cora")
    assert len(read_records(tmp_path)[0]) == 1
    assert len(read_records(tmp_path / "reference")[0]) == 1
    assert len(read_records(tmp_path / "reference" / "cora", tmp_path)[0]) == 2
