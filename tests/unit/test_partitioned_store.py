"""Rows from the parts of other ranks: the bytes, the rounds, the cache, and leaving early."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data import exchange
from gnn_core.data.batch import Batch, Block
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.partition.folder import Partition
from gnn_core.data.partitioned_store import PartitionedStore, owned_parts, rank_bounds
from gnn_core.data.row_cache import RowCache
from gnn_core.training.socket_transport import SocketTransport
from gnn_core.training.world import World
from gnn_core.usage import Lost
from tests.unit.made_partitions import graph_on_disk, hash_partition
from tests.unit.made_ranks import on_ranks


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return graph_on_disk(tmp_path / "graph", 80, "float16")


@contextlib.contextmanager
def store_of(
    graph: Graph, world: World, folder: Path, num_parts: int, **options: Any
) -> Iterator[PartitionedStore]:
    """The store of a rank, over connections; rank 0 writes the partition first."""
    if world.rank == 0:
        hash_partition(graph, num_parts, folder)
    world.barrier()
    partition = Partition.open(folder, graph)
    held = owned_parts(world.rank, num_parts, world.world_size)
    transport = SocketTransport(world, 20)
    yield PartitionedStore(partition, held, transport, **options)
    transport.close()


def batch_of(ids: np.ndarray) -> Batch:
    """A batch that reads these rows."""
    block = Block(np.zeros(1, np.int32), np.zeros(0, np.int32), len(ids))
    return Batch((block,), ids, ids[:0], np.zeros(0, np.int32), 0, 0, 0, 0, 0)


def rows_of(store: PartitionedStore, ids: np.ndarray) -> np.ndarray:
    out = np.empty((len(ids), store.width), store.dtype)
    store.gather(ids, out)
    return out


def drawn_ids(rank: int, num_batches: int, num_nodes: int = 80) -> list[np.ndarray]:
    """Ids of batches, some of them none, other ones on each rank."""
    random = np.random.default_rng(rank)
    return [
        random.choice(num_nodes, random.integers(0, 30), replace=False) for _ in range(num_batches)
    ]


@pytest.mark.parametrize(("ranks", "num_parts"), [(2, 1), (2, 2), (2, 5), (3, 2), (4, 4), (3, 90)])
@pytest.mark.parametrize(("window", "cache_rows"), [(1, 0), (3, 7), (8, 1000)])
def test_rows_are_those_of_the_table(
    graph: Graph, tmp_path: Path, ranks: int, num_parts: int, window: int, cache_rows: int
) -> None:
    """Of batches in windows, read when they come or later, and of uneven chunks; k > nodes too."""
    assert isinstance(graph.features, np.ndarray)
    table = graph.features
    options = {"window": window, "cache_bytes": cache_rows * table.shape[1] * 2}

    def work(world: World) -> Any:
        with store_of(graph, world, tmp_path / "parts", num_parts, **options) as store:
            for _ in range(2):  # epochs
                drawn = drawn_ids(world.rank, 10)
                late: list[np.ndarray] = []
                behind = 2
                arriving = store.arriving((batch_of(ids) for ids in drawn), behind, counts=True)
                with contextlib.closing(arriving):
                    for batch in arriving:
                        late.append(batch.input_nodes)
                        found = rows_of(store, late[-behind - 1 :][0])
                        assert found.tobytes() == table[late[-behind - 1 :][0]].tobytes()
                assert len(late) == 10
            chunks = drawn_ids(world.rank, 3 * world.rank)
            for chunk in store.arriving_chunks(chunks, lambda chunk: chunk):
                assert rows_of(store, chunk).tobytes() == table[chunk].tobytes()
            return store.counters

    counters = on_ranks(["a"] * ranks, work)
    assert {(one.steps, one.rounds) for one in counters} == {(20, 2 * -(-10 // window))}
    for one in counters:
        assert one.needed_rows <= one.remote_rows <= one.input_rows
        if not cache_rows:
            assert one.rows_received == one.needed_rows and one.cached_rows == 0
    assert sum(one.remote_rows for one in counters) > 0
    assert any(one.cached_rows for one in counters) == bool(cache_rows)


@pytest.mark.parametrize("leaves_after", [1, 4, 5, 9, 10])
def test_all_ranks_leave_early_and_begin_again(
    graph: Graph, tmp_path: Path, leaves_after: int
) -> None:
    def work(world: World) -> int:
        seen = 0
        with store_of(graph, world, tmp_path / "parts", 3, window=2) as store:
            for _ in range(3):
                drawn = (batch_of(ids) for ids in drawn_ids(world.rank, 10))
                arriving = store.arriving(drawn)
                with contextlib.closing(arriving), store.giving_up_on_errors():
                    for count, batch in enumerate(arriving, 1):
                        rows_of(store, batch.input_nodes)
                        seen += 1
                        if count == leaves_after:
                            break
        return seen

    assert on_ranks(["a"] * 3, work) == [3 * leaves_after] * 3


def test_an_error_on_one_rank_does_not_keep_it_waiting(graph: Graph, tmp_path: Path) -> None:
    """The others may still wait for it: they learn that it has gone when its connection ends."""
    failed = threading.Event()

    def work(world: World) -> str:
        with store_of(graph, world, tmp_path / "parts", 2, window=1) as store:
            drawn = (batch_of(ids) for ids in drawn_ids(world.rank, 10))
            arriving = store.arriving(drawn)
            try:
                with contextlib.closing(arriving), store.giving_up_on_errors():
                    for _ in arriving:
                        if world.rank == 1:
                            raise ZeroDivisionError
                return "trained"
            except ZeroDivisionError:
                failed.set()
                return "failed"
            except Lost as error:
                assert failed.is_set()
                return str(error)

    others, own = on_ranks(["a", "a"], work)
    assert own == "failed"
    assert others.startswith("rank 1 answers no more")


def test_many_rows_come_in_several_rounds(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(graph.features, np.ndarray)
    table = graph.features
    monkeypatch.setattr(exchange, "_MOST_BYTES", 4 * table.shape[1] * 2)  # four rows

    def work(world: World) -> int:
        with store_of(graph, world, tmp_path / "parts", 2, window=4) as store:
            ids = np.arange(80) if world.rank == 0 else np.arange(3)
            for batch in store.arriving(iter([batch_of(ids)]), counts=True):  # type: ignore
                assert rows_of(store, batch.input_nodes).tobytes() == table[ids].tobytes()
            return store.counters.rounds

    assert len(set(on_ranks(["a", "a"], work))) == 1


def test_rows_that_were_not_fetched_are_no_zeros(graph: Graph, tmp_path: Path) -> None:
    partition = hash_partition(graph, 2, tmp_path / "parts")
    store = PartitionedStore(partition, [0])
    ids = np.arange(80)
    with pytest.raises(RuntimeError, match="before they were fetched"):
        rows_of(store, ids)
    with store.standing_in():
        found = rows_of(store, ids)
    assert isinstance(graph.features, np.ndarray)
    own = partition.owners(ids) == 0
    assert found[own].tobytes() == graph.features[own].tobytes()
    assert not found[~own].any()


def test_all_parts_in_one_process_are_a_table(graph: Graph, tmp_path: Path) -> None:
    store = PartitionedStore(hash_partition(graph, 3, tmp_path / "parts"), range(3))
    assert isinstance(graph.features, np.ndarray)
    ids = np.array([5, 79, 5, 0])
    assert rows_of(store, ids).tobytes() == graph.features[ids].tobytes()
    assert not store.exchanges and store.exchanged()["transport"] == "none"
    with pytest.raises(IndexError):
        rows_of(store, np.array([80]))


def test_parts_of_ranks_are_their_bounds(graph: Graph, tmp_path: Path) -> None:
    for num_parts in (1, 2, 3, 7):
        partition = hash_partition(graph, num_parts, tmp_path / "parts")
        for ranks in (1, 2, 3, 5, 8):
            bounds = rank_bounds(partition, ranks)
            owned = [list(owned_parts(rank, num_parts, ranks)) for rank in range(ranks)]
            assert sum(owned, []) == list(range(num_parts))
            for rank, parts in enumerate(owned):
                assert all(part * ranks // num_parts == rank for part in parts)
                sizes = sum(partition.part_nodes(part) for part in parts)
                assert bounds[rank + 1] - bounds[rank] == sizes


def test_a_cache_keeps_what_is_read_next() -> None:
    """Against a dictionary, over many random updates."""
    random, cache = np.random.default_rng(0), RowCache(9, 2)
    expected: dict[int, bytes] = {}
    for _ in range(200):
        others = np.setdiff1d(random.choice(40, random.integers(0, 15), replace=False), [*expected])
        rows = random.integers(0, 256, (len(others), 2), np.uint8)
        known = expected | {int(p): row.tobytes() for p, row in zip(others, rows, strict=True)}
        places, key = np.array(sorted(known), np.int64), random.permutation(len(known))
        cache.keep_best(places, rows, key.astype(float))
        expected = {int(p): known[int(p)] for p in places[key < 9]}
        assert cache.places.tolist() == sorted(expected)
        asked = np.arange(40)
        cached, missing = cache.split(asked)
        assert cached.tolist() == sorted(expected) and len(cached) + len(missing) == 40
        out = np.zeros((40, 2), np.uint8)
        cache.read(asked[cached], cached, out)
        assert {int(p): out[p].tobytes() for p in cached} == expected


def test_a_known_next_use_needs_fewer_rows_than_a_fixed_set(graph: Graph, tmp_path: Path) -> None:
    """The cache holds what the next window reads, where that fits."""

    def work(world: World) -> tuple[int, int]:
        row = graph.num_features * 2
        ids = [np.arange(0, 80, 5) + step // 2 % 5 for step in range(40)]
        options = {"window": 1, "cache_bytes": 12 * row}
        with store_of(graph, world, tmp_path / "parts", 2, **options) as store:
            for _ in store.arriving((batch_of(one) for one in ids), counts=True):
                pass
            return store.counters.cached_rows, store.counters.needed_rows

    for cached, needed in on_ranks(["a", "a"], work):
        assert cached > 0.45 * needed  # each row is read in two steps, one after the other


def test_a_loader_gives_the_same_batches(graph: Graph, tmp_path: Path) -> None:
    def work(world: World) -> list[list[int]]:
        with store_of(graph, world, tmp_path / "parts", 2, window=3) as store:
            options = {"seed": 1, "rank": world.rank, "world_size": 2}
            plain = [
                b.input_nodes.tolist()
                for b in Loader(graph, "train", (2,), 4, **options).batches(0)
            ]
            loader = Loader(graph, "train", (2,), 4, **options, store=store)
            found = [batch.input_nodes.tolist() for batch in loader.batches(0)]
            assert found == plain
            assert store.counters.steps == loader.num_steps
            return found

    assert on_ranks(["a", "a"], work)[0]
