"""Adjacency rows in parts: curve, weights, scores and predictions of the whole graph."""

# ruff: noqa: E402
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.partition.make import Request, make_partition
from gnn_core.training import evaluate
from gnn_core.training.evaluate import ExactEvaluator
from gnn_core.training.tasks import feature_store, open_store
from horovod_gnn.evaluate import Layers
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import assert_same, distance, trained, trained_once
from tests.parallel.test_same_parts import TRANSPORTS, over_transports, world

__all__ = ["world"]  # a fixture
pytestmark = pytest.mark.needs_torch


def cut(
    graph: Graph, world: SingleProcess, folder: Path, num_parts: int, method: str = "refine"
) -> str:
    """The folder of a partition with topology that rank 0 has written."""
    if world.rank == 0:
        make_partition(graph, Request(num_parts, method, topology=True), folder / "parts")
    world.barrier()
    return str(folder / "parts")


CASES: dict[str, dict[str, Any]] = {
    **{
        f"k={k}, {method}": {"num_parts": k, "method": method}
        for k in (1, 2, 4)
        for method in ("hash", "refine")
    },
    "W=1": {"num_parts": 4, "fetch_window": 1, "fetch_cache": "0"},
    "W=3, no prefetch": {"num_parts": 3, "fetch_window": 3, "prefetch": 0},
    "sampled": {"num_parts": 7, "eval": "sampled", "fanouts": (4, -1)},
    "shared": {"num_parts": 3, "share_parts": True},
    "gin": {"num_parts": 4, "model": "gin"},
    "k > nodes": {"num_parts": 64, "global_batch_size": 1, "epochs": 1},
}


@over_transports(CASES, everywhere=["k=4, hash", "W=3, no prefetch"])
def test_parts_train_like_the_whole_graph(
    tiny_graph: Graph, world: SingleProcess, shared_path: Path, changes: dict[str, Any]
) -> None:
    changes = dict(changes)
    num_parts, method = changes.pop("num_parts"), changes.pop("method", "refine")
    whole = trained_once(tiny_graph, SingleProcess(), **changes)
    folder = cut(tiny_graph, world, shared_path, num_parts, method)
    changes |= {"partitions": folder, "partition_topology": True}
    parts = trained(tiny_graph.without_indices(), world, **changes)
    assert distance(parts.losses, whole.losses) < 1e-12
    assert_same(parts, whole, 1e-11)
    for name, value in whole.record.final.items():
        assert parts.record.final[name] == pytest.approx(value, rel=1e-12), name
    exchange = parts.record.exchange
    assert exchange is not None and exchange.topology == "parts"
    reads_all = exchange.transport == "none"
    hops, epochs = 2, len(parts.record.epochs)
    steps = exchange.steps // epochs
    windows = -(-steps // changes.get("fetch_window", 8)) * epochs
    assert exchange.sampling_rounds == (0 if reads_all else hops * windows)
    assert (exchange.sampling_bytes > 0) == (exchange.sampled_nodes > 0) == (not reads_all)


@pytest.mark.parametrize("share_directly", [True, False], ids=["one host", "several hosts"])
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("world", TRANSPORTS, indirect=True)
def test_layers_are_those_of_the_whole_graph(
    tiny_graph: Graph,
    world: SingleProcess,
    shared_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share_directly: bool,
    depth: int,
) -> None:
    """What prediction writes: rows of some nodes, of all ranks one after the other."""
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 7)
    monkeypatch.setattr(tempfile, "tempdir", str(shared_path))
    sizes = (tiny_graph.num_features, 9, tiny_graph.num_classes)
    model = GraphSAGE(*sizes, layers=3, precision="fp64", seed=2)
    ids = np.arange(0, tiny_graph.num_nodes, 3)
    folder = cut(tiny_graph, world, shared_path, 3)
    absent = tiny_graph.without_indices()
    store = open_store(RunConfig(partitions=folder, fetch_window=2), absent, world)

    def rows_of(evaluator: ExactEvaluator) -> tuple[list[int], list[list[float]]]:
        nodes: list[int] = []
        rows: list[list[float]] = []

        def take(part: np.ndarray, found: np.ndarray) -> None:
            nodes.extend(part.tolist())
            rows.extend(found.tolist())

        evaluator.layer(depth, ids, take)
        return nodes, rows

    alone = ExactEvaluator(tiny_graph, SingleProcess(), Layers(model, feature_store(tiny_graph)))
    together = ExactEvaluator(absent, world, Layers(model, store), share_directly)
    expected = rows_of(alone)
    everyone = world.gather(rows_of(together))
    assert sum((nodes for nodes, _ in everyone), []) == expected[0] == ids.tolist()
    found = np.array(sum((rows for _, rows in everyone), []))
    np.testing.assert_allclose(found, np.array(expected[1]), rtol=1e-12, atol=1e-14)
