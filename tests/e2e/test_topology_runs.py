"""--partition-topology: every launcher, without the graph's own files; resumed."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.store import IN_PARTS
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, LAUNCHING, ROOT, Place, assert_same_curve
from tests.e2e.test_waiting import BEST, ENDLESS, JOBS, MPIRUN, python_of_rank
from tests.unit.made_partitions import hash_partition

SECONDS = 120
REMOTE = {"fetch_window": 3, "fetch_cache": "0"}


@pytest.fixture
def graph(prepared: Path, place: Place) -> Graph:
    """A graph folder of the test's own."""
    folder = datasets.load(DATASET, cache_dir=prepared).folder
    assert folder is not None
    shutil.copytree(folder, place.folder / "graph")
    return Graph.open(place.folder / "graph")


def in_parts(graph: Graph, place: Place, num_parts: int) -> Path:
    folder = place.folder / f"parts-{num_parts}"
    return hash_partition(graph, num_parts, folder, topology=True).folder


def hide(graph: Graph) -> None:
    """Keep from the runs what parts have instead."""
    assert graph.folder is not None
    for file in IN_PARTS:
        (graph.folder / file).rename(graph.folder / f"{file}.away")


def put_back(graph: Graph) -> None:
    assert graph.folder is not None
    for file in IN_PARTS:
        (graph.folder / f"{file}.away").rename(graph.folder / file)


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("name", JOBS)
def test_every_launcher_trains_without_the_whole_graph(
    place: Place, graph: Graph, single: Callable, name: str
) -> None:
    assert single(place.flags(dataset=graph.folder)).code == 0
    whole = place.record()
    parts = in_parts(graph, place, 3)
    hide(graph)
    command, changes, _ = JOBS[name]
    words = place.flags(dataset=graph.folder, partitions=parts, **REMOTE, **changes)
    with job([*command, *words], place.folder) as started:
        assert started.end(SECONDS) == 0, started.err
    record = place.record()
    assert_same_curve([record], whole, 1e-12)
    exchange = record.exchange
    assert exchange is not None and exchange.topology == "parts"
    windows = 2 * -(-(exchange.steps // 2) // 3)
    assert exchange.sampling_rounds == 2 * windows and exchange.rounds == windows
    assert exchange.sampled_nodes > 0
    assert exchange.sampling_bytes > 4 * exchange.sampled_nodes


@pytest.mark.needs_horovod
def test_a_stop_and_the_run_goes_on_with_the_whole_graph_or_other_parts(
    place: Place, graph: Graph, single: Callable
) -> None:
    parts = in_parts(graph, place, 4)
    hide(graph)
    command, changes, _ = JOBS["horovod by mpirun"]
    own: dict[str, Any] = {"dataset": graph.folder, "eval_every": 1, "patience": 0}
    words = place.saving(partitions=parts, **own, **REMOTE, **ENDLESS, **changes)
    with job([*command, *words], place.folder) as started:
        started.wait_until((place.saved / BEST).exists, SECONDS)
        python_of_rank(started, 0).send_signal(signal.SIGTERM)
        assert started.end(SECONDS) == 128 + signal.SIGTERM
        assert started.out.count("interrupted: stopped at epoch ") == 1
        assert "Traceback" not in started.out + started.err
    stopped = place.record()
    assert stopped.status == "interrupted"
    put_back(graph)
    epochs = len(stopped.epochs) + 2
    assert single(place.flags(**own, epochs=epochs)).code == 0
    expected = place.record().step_losses
    rows_alone = hash_partition(graph, 3, place.folder / "parts-3").folder
    for name, partitions in {"whole": None, "parts": rows_alone}.items():
        copy = Place(place.folder / name, place.cache)
        shutil.copytree(place.saved, copy.saved)
        words = copy.saving(**own, partitions=partitions, epochs=epochs, resume=True)
        assert single(words).code == 0
        losses = [*(stopped.step_losses or []), *(copy.record().step_losses or [])]
        assert losses == pytest.approx(expected, rel=1e-9 if partitions else 1e-12)


@pytest.mark.long
@pytest.mark.needs_horovod
def test_predictions_are_those_of_the_whole_graph(
    place: Place, graph: Graph, single: Callable, run_cli: Callable
) -> None:
    assert single(place.saving(dataset=graph.folder)).code == 0
    parts = in_parts(graph, place, 3)
    found = {}
    for name, more in {"whole": [], "parts": ["--partitions", parts]}.items():
        output = place.folder / f"{name}.npy"
        words = ["--checkpoint-dir", place.saved, "--what", "logits", "--output", output, *more]
        command = [*MPIRUN, ROOT / "horovod_gnn" / "predict.py", *words]
        done = run_cli(command, env=LAUNCHING, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        found[name] = np.load(output)
        if name == "whole":
            hide(graph)
    np.testing.assert_allclose(found["parts"], found["whole"], rtol=1e-12, atol=1e-12)


def test_one_process_reads_all_parts_and_tells_what_they_take(
    place: Place, graph: Graph, single: Callable
) -> None:
    assert single(place.flags(dataset=graph.folder)).code == 0
    whole = place.record()
    changes = {"dataset": graph.folder, "partitions": in_parts(graph, place, 3)}
    asked = single(place.flags(**changes, partition_topology=True, dry_run=True))
    assert asked.code == 0 and "adjacency of its parts" in asked.out
    assert "adjacency of all nodes" in single(place.flags(**changes, dry_run=True)).out
    hide(graph)
    assert single(place.flags(**changes)).code == 0
    assert_same_curve([place.record()], whole, 1e-12)


def test_it_is_refused_without_parts(place: Place, single: Callable) -> None:
    done = single(place.flags(partition_topology=True))
    assert done.code == 2
    assert "--partition-topology: it needs --partitions" in done.err
