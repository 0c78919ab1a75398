"""Exact evaluation against one pass over the whole graph, on any number of simulated ranks."""

# ruff: noqa: E402
from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import UsageError
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.neighbourhood import chunks, reach, shares
from gnn_core.measure.metrics import Tally
from gnn_core.training import evaluate
from gnn_core.training.evaluate import ExactEvaluator, SampledEvaluator, tally_of
from gnn_core.training.tasks import feature_store
from gnn_core.training.world import Stopped, World
from horovod_gnn.evaluate import Layers
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import SingleProcess
from tests.unit.made_models import ISOLATED, made_model, odd_graph, sampled, table_of
from tests.unit.made_ranks import on_ranks

pytestmark = pytest.mark.needs_torch


@pytest.fixture(scope="module")
def graph() -> Graph:
    return odd_graph()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Chunks of a few nodes, and scratch files where the test can see them."""
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 5)
    monkeypatch.setattr(evaluate, "CHUNK_EDGES", 16)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def in_one_go(model: GraphSAGE, graph: Graph, split: str) -> Tally:
    """The tally of one pass over the whole graph."""
    everyone = np.arange(graph.num_nodes)
    blocks, nodes = sampled(graph, (-1,) * len(model.layers), everyone)
    with torch.no_grad():
        logits = model.eval()(table_of(graph), nodes, blocks)
    ids = graph.split(split)
    return tally_of(logits[ids].numpy(), graph.labels[ids])


def exact(
    graph: Graph, model: GraphSAGE, world: World, share_directly: bool | None = None
) -> ExactEvaluator:
    """An evaluator of the model."""
    return ExactEvaluator(graph, world, Layers(model, feature_store(graph)), share_directly)


def assert_same(ours: Tally, theirs: Tally, tolerance: float = 1e-12) -> None:
    assert (ours.count, ours.correct) == (theirs.count, theirs.correct)
    assert ours.loss_sum == pytest.approx(theirs.loss_sum, rel=tolerance)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("share_directly", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_exact_evaluation_is_one_pass_over_the_whole_graph(
    graph: Graph, layers: int, share_directly: bool, ranks: int, small_pieces: Path
) -> None:
    model = made_model("fp64", layers, dropout=0.5, input_dropout=0.5)

    def work(world: World) -> dict[str, Tally]:
        layers = Layers(model, feature_store(graph))
        evaluator = ExactEvaluator(graph, world, layers, share_directly)
        return evaluator.tallies(("train", "valid", "test"))

    expected = {split: in_one_go(model, graph, split) for split in ("train", "valid", "test")}
    for tallies in on_ranks(["here"] * ranks, work):
        assert list(tallies) == list(expected)
        for split, tally in tallies.items():
            assert tally.count == len(graph.split(split))
            assert_same(tally, expected[split])
    assert not list(small_pieces.iterdir())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max", "none"])
def test_every_aggregator(graph: Graph, aggregator: str, fused: bool) -> None:
    model = made_model("fp64", 2, aggregator=aggregator)
    model.fused = fused
    tallies = exact(graph, model, World()).tallies(("valid",))
    assert_same(tallies["valid"], in_one_go(model, graph, "valid"))
    assert not model.training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_precision(graph: Graph, precision: str) -> None:
    model = made_model(precision, 3)
    tallies = exact(graph, model, World()).tallies(("test",))
    theirs = in_one_go(model, graph, "test")
    assert tallies["test"].count == theirs.count
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    assert tallies["test"].loss_sum == pytest.approx(theirs.loss_sum, rel=tolerance)


def counting_threads(layers: Layers, used: set[int]) -> Layers:
    """The same layers, keeping account of the threads that run them."""
    infer = layers.infer_layer

    def counted(*args: Any) -> np.ndarray:
        used.add(threading.get_ident())
        time.sleep(0.001)  # so that no thread is done before the others begin
        return infer(*args)

    layers.infer_layer = counted  # type: ignore[method-assign]
    return layers


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("share_directly", [True, False])
def test_several_threads_give_the_same_to_the_last_bit(
    graph: Graph, share_directly: bool, fused: bool, ranks: int
) -> None:
    model = made_model("fp32", 3)
    model.fused = fused

    def tallies(threads: int) -> list[tuple[dict[str, Tally], int]]:
        def work(world: World) -> tuple[dict[str, Tally], int]:
            used: set[int] = set()
            layers = counting_threads(Layers(model, feature_store(graph)), used)
            evaluator = ExactEvaluator(graph, world, layers, share_directly, threads)
            return evaluator.tallies(("train", "valid", "test")), len(used)

        return on_ranks(["here"] * ranks, work)

    for (ours, several), (theirs, one) in zip(tallies(4), tallies(1), strict=True):
        assert ours == theirs
        assert one == 1
        assert several > 1


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stop_ends_it_between_two_parts(graph: Graph, threads: int) -> None:
    world, computed = World(), []
    layers = Layers(made_model(), feature_store(graph))

    def stop(*args: Any) -> np.ndarray:
        computed.append(args)
        world.stop_signal = 15
        return infer(*args)

    infer, layers.infer_layer = layers.infer_layer, stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        ExactEvaluator(graph, world, layers, None, threads).tallies(("test",))
    assert 1 <= len(computed) <= threads  # the parts that were under way, of a dozen


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_part_is_raised(graph: Graph, threads: int) -> None:
    def broken(*args: Any) -> np.ndarray:
        raise MemoryError("no room")

    layers = Layers(made_model(), feature_store(graph))
    layers.infer_layer = broken  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        ExactEvaluator(graph, World(), layers, None, threads).tallies(("test",))


def test_hosts_of_their_own_do_not_share_files(graph: Graph) -> None:
    def shares_files(world: World) -> bool:
        return exact(graph, made_model(), world)._direct

    assert on_ranks(["a", "a"], shares_files) == [True, True]
    assert on_ranks(["a", "b"], shares_files) == [False, False]


def test_no_layer_computes_a_node_twice(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: dict[int, Counter[int]] = {0: Counter(), 1: Counter(), 2: Counter()}
    infer = GraphSAGE.infer_layer

    def spy(self: Any, depth: int, states: Any, nodes: np.ndarray, block: Any) -> Any:
        computed[depth].update(nodes[: block.num_dst].tolist())
        return infer(self, depth, states, nodes, block)

    monkeypatch.setattr(GraphSAGE, "infer_layer", spy)
    model = made_model("fp64", 3)
    on_ranks(["here"] * 3, lambda world: exact(graph, model, world).tallies(("valid", "test")))
    targets = np.union1d(graph.split("valid"), graph.split("test"))
    for depth, needed in enumerate(reach(graph, targets, 2)):
        assert set(computed[depth]) == set(needed.tolist())
        assert set(computed[depth].values()) == {1}


@pytest.mark.parametrize("share_directly", [True, False])
def test_too_little_room_is_reported_before_it_is_needed(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, share_directly: bool, small_pieces: Path
) -> None:
    usage = shutil.disk_usage(small_pieces)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    model = made_model("fp64", 2)

    def work(world: World) -> str:
        with pytest.raises(UsageError) as caught:
            exact(graph, model, world, share_directly).tallies(("test",))
        return str(caught.value)

    messages = on_ranks(["here"] * 2, work)
    assert messages[0] == messages[1]
    assert "100 are free" in messages[0]
    assert "TMPDIR" in messages[0]
    assert "\n" not in messages[0]
    assert not list(small_pieces.iterdir())


def test_a_folder_that_cannot_be_written_is_reported(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, small_pieces: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_pieces / "missing"))
    with pytest.raises(UsageError, match="TMPDIR"):
        exact(graph, made_model(), World()).tallies(("test",))


def test_reach_of_nodes_without_edges() -> None:
    graph = odd_graph()
    alone = np.array(ISOLATED[:0:-1])
    needed = reach(graph, alone, 2)
    assert [ids.tolist() for ids in needed] == [sorted(alone.tolist())] * 3


def test_reach_is_all_that_is_read(graph: Graph) -> None:
    ids = np.array([30, 8, 40])
    needed = reach(graph, ids, 2)
    assert needed[2].tolist() == [8, 30, 40]
    for below, above in zip(needed, needed[1:], strict=False):
        read = {int(v) for v in above}
        for node in above:
            read |= set(graph.indices[graph.indptr[node] : graph.indptr[node + 1]].tolist())
        assert below.tolist() == sorted(read)


@pytest.mark.parametrize("ranks", [1, 2, 5, 100])
def test_shares_cover_everything_once(graph: Graph, ranks: int) -> None:
    ids = graph.split("train")
    bounds = shares(graph, ids, ranks)
    assert len(bounds) == ranks + 1
    assert (bounds[0], bounds[-1]) == (0, len(ids))
    assert (np.diff(bounds) >= 0).all()
    assert (shares(graph, ids[:0], ranks) == 0).all()


@pytest.mark.parametrize("most_edges", [0, 1, 9, 10_000])
def test_chunks_cover_everything_once_within_bounds(graph: Graph, most_edges: int) -> None:
    everyone = np.arange(graph.num_nodes)
    parts = chunks(graph, everyone, 7, most_edges)
    assert np.concatenate(parts).tolist() == everyone.tolist()
    for part in parts:
        edges = int((graph.indptr[part + 1] - graph.indptr[part]).sum())
        assert 1 <= len(part) <= 7
        assert edges <= most_edges or len(part) == 1
    assert chunks(graph, everyone[:0], 7, 9) == []


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_sampled_evaluation_counts_every_target_once(graph: Graph, ranks: int) -> None:
    layers = Layers(made_model("fp64", 2, dropout=0.5).eval(), feature_store(graph))

    def work(world: World) -> Tally:
        loader = Loader(
            graph,
            "test",
            (3, 2),
            4,
            seed=0,
            rank=world.rank,
            world_size=world.world_size,
            shuffle=False,
            prefetch=0,
        )
        evaluator = SampledEvaluator({"test": [loader]}, world, layers.logits_of)
        return evaluator.tallies(("test",))["test"]

    alone = on_ranks(["here"], work)[0]
    assert alone.count == len(graph.split("test"))
    for tally in on_ranks(["here"] * ranks, work):
        assert_same(tally, alone)


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_sampled_evaluation_with_a_loader_for_each_replica(
    graph: Graph, ranks: int, replicas: int
) -> None:
    """As a process that holds several replicas does; a replica has the slice of a rank."""
    model, table = made_model("fp64", 2).eval(), table_of(graph)

    @torch.no_grad()
    def logits_of(batch: Any) -> np.ndarray:
        return model(table, batch.input_nodes, batch.blocks)[: batch.num_real].numpy()

    def loader(which: int, of: int) -> Loader:
        return Loader(
            graph, "test", (3, 2), 4, seed=0, rank=which, world_size=of, shuffle=False, prefetch=0
        )

    def work(world: World) -> Tally:
        first = world.rank * replicas
        mine = [loader(first + i, ranks * replicas) for i in range(replicas)]
        evaluator = SampledEvaluator({"test": mine}, world, logits_of)
        return evaluator.tallies(("test",))["test"]

    layers = Layers(model, feature_store(graph))
    alone = SampledEvaluator({"test": [loader(0, 1)]}, World(), layers.logits_of).tallies(("test",))
    for tally in on_ranks(["here"] * ranks, work):
        assert_same(tally, alone["test"])
        assert tally.count == len(graph.split("test"))


def test_sums_over_one_process_are_what_it_brings() -> None:
    for world in (World(), SingleProcess()):
        assert world.sum(np.array([1.5, 2.0])).tolist() == [1.5, 2.0]
        assert world.broadcast(np.arange(3)).tolist() == [0, 1, 2]
        assert world.broadcast_bytes(b"some") == b"some"
        assert world.broadcast_bytes(b"") == b""


def test_a_tally_of_logits() -> None:
    logits = np.array([[0.0, 0.0], [5.0, -5.0], [-1.0, 3.0]], np.float32)
    tally = tally_of(logits, np.array([0, 0, 0]))
    expected = np.log(2) + np.log1p(np.exp(-10)) + np.log1p(np.exp(4))
    assert tally.loss_sum == pytest.approx(expected, rel=1e-6)
    assert (tally.correct, tally.count) == (2, 3)
    assert tally_of(logits[:0], np.empty(0, np.int64)) == Tally()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4, 1e30])
def test_a_tally_is_that_of_torch(dtype: type, scale: float) -> None:
    random = np.random.default_rng(5)
    logits = (random.normal(size=(400, 7)) * scale).astype(dtype)
    labels = random.integers(0, 7, 400).astype(np.int32)
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels).long(), reduction="sum"
    )
    tally = tally_of(logits, labels)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    assert tally.loss_sum == pytest.approx(float(theirs), rel=tolerance)
    assert tally.correct == int((torch.from_numpy(logits).argmax(1).numpy() == labels).sum())
    assert tally.count == 400


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_a_model_that_has_diverged_is_reported_by_its_loss(spoilt: float) -> None:
    logits = np.zeros((3, 2), np.float32)
    logits[1, 0] = spoilt
    assert not np.isfinite(tally_of(logits, np.array([0, 0, 0])).loss_sum)
