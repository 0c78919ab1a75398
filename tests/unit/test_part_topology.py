"""Neighbours that the owners of nodes draw: the blocks of one process, hop by hop, on any ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.exchange import Counters
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.neighbourhood import all_neighbours, count_loops, reach
from gnn_core.data.part_topology import PartTopology
from gnn_core.data.partition.folder import Partition
from gnn_core.data.partition.show import holdings
from gnn_core.data.partitioned_store import PartitionedStore, owned_parts, rank_bounds
from gnn_core.data.sampler import Sampler
from gnn_core.data.window_sampler import WindowSampler
from gnn_core.training.parts import partitioned_store, require_parts_suffice
from gnn_core.training.socket_transport import SocketTransport
from gnn_core.training.world import World
from gnn_core.usage import UsageError
from tests.unit.made_partitions import graph_on_disk, hash_partition
from tests.unit.made_ranks import on_ranks

NODES = 80


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return graph_on_disk(tmp_path / "graph", NODES, "float16")


def topology_of(graph: Graph, partition: Partition, rank: int, ranks: int) -> PartTopology:
    held = owned_parts(rank, partition.num_parts, ranks)
    return PartTopology(
        graph.without_indices(), partition, held, rank, rank_bounds(partition, ranks), window=3
    )


@contextlib.contextmanager
def store_of(
    graph: Graph, world: World, folder: Path, num_parts: int, **options: Any
) -> Iterator[PartitionedStore]:
    """The store of a rank, over connections; rank 0 writes the partition first."""
    if world.rank == 0:
        hash_partition(graph, num_parts, folder, topology=True)
    world.barrier()
    partition = Partition.open(folder, graph)
    topology = topology_of(graph, partition, world.rank, world.world_size)
    transport = topology.transport = SocketTransport(world, 20)
    held = owned_parts(world.rank, num_parts, world.world_size)
    yield PartitionedStore(partition, held, transport, topology=topology, **options)
    transport.close()


def assert_same_blocks(ours: Any, theirs: Any) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.num_src == other.num_src
        np.testing.assert_array_equal(mine.offsets, other.offsets)
        np.testing.assert_array_equal(mine.columns, other.columns)


@pytest.mark.parametrize(("ranks", "num_parts"), [(1, 3), (2, 1), (2, 5), (3, 2), (4, 4), (3, 90)])
@pytest.mark.parametrize("fanouts", [(3, 2), (2, -1, 1)])
def test_blocks_are_those_of_the_whole_graph(
    graph: Graph, tmp_path: Path, ranks: int, num_parts: int, fanouts: tuple[int, ...]
) -> None:
    """Of several steps at once; the ranks may have none, few or many targets in a step."""
    keys = [7, 2**64 - 1, 12]

    def work(world: World) -> Counters:
        random, counters = np.random.default_rng(world.rank), Counters()
        targets = [random.choice(NODES, 9 * one, replace=False) for one in (world.rank, 1, 2)]
        with store_of(graph, world, tmp_path / "parts", num_parts) as store:
            assert store.topology is not None
            sampler = WindowSampler(store.topology, fanouts, counters)
            whole = Sampler(graph, fanouts)
            for _ in range(2):
                found = sampler.sample(targets, keys)
                for (blocks, nodes), one, key in zip(found, targets, keys, strict=True):
                    expected, their_nodes = whole.sample(one, key)
                    assert_same_blocks(blocks, expected)
                    np.testing.assert_array_equal(nodes, their_nodes)
        return counters

    counters = on_ranks(["a"] * ranks, work)
    assert {one.sampling_rounds for one in counters} == {2 * len(fanouts)}
    assert (sum(one.sampled_nodes for one in counters) > 0) == (ranks > 1)
    assert all(one.sampling_bytes == 0 for one in counters) == (ranks == 1)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_loader_gives_the_same_batches(
    graph: Graph, tmp_path: Path, window: int, split: str
) -> None:
    splits = np.where(np.arange(NODES) % 2, 1, 2).astype(np.uint8)
    arrays = (graph.indptr, graph.indices, graph.features, graph.labels, splits)
    graph = Graph.from_arrays("made", *arrays)

    def work(world: World) -> list[list[int]]:
        with store_of(graph, world, tmp_path / "parts", 3, window=window) as store:
            assert store.topology is not None
            store.topology.window = window
            options = {"seed": 1, "rank": world.rank, "world_size": 2}
            plain = list(Loader(graph, split, (2, 3), 4, **options).batches(1))
            loader = Loader(graph.without_indices(), split, (2, 3), 4, **options, store=store)
            found = list(loader.batches(1))
            for ours, theirs in zip(found, plain, strict=True):
                assert_same_blocks(ours.blocks, theirs.blocks)
                assert (ours.key, ours.step) == (theirs.key, theirs.step)
                np.testing.assert_array_equal(ours.labels, theirs.labels)
            trains = split == "train"
            assert store.counters.sampling_rounds == trains * 2 * -(-len(found) // window)
            return [batch.input_nodes.tolist() for batch in found]

    assert on_ranks(["a", "b"], work)[0]


@pytest.mark.parametrize("leaves_after", [1, 2, 3, 5, 6, 20])
def test_all_ranks_leave_early_and_begin_again(
    graph: Graph, tmp_path: Path, leaves_after: int
) -> None:
    """One rank may draw the next windows already, the others are gone: each exchange has all."""

    def work(world: World) -> list[int]:
        options = {"seed": 1, "rank": world.rank, "world_size": 3}
        with store_of(graph, world, tmp_path / "parts", 3, window=2) as store:
            assert store.topology is not None
            store.topology.window = 2
            loader = Loader(graph.without_indices(), "train", (3, 2), 2, **options, store=store)
            for _ in range(3):
                batches = loader.batches(0)
                with contextlib.closing(batches), loader.giving_up_on_errors():
                    for count, _ in enumerate(batches, 1):
                        if count == leaves_after:
                            break
            return [batch.step for batch in loader.batches(0)]

    for steps in on_ranks(["a"] * 3, work):
        assert steps == list(range(14))


def test_a_warm_up_asks_nobody(graph: Graph, tmp_path: Path) -> None:
    """The batch has the shape of the real one: its kernels are compiled for that."""
    partition = hash_partition(graph, 2, tmp_path / "parts", topology=True)
    topology = topology_of(graph, partition, 0, 2)
    store = PartitionedStore(partition, [0], topology=topology)
    loader = Loader(graph.without_indices(), "train", (3,), 8, seed=1, prefetch=0, store=store)
    with store.standing_in():
        batch = loader.batch(0, 0)
    expected = Loader(graph, "train", (3,), 8, seed=1, prefetch=0).batch(0, 0)
    np.testing.assert_array_equal(batch.blocks[0].offsets, expected.blocks[0].offsets)
    with pytest.raises(RuntimeError, match="expected all parts"):
        loader.batch(0, 0)


@pytest.mark.parametrize(("ranks", "num_parts"), [(1, 1), (2, 5), (3, 2)])
def test_whole_neighbourhoods_of_own_nodes(
    graph: Graph, tmp_path: Path, ranks: int, num_parts: int
) -> None:
    partition = hash_partition(graph, num_parts, tmp_path / "parts", topology=True)
    everyone = np.arange(NODES)
    in_order = everyone[np.argsort(partition.place)]
    marked = np.zeros(NODES, np.bool_)
    for rank in range(ranks):
        topology = topology_of(graph, partition, rank, ranks)
        bounds = topology.shares(in_order)
        own = in_order[bounds[rank] : bounds[rank + 1]]
        block, nodes = topology.all_neighbours(own)
        expected, their_nodes = all_neighbours(graph, own)
        assert_same_blocks([block], [expected])
        np.testing.assert_array_equal(nodes, their_nodes)
        topology.mark_neighbours(np.array([3, 50]), marked)
    marked[[3, 50]] = True
    np.testing.assert_array_equal(np.flatnonzero(marked), reach(graph, np.array([3, 50]), 1)[0])


@pytest.mark.parametrize("topology", [False, True])
def test_what_a_host_holds_is_told(graph: Graph, tmp_path: Path, topology: bool) -> None:
    meta = hash_partition(graph, 2, tmp_path / "parts", topology=topology).meta
    told = holdings(meta | {"held": {"edges": [500, 300], "train": [1, 2]}})
    assert "labels and splits of all nodes (1.4 kB),\nand the neighbours of all nodes (3.2" in told
    assert ("unless it trains with --partition-topology" in told) == topology
    assert ("not stored" in told) != topology


def test_neighbours_that_are_not_there_are_no_nodes(graph: Graph) -> None:
    absent = graph.without_indices()
    assert not absent.has_indices and graph.has_indices
    assert (absent.num_nodes, absent.num_edges) == (graph.num_nodes, graph.num_edges)
    assert absent.fingerprint == graph.fingerprint and not absent.without_indices().has_indices
    for read in (
        lambda: all_neighbours(absent, np.arange(NODES)),
        lambda: reach(absent, np.arange(NODES), 1),
        lambda: Sampler(absent, (2,)).sample(np.arange(NODES), 1),
        lambda: count_loops(absent),
    ):
        with pytest.raises(UsageError, match="node ids from 0 to 79"):
            read()


def test_a_graph_opens_without_what_is_in_parts(graph: Graph, tmp_path: Path) -> None:
    assert graph.folder is not None
    (graph.folder / "indices.npy").unlink()
    with pytest.raises(UsageError, match="a file listed in meta.json, got no such file"):
        Graph.open(graph.folder)
    opened = Graph.open(graph.folder, verify=True, has_parts=True)
    assert not opened.has_indices and opened.num_edges == graph.num_edges
    (graph.folder / "features.npy").unlink()
    opened = Graph.open(graph.folder, verify=True, has_parts=True)
    assert not opened.has_features and graph.has_features
    assert opened.num_features == graph.num_features and opened.fingerprint == graph.fingerprint
    assert opened.features is not None and np.isnan(opened.features[-1]).all()
    with pytest.raises(UsageError, match="--task link .* expected features.npy of made there"):
        config = RunConfig(partitions="parts", task="link")
        require_parts_suffice(config, replace(opened, indices=graph.indices))
    (graph.folder / "labels.npy").unlink()
    with pytest.raises(UsageError, match="a file listed in meta.json, got no such file"):
        Graph.open(graph.folder, has_parts=True)


def test_rows_of_other_lengths_than_in_the_graph_are_refused(graph: Graph, tmp_path: Path) -> None:
    partition = hash_partition(graph, 2, tmp_path / "parts", topology=True)
    other = Graph.from_arrays("made", np.arange(NODES + 1), np.zeros(NODES, np.int32))
    with pytest.raises(UsageError, match="as many neighbours of each node as in the graph"):
        topology_of(other, partition, 0, 1)


@pytest.mark.parametrize(
    ("changes", "topology", "expected"),
    [
        ({}, False, "expected parts with adjacency rows, since .* has no indices.npy, got none"),
        ({"partition_topology": True}, False, "since --partition-topology reads them, got none"),
        ({"task": "link"}, True, "--task link draws from all edges .*; put it there"),
        (
            {"model": "gcn", "partition_topology": True},
            True,
            "--model gcn counts .*; leave out --partition-topology",
        ),
    ],
)
def test_runs_that_need_the_whole_graph_are_refused(
    graph: Graph, tmp_path: Path, changes: dict[str, Any], topology: bool, expected: str
) -> None:
    hash_partition(graph, 2, tmp_path / "parts", topology=topology)
    config = RunConfig(partitions=str(tmp_path / "parts"), **changes)
    absent = graph.without_indices()
    with pytest.raises(UsageError, match=expected) as caught:
        require_parts_suffice(config, absent)
        partitioned_store(config, absent, World())
    assert "\n" not in str(caught.value)
