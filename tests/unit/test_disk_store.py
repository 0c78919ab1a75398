"""Features on disk: the rows of a table in memory, whatever the cache; files that are damaged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data import disk_reads
from gnn_core.data.batch import Batch, Block
from gnn_core.data.disk_store import DiskStore
from gnn_core.data.feature_store import Lent, TableStore
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.planned_cache import PlannedCache
from gnn_core.usage import UsageError

WIDTH = 10


def table_in(
    folder: Path, rows: int = 1000, width: int = WIDTH, dtype: npt.DTypeLike = np.float32
) -> np.memmap:
    """A table of random bits in a file."""
    values = np.random.default_rng(3).integers(0, 60_000, (rows, width))
    np.save(folder / "features.npy", values.astype(dtype))
    table = np.load(folder / "features.npy", mmap_mode="r")
    assert isinstance(table, np.memmap)
    return table


def cache_of(table: np.memmap, rows: int) -> int:
    """Bytes of a cache that holds so many rows."""
    row_bytes = table.shape[1] * table.itemsize
    return PlannedCache.bytes_of(len(table), row_bytes, rows)


def gathered(store: DiskStore, ids: npt.ArrayLike) -> npt.NDArray[Any]:
    wanted = np.asarray(ids)
    out = np.zeros((len(wanted), store.width), store.dtype)
    store.gather(wanted, out)
    return out


def lent_rows(store: DiskStore, ids: npt.NDArray[np.int64]) -> Lent:
    wait = store.lend_ahead(ids)
    assert wait is not None
    return wait()


@pytest.mark.parametrize("cached", [0, 1, 37, 1000])
@pytest.mark.parametrize(
    ("dtype", "direct", "threads"),
    [
        (np.float32, True, 32),
        (np.float16, True, 1),
        (np.uint16, False, 8),
        (np.float32, False, 1),
        (np.float32, True, None),
        (np.float16, True, None),
    ],
)
def test_rows_are_those_of_the_table(
    tmp_path: Path, cached: int, dtype: type, direct: bool, threads: int | None
) -> None:
    """Repeated, in any order, the first and the last of the file; over many rounds of the cache."""
    table = table_in(tmp_path, dtype=dtype)
    store = DiskStore(table, cache_of(table, cached) if cached else 0, threads, direct)
    assert (store.cache.num_slots if store.cache else 0) == cached
    in_memory = TableStore(np.array(table))
    random = np.random.default_rng(4)
    for size in (1, 3, 700, 1500, 0, 1000):
        ids = np.append(random.integers(0, 1000, size), [999, 0, 999])
        out = np.zeros((len(ids), WIDTH), dtype)
        in_memory.gather(ids, out)
        assert gathered(store, ids).tobytes() == out.tobytes()
    found = store.reads()
    assert found.rows == 3 + 3 * 5 + 1 + 3 + 700 + 1500 + 1000
    assert found.reads > 0
    assert (found.hits == store.hits == 0) == (cached == 0)


@pytest.mark.parametrize("width", [1, 1023, 1024, 1025, 200_000])
@pytest.mark.parametrize("threads", [None, 4])
def test_rows_of_any_length_are_read(tmp_path: Path, width: int, threads: int | None) -> None:
    """Within a block, as long as one, and longer than a read usually is."""
    table = table_in(tmp_path, 7, width)
    ids = [6, 0, 3, 3]
    assert gathered(DiskStore(table, 0, threads), ids).tobytes() == table[ids].tobytes()


def test_more_reads_than_the_queue_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_reads, "QUEUE_DEPTH", 3)
    table = table_in(tmp_path, 1000, 3000)  # rows of 12 kB, so that each is a read
    store = DiskStore(table)
    ids = np.random.default_rng(7).permutation(1000)[:300] // 2 * 2
    assert gathered(store, ids).tobytes() == table[ids].tobytes()
    assert store.reader.reads >= 200


def test_where_reads_are_not_queued_threads_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_reads.QueuedReads, "of", lambda *size: None)
    table = table_in(tmp_path)
    store = DiskStore(table)
    assert gathered(store, [5, 999]).tobytes() == table[[5, 999]].tobytes()
    assert store.reader.reads == 2


def test_neighbouring_rows_are_one_read(tmp_path: Path) -> None:
    """So are rows with a little between them; what is far away is another."""
    table = table_in(tmp_path, 100_000, 16)  # 64 bytes a row
    store = DiskStore(table)
    gathered(store, np.arange(640, 1280))
    assert store.reader.reads <= 2 * disk_reads.READ_THREADS
    for threads in (1, None):
        store = DiskStore(table, threads=threads)
        gathered(store, np.arange(640, 1280))
        assert store.reader.reads == 1
        assert 40_960 <= store.reader.bytes_read <= 40_960 + 2 * 4096
        gathered(store, [3, 30])
        assert store.reader.reads == 2
        gathered(store, [3, 3000])
        assert store.reader.reads == 4


def test_what_is_cached_is_not_read_again(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 1000))
    gathered(store, np.arange(1000))
    reads = store.reader.reads
    gathered(store, np.arange(999, -1, -1))
    assert (store.reader.reads, store.hits) == (reads, 1000)
    assert store.reads().cache_bytes == cache_of(table, 1000)


def test_rows_that_are_asked_for_often_are_kept(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 50))
    often = np.arange(0, 1000, 20)
    random = np.random.default_rng(5)
    for _ in range(60):
        gathered(store, np.append(random.integers(0, 1000, 100), often))
    hits = store.hits
    gathered(store, often)
    assert store.hits - hits >= 45


def test_a_cache_takes_no_more_than_it_may(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    for allowed in (0, 100, 4999, 5048, 30_000, 10_000_000):
        store = DiskStore(table, allowed)
        values = vars(store.cache or store).values()
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        held = sum(array.nbytes for array in arrays) - 32 * bool(arrays)  # without four counters
        assert held == store.cache_bytes <= allowed


def batches_of(asked: Iterable[npt.NDArray[np.int64]]) -> Generator[Batch]:
    for step, ids in enumerate(asked):
        block = Block(np.zeros(2, np.int32), np.empty(0, np.int32), len(ids))
        labels = np.zeros(1, np.int32)
        yield Batch((block,), ids, ids[:1], labels, 1, 1, epoch=0, step=step, key=0)


def test_rows_that_batches_drawn_ahead_read_are_kept(tmp_path: Path) -> None:
    """Each row is read in two steps, two apart: how often it was asked for does not tell."""
    table = table_in(tmp_path, width=200)
    parts = np.random.default_rng(8).permutation(1000).reshape(25, 40)
    asked = [np.append(parts[step], parts[step - 2]) for step in range(2, 25)]
    hits = []
    for plans in (False, True):
        store = DiskStore(table, cache_of(table, 250))
        for batch in store.arriving(batches_of(asked)) if plans else batches_of(asked):
            rows = gathered(store, batch.input_nodes)
            assert rows.tobytes() == table[batch.input_nodes].tobytes()
        hits.append(store.hits)
    assert hits[1] > 700, "of 840 rows that had been read before"
    assert hits[0] < 350


def test_batches_are_drawn_as_far_ahead_as_the_cache_has_room(tmp_path: Path) -> None:
    table = table_in(tmp_path, width=200)
    store = DiskStore(table, cache_of(table, 500))
    random, drawn = np.random.default_rng(9), []

    def asked() -> Iterator[npt.NDArray[np.int64]]:
        for step in range(30):
            drawn.append(step)
            yield random.permutation(1000)[:100]

    ahead = []
    for given, batch in enumerate(store.arriving(batches_of(asked())), 1):
        gathered(store, batch.input_nodes)
        ahead.append(len(drawn) - given)
    assert len(ahead) == 30
    assert ahead[0] == 0, "the first step does not wait for others"
    assert 4 <= max(ahead) <= 12


def test_what_was_announced_and_never_read_is_forgotten() -> None:
    cache, rows = PlannedCache(1000, 100, 4), np.zeros((100, 4), np.uint8)

    def num_missing(ids: npt.NDArray[np.int64]) -> int:
        missing = cache.take(ids, rows)
        cache.keep(ids[missing], missing, rows)
        return len(missing)

    announced, others = np.arange(100), np.arange(500, 600)
    cache.announce(announced)
    assert num_missing(announced) == 100
    assert [num_missing(others) for _ in range(10)] == [100] * 10
    cache.forget_steps()
    assert [num_missing(others) for _ in range(10)][-1] < 10


def test_batches_are_closed_by_whoever_leaves_early(tmp_path: Path) -> None:
    table, closed = table_in(tmp_path), []
    store = DiskStore(table, cache_of(table, 100))

    def batches() -> Generator[Batch]:
        try:
            yield from batches_of(np.arange(step, step + 50) for step in range(10))
        finally:
            closed.append(True)

    with contextlib.closing(store.arriving(batches())) as arriving:
        next(arriving)
    assert closed == [True]


def test_rows_are_lent_where_they_lie(tmp_path: Path) -> None:
    """Up to what the cache holds; lent rows stay what they are while others come."""
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 300))
    random = np.random.default_rng(10)
    held: list[tuple[Lent, npt.NDArray[np.int64]]] = []
    for _ in range(50):
        ids = random.permutation(1000)[:90]
        held.append((lent_rows(store, ids), ids))
        gathered(store, random.integers(0, 1000, 50))
        for lent, of in held:
            assert lent.rows[lent.at].tobytes() == table[of].tobytes()
        if len(held) == 3:
            held.pop(0)[0].give_back()
    assert {len(lent.rows) for lent, _ in held} == {300}, "no copy"
    assert store.hits > 0.2 * 50 * 140


def test_rows_beyond_the_cache_are_copied(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 100))
    first, second = np.arange(80), np.arange(40, 120)
    lent = [lent_rows(store, first), lent_rows(store, second)]
    assert [len(one.rows) for one in lent] == [100, 80]
    for one, ids in zip(lent, (first, second), strict=True):
        assert one.rows[one.at].tobytes() == table[ids].tobytes()
        one.give_back()
    assert len(lent_rows(store, second).rows) == 100
    assert DiskStore(table).lend_ahead(first) is None


def test_what_was_never_given_back_is_free_in_the_next_epoch(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 100))
    old = lent_rows(store, np.arange(100))
    assert len(lent_rows(store, np.arange(100, 150)).rows) == 50, "a copy"
    assert list(store.arriving(batches_of([]))) == []
    new = lent_rows(store, np.arange(200, 250))
    assert len(new.rows) == 100
    old.give_back()  # too late to do harm
    gathered(store, np.arange(300, 400))
    assert new.rows[new.at].tobytes() == table[200:250].tobytes()


def test_threads_may_gather_at_the_same_time(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table, cache_of(table, 200))
    random = np.random.default_rng(6)
    asked = [random.integers(0, 1000, 300) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for ids, rows in zip(asked, pool.map(lambda ids: gathered(store, ids), asked), strict=True):
            assert rows.tobytes() == table[ids].tobytes()
    assert store.reads().rows == 40 * 300


def test_rows_come_ahead(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    store = DiskStore(table)
    ids = [np.arange(first, 1000, 7) for first in range(5)]
    outs = [np.zeros((len(one), WIDTH), np.float32) for one in ids]
    waits = [store.gather_ahead(one, out) for one, out in zip(ids, outs, strict=True)]
    for wait, one, out in zip(waits, ids, outs, strict=True):
        wait()
        wait()  # whoever waits again waits for nothing
        assert out.tobytes() == table[one].tobytes()


def test_a_file_that_refuses_o_direct_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_in(tmp_path)

    def refused(*args: Any) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "preadv", refused)
    store = DiskStore(table)
    assert not store.reads().direct
    assert gathered(store, [5, 999]).tobytes() == table[[5, 999]].tobytes()


def test_an_id_that_is_not_there_is_refused(tmp_path: Path) -> None:
    store = DiskStore(table_in(tmp_path))
    with pytest.raises(IndexError, match=r"expected node ids in 0 \.\. 999"):
        gathered(store, [3, 1000])


def test_a_file_shorter_than_its_table_is_refused(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    os.truncate(tmp_path / "features.npy", 20_000)
    with pytest.raises(UsageError, match=r"features\.npy: expected all rows .*, got 20,000 bytes"):
        DiskStore(table)
    (tmp_path / "features.npy").unlink()
    with pytest.raises(UsageError, match=r"features\.npy: expected a file of features"):
        DiskStore(table)


def test_a_file_that_is_cut_meanwhile_is_named(tmp_path: Path) -> None:
    store = DiskStore(table_in(tmp_path))
    os.truncate(tmp_path / "features.npy", 20_000)
    assert gathered(store, np.arange(400)).any()
    out = np.empty((1000, WIDTH), np.float32)
    wait = store.gather_ahead(np.arange(1000), out)
    with pytest.raises(UsageError, match=r"features\.npy: .*20,000 bytes: it was cut while") as why:
        wait()
    assert "\n" not in str(why.value)


def test_an_error_of_the_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskStore(table_in(tmp_path))
    os.truncate(tmp_path / "features.npy", 20_000)  # so that the read fails

    def broken(file: int, size: int, start: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(UsageError, match=r"Input/output error at byte [0-9,]+; check the disk"):
        gathered(store, [3, 999])


@pytest.mark.needs_torch
@pytest.mark.parametrize("cache", ["0", "1KiB", "1MiB"])
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp64"},
        {"precision": "fp64", "prefetch": 0, "input_dropout": 0.0},
        {"precision": "fp64", "model": "gcn", "eval": "sampled"},
    ],
    ids=["fused", "in the loop", "gcn, sampled evaluation"],
)
def test_the_curve_is_that_of_features_in_memory(
    tiny_graph: Graph, tmp_path: Path, changes: dict[str, Any], cache: str
) -> None:
    pytest.importorskip("torch")
    from tests.unit.test_learner import assert_equal, made_learner, train

    graph = write_graph(tiny_graph, tmp_path / "tiny")
    in_place = made_learner(graph, **changes)
    on_disk = made_learner(graph, feature_store="disk", disk_cache=cache, **changes)
    for epoch in range(2):
        assert train(on_disk, epoch) == train(in_place, epoch)
        assert on_disk.evaluate(("valid",)) == in_place.evaluate(("valid",))
    assert_equal(on_disk.weights(), in_place.weights())
    reads = on_disk.store.reads()
    assert reads is not None and reads.rows > 0 and reads.reads > 0
    assert (reads.hits > 0) == (cache != "0")
    assert in_place.store.reads() is None
