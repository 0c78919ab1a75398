"""Exact evaluation gives the same sums on any ranks, on shared files and by exchanging rows."""

# ruff: noqa: E402
from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import Tally
from gnn_core.training import evaluate
from gnn_core.training.evaluate import ExactEvaluator
from gnn_core.training.tasks import feature_store
from gnn_core.training.world import Stopped
from horovod_gnn.evaluate import Layers
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import SingleProcess

pytestmark = pytest.mark.needs_torch
SPLITS = ("train", "valid", "test")


def layers_of(graph: Graph, precision: str) -> Layers:
    model = GraphSAGE(
        graph.num_features, 9, graph.num_classes, layers=3, precision=precision, seed=2
    )
    return Layers(model, feature_store(graph))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("share_directly", [True, False], ids=["one file", "exchange"])
def test_tallies_are_those_of_one_process(
    tiny_graph: Graph,
    parallel: SingleProcess,
    monkeypatch: pytest.MonkeyPatch,
    share_directly: bool,
    precision: str,
) -> None:
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 7)  # so that a share is exchanged in pieces
    layers = layers_of(tiny_graph, precision)
    alone = ExactEvaluator(tiny_graph, SingleProcess(), layers).tallies(SPLITS)
    together = ExactEvaluator(tiny_graph, parallel, layers, share_directly).tallies(SPLITS)
    for split in SPLITS:
        assert together[split].count == alone[split].count == len(tiny_graph.split(split))
        assert together[split].correct == alone[split].correct
        tolerance = 1e-12 if precision == "fp64" else 1e-5
        assert together[split].loss == pytest.approx(alone[split].loss, rel=tolerance)


def test_every_rank_has_the_sums_of_all(tiny_graph: Graph, parallel: SingleProcess) -> None:
    evaluator = ExactEvaluator(tiny_graph, parallel, layers_of(tiny_graph, "fp32"))
    tallies = evaluator.tallies(SPLITS)
    sums = {split: _numbers(tally) for split, tally in tallies.items()}
    assert parallel.gather(sums) == [sums] * parallel.world_size


def test_a_signal_to_one_rank_ends_the_evaluation_of_all(
    tiny_graph: Graph, together: SingleProcess
) -> None:
    evaluator = ExactEvaluator(tiny_graph, together, layers_of(tiny_graph, "fp32"))
    if together.rank == together.world_size - 1:
        together.stop_signal = signal.SIGTERM
    with pytest.raises(Stopped):
        evaluator.tallies(SPLITS)
    together.stop_signal = None
    assert together.gather(together.stops_together) == [True] * together.world_size


@pytest.mark.parametrize("share_directly", [True, False], ids=["one file", "exchange"])
def test_no_file_is_left_behind(
    tiny_graph: Graph,
    parallel: SingleProcess,
    shared_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share_directly: bool,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shared_path))
    layers = layers_of(tiny_graph, "fp32")
    ExactEvaluator(tiny_graph, parallel, layers, share_directly).tallies(("valid",))
    parallel.barrier()
    assert list(shared_path.iterdir()) == []


def _numbers(tally: Tally) -> list[float]:
    return [float(value) for value in tally.to_vector()]
