"""--partitions on the command line: every launcher, faults and bad input."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.measure.run_record import RunRecord
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, LAUNCHING, ROOT, Place, assert_same_curve
from tests.e2e.test_elastic import SECOND, Hosts, hosts, one_process, rank_on, until_said
from tests.e2e.test_elastic import training as elastic_job
from tests.e2e.test_waiting import BEST, ENDLESS, JOBS, LIMIT, MPIRUN, python_of_rank
from tests.unit.made_partitions import graph_on_disk, hash_partition

__all__ = ["hosts"]  # a fixture
SECONDS = 120
REMOTE = {"fetch_window": 3, "fetch_cache": "0"}


@pytest.fixture
def graph(prepared: Path) -> Graph:
    return datasets.load(DATASET, cache_dir=prepared)


def parts_of(graph: Graph, place: Place, num_parts: int) -> Path:
    return hash_partition(graph, num_parts, place.folder / f"parts-{num_parts}").folder


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("name", JOBS)
def test_every_launcher_trains_on_parts_like_one_process(
    place: Place, graph: Graph, whole: Callable[[int], RunRecord], name: str
) -> None:
    expected = whole(2)
    command, changes, _ = JOBS[name]
    words = place.flags(partitions=parts_of(graph, place, 3), **REMOTE, **changes)
    with job([*command, *words], place.folder) as started:
        assert started.end(SECONDS) == 0, started.err
    record = place.record()
    assert_same_curve([record], expected, 1e-9)
    exchange = record.exchange
    assert exchange is not None and exchange.parts == 3 and exchange.cached_rows == 0
    num_steps = len(record.step_losses or [])
    assert exchange.steps == num_steps
    steps_an_epoch = num_steps // 2
    assert exchange.rounds == 2 * -(-steps_an_epoch // 3)
    assert 0 < exchange.rows_received == exchange.needed_rows <= exchange.remote_rows
    assert exchange.bytes_sent > exchange.rows_received * graph.num_features * 4


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("name", JOBS)
def test_a_rank_that_stands_still_is_named(place: Place, graph: Graph, name: str) -> None:
    command, changes, launcher_seconds = JOBS[name]
    words = place.saving(partitions=parts_of(graph, place, 3), **REMOTE, **ENDLESS, **changes)
    with job([*command, *words], place.folder) as started:
        started.wait_until((place.saved / BEST).exists, SECONDS)
        process = python_of_rank(started, 1)
        process.suspend()
        begun = time.monotonic()
        code = started.end(LIMIT + launcher_seconds + 30)
        print(f"{name}: {time.monotonic() - begun:.1f} s")
        said = started.out + started.err
    assert code != 0
    assert "rank 1 (" in said and "is stopped (SIGSTOP)" in said, said


@pytest.mark.long
@pytest.mark.needs_horovod
def test_predictions_on_parts_are_those_of_the_table(
    place: Place, graph: Graph, single: Callable, run_cli: Callable
) -> None:
    assert single(place.saving()).code == 0
    parts = parts_of(graph, place, 3)
    found = {}
    for name, more in {"whole": [], "parts": ["--partitions", parts]}.items():
        output = place.folder / f"{name}.npy"
        words = ["--checkpoint-dir", place.saved, "--cache-dir", place.cache, "--what", "logits"]
        command = [*MPIRUN, ROOT / "horovod_gnn" / "predict.py", *words, "--output", output, *more]
        done = run_cli(command, env=LAUNCHING, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        found[name] = np.load(output)
    np.testing.assert_allclose(found["parts"], found["whole"], rtol=1e-12, atol=1e-12)


@pytest.mark.long
@pytest.mark.needs_horovod
def test_an_elastic_job_goes_on_with_the_parts_of_other_ranks(
    place: Place, graph: Graph, hosts: Hosts, single: Callable
) -> None:
    """A rank is lost, maybe in an exchange; the one that is left owns all parts from then on."""
    more = ["--partitions", str(parts_of(graph, place, 3)), "--fetch-window", "2"]
    with elastic_job(place, hosts, *more) as started:
        until_said(started, "epoch 3/")
        rank_on(SECOND, started).kill()
        until_said(started, "goes on    on 1 rank from epoch")
        assert started.end(SECONDS) == 0, started.err
        assert "Traceback" not in started.err
    assert_same_curve([place.record()], one_process(place, single), 1e-9)


def test_links_are_predicted_on_parts(place: Place, graph: Graph, single: Callable) -> None:
    """The graph that is trained on has other edges than the one that was cut."""
    changes = {"task": "link", "candidates": 50, "negatives": 3}
    assert single(place.flags(**changes)).code == 0
    whole = place.record()
    assert single(place.flags(partitions=parts_of(graph, place, 3), **changes)).code == 0
    parts = place.record()
    assert parts.step_losses == pytest.approx(whole.step_losses, rel=1e-12)
    assert parts.final == pytest.approx(whole.final, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("none", {}, "expected the folder of a partition, got no meta.json there"),
        ("none", {"dry_run": True}, "expected the folder of a partition, got no meta.json there"),
        ("other graph", {}, "expected a partition of graph synthetic"),
        ("other graph", {"dry_run": True}, "expected a partition of graph synthetic"),
        ("missing part", {}, "expected part 1 of the partition, got none there"),
        ("whole", {"table_dtype": "fp16"}, "--table-dtype fp16: parts are read as they are stored"),
    ],
)
def test_bad_parts_are_refused_in_one_line(
    place: Place, graph: Graph, single: Callable, name: str, changes: dict, expected: str
) -> None:
    folder = place.folder / "parts"
    if name == "other graph":
        hash_partition(graph_on_disk(place.folder / "graph"), 2, folder)
    elif name != "none":
        hash_partition(graph, 2, folder)
    if name == "missing part":
        shutil.rmtree(folder / "part-001")
    done = single(place.flags(partitions=folder, **changes))
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert expected in line
    assert place.records.exists() is False or place.all_records() == []
