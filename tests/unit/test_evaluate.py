"""Exact evaluation against one pass over the whole graph, on any number of simulated ranks."""

# ruff: noqa: E402
from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import UsageError
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.neighbourhood import chunks, reach, shares
from gnn_core.report.metrics import Tally
from horovod_gnn import evaluate
from horovod_gnn.evaluate import ExactEvaluator, SampledEvaluator, tally_of
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import OneProcess, Stopped
from tests.unit.made_models import ISOLATED, made_model, odd_graph, sampled, table_of

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


class Meeting:
    """Where threads that play ranks exchange what each brings."""

    def __init__(self, world_size: int):
        self.barrier = threading.Barrier(world_size, timeout=20)
        self.brought: list[Any] = [None] * world_size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.brought[rank] = value
        self.barrier.wait()
        result = list(self.brought)
        self.barrier.wait()
        return result


class ThreadRank(OneProcess):
    """A rank that is a thread."""

    def __init__(self, rank: int, meeting: Meeting, hosts: list[str]):
        super().__init__()
        self.rank, self.world_size = rank, len(hosts)
        self.rank_hosts = hosts
        self._meeting = meeting

    def gather(self, value: Any) -> list[Any]:
        return self._meeting.exchange(self.rank, value)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        parts = self._meeting.exchange(self.rank, tensor.clone())
        return tensor.copy_(torch.stack(parts).sum(0))

    def broadcast_(self, tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
        return tensor.copy_(self._meeting.exchange(self.rank, tensor.clone())[root])


def on_ranks(hosts: list[str], work: Callable[[OneProcess], Any]) -> list[Any]:
    """What `work` returns on each rank; an exception of one rank is raised here."""
    meeting = Meeting(len(hosts))
    results: list[Any] = [None] * len(hosts)

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadRank(rank, meeting, hosts))
        except Exception as error:
            meeting.barrier.abort()
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [r for r in results if isinstance(r, Exception)]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return results


def in_one_go(model: GraphSAGE, graph: Graph, split: str) -> Tally:
    """The tally of one pass over the whole graph."""
    everyone = np.arange(graph.num_nodes)
    blocks, nodes = sampled(graph, (-1,) * len(model.layers), everyone)
    with torch.no_grad():
        logits = model.eval()(table_of(graph), nodes, blocks)
    ids = graph.split(split)
    return tally_of(logits[ids], torch.from_numpy(graph.labels[ids]).long())


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

    def work(parallel: OneProcess) -> dict[str, Tally]:
        evaluator = ExactEvaluator(graph, table_of(graph), parallel, share_directly)
        return evaluator.tallies(model, ("train", "valid", "test"))

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
    tallies = ExactEvaluator(graph, table_of(graph), OneProcess()).tallies(model, ("valid",))
    assert_same(tallies["valid"], in_one_go(model, graph, "valid"))
    assert not model.training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_precision(graph: Graph, precision: str) -> None:
    model = made_model(precision, 3)
    tallies = ExactEvaluator(graph, table_of(graph), OneProcess()).tallies(model, ("test",))
    theirs = in_one_go(model, graph, "test")
    assert tallies["test"].count == theirs.count
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    assert tallies["test"].loss_sum == pytest.approx(theirs.loss_sum, rel=tolerance)


def test_a_stop_ends_it_between_two_parts(graph: Graph) -> None:
    parallel = OneProcess()
    parallel.stop_signal = 15
    with pytest.raises(Stopped):
        ExactEvaluator(graph, table_of(graph), parallel).tallies(made_model(), ("test",))


def test_hosts_of_their_own_do_not_share_files(graph: Graph) -> None:
    def shares_files(parallel: OneProcess) -> bool:
        return ExactEvaluator(graph, table_of(graph), parallel)._direct

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
    on_ranks(
        ["here"] * 3,
        lambda parallel: ExactEvaluator(graph, table_of(graph), parallel).tallies(
            model, ("valid", "test")
        ),
    )
    targets = np.union1d(graph.split("valid"), graph.split("test"))
    for depth, needed in enumerate(reach(graph, targets, 2)):
        assert set(computed[depth]) == set(needed.tolist())
        assert set(computed[depth].values()) == {1}


@pytest.mark.parametrize("share_directly", [True, False])
def test_too_little_room_is_told_before_it_is_needed(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, share_directly: bool, small_pieces: Path
) -> None:
    usage = shutil.disk_usage(small_pieces)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    model = made_model("fp64", 2)

    def work(parallel: OneProcess) -> str:
        with pytest.raises(UsageError) as caught:
            ExactEvaluator(graph, table_of(graph), parallel, share_directly).tallies(
                model, ("test",)
            )
        return str(caught.value)

    messages = on_ranks(["here"] * 2, work)
    assert messages[0] == messages[1]
    assert "100 are free" in messages[0]
    assert "TMPDIR" in messages[0]
    assert "\n" not in messages[0]
    assert not list(small_pieces.iterdir())


def test_a_folder_that_cannot_be_written_is_told(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, small_pieces: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_pieces / "missing"))
    with pytest.raises(UsageError, match="TMPDIR"):
        ExactEvaluator(graph, table_of(graph), OneProcess()).tallies(made_model(), ("test",))


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
    model = made_model("fp64", 2, dropout=0.5)

    def work(parallel: OneProcess) -> Tally:
        loader = Loader(
            graph, "test", (3, 2), 4, seed=0, rank=parallel.rank, world_size=parallel.world_size,
            shuffle=False, prefetch=0,
        )  # fmt: skip
        evaluator = SampledEvaluator({"test": loader}, table_of(graph), parallel)
        return evaluator.tallies(model, ("test",))["test"]

    alone = on_ranks(["here"], work)[0]
    assert alone.count == len(graph.split("test"))
    for tally in on_ranks(["here"] * ranks, work):
        assert_same(tally, alone)


def test_a_tally_of_logits() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0], [-1.0, 3.0]])
    tally = tally_of(logits, torch.tensor([0, 0, 0]))
    expected = np.log(2) + np.log1p(np.exp(-10)) + np.log1p(np.exp(4))
    assert tally.loss_sum == pytest.approx(expected, rel=1e-6)
    assert (tally.correct, tally.count) == (2, 3)
    assert tally_of(logits[:0], torch.empty(0, dtype=torch.long)) == Tally()
