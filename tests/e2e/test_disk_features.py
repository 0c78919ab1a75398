"""Features on disk, as a user asks for them: the same results, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.data.datasets import load
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, LAUNCHERS, TRAIN, Place, assert_same_curve
from tests.e2e.test_bad_input import assert_refused

pytestmark = pytest.mark.needs_torch
DISK = {"feature_store": "disk", "disk_cache": "30KiB"}


def test_training_and_prediction_are_those_in_memory(
    single: Callable, in_process: Callable, place: Place
) -> None:
    from baselines.predict import main

    elsewhere = Place(place.folder / "memory", place.cache)
    assert single(elsewhere.flags()).code == 0
    done = single(place.saving(**DISK))
    assert (done.code, done.err) == (0, "")
    assert "features   125 KiB on disk, 30 KiB of memory for them a process" in done.out
    record = place.record()
    assert_same_curve([record], elsewhere.record(), 1e-12)
    assert record.final == elsewhere.record().final
    (reads,) = record.feature_reads
    assert 0 < reads.hits < reads.rows and reads.reads > 0
    assert 0 < reads.cache_bytes <= 30 << 10
    outputs = [place.folder / name for name in ("memory.csv", "disk.csv")]
    for output, more in zip(outputs, ([], ["--feature-store", "disk"]), strict=True):
        words = ["--checkpoint-dir", place.saved, "--cache-dir", place.cache, "--output", output]
        assert in_process(main, [*words, "--device", "cpu", *more]).code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_a_dry_run_shows_what_is_cached(single: Callable, place: Place) -> None:
    done = single(place.flags(**DISK, memory_limit="4GiB", dry_run=True))
    assert (done.code, done.err) == (0, "")
    assert "memory, features on disk" in done.out
    assert any(
        line.split() == ["cache", "of", "features", "30", "KiB"] for line in done.out.splitlines()
    )


def test_a_limit_that_is_too_low_is_refused(single: Callable, place: Place) -> None:
    for store in ("auto", "memory", "disk"):
        done = single(place.flags(feature_store=store, memory_limit="20MiB"))
        assert_refused(done.code, done.err, "--memory-limit 20MiB: expected at least", "MiB (")


@pytest.mark.long  # what one process says of it: tests/unit/test_disk_store.py
@pytest.mark.needs_horovod
def test_a_file_that_is_cut_ends_all_ranks(place: Place, tmp_path: Path) -> None:
    """Within the deadline; the record and stderr name the file."""
    graph = load(DATASET, cache_dir=place.cache)
    assert graph.folder is not None
    folder = shutil.copytree(graph.folder, tmp_path / "graph")
    more = {"dataset": folder, "epochs": 100_000, "eval_every": 100_000, "progress": "lines"}
    command = [LAUNCHERS / "mpirun", "--oversubscribe", "-np", "2", "python", TRAIN]
    with job([*command, *place.flags(**{**DISK, **more})], place.folder) as running:
        running.wait_until(lambda: "epoch 1/" in running.out)
        os.truncate(folder / "features.npy", 40_000)
        assert running.end(60) != 0
        assert "Traceback" not in running.err
    record = place.record()
    assert record.status == "failed"
    assert "features.npy: expected all rows" in str(record.error)
