"""Features on disk: the rows of a table in memory, whatever the cache; files that are damaged."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data import disk_reads
from gnn_core.data.disk_store import DiskStore
from gnn_core.data.feature_store import TableStore
from gnn_core.data.graph import Graph, write_graph
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
    return DiskStore.bytes_of_cache(len(table), row_bytes, rows)


def gathered(store: DiskStore, ids: npt.ArrayLike) -> npt.NDArray[Any]:
    wanted = np.asarray(ids)
    out = np.zeros((len(wanted), store.width), store.dtype)
    store.gather(wanted, out)
    return out


@pytest.mark.parametrize("cached", [0, 1, 37, 1000])
@pytest.mark.parametrize(
    ("dtype", "direct", "threads"),
    [(np.float32, True, 32), (np.float16, True, 1), (np.uint16, False, 8), (np.float32, False, 1)],
)
def test_rows_are_those_of_the_table(
    tmp_path: Path, cached: int, dtype: type, direct: bool, threads: int
) -> None:
    """Repeated, in any order, the first and the last of the file; over many rounds of the cache."""
    table = table_in(tmp_path, dtype=dtype)
    store = DiskStore(table, cache_of(table, cached) if cached else 0, threads, direct)
    assert store.num_slots == cached
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
def test_rows_of_any_length_are_read(tmp_path: Path, width: int) -> None:
    """Within a block, as long as one, and longer than a read usually is."""
    table = table_in(tmp_path, 7, width)
    ids = [6, 0, 3, 3]
    assert gathered(DiskStore(table), ids).tobytes() == table[ids].tobytes()


def test_neighbouring_rows_are_one_read(tmp_path: Path) -> None:
    """So are rows with a little between them; what is far away is another."""
    table = table_in(tmp_path, 100_000, 16)  # 64 bytes a row
    store = DiskStore(table)
    gathered(store, np.arange(640, 1280))
    assert store.reader.reads <= 2 * disk_reads.READ_THREADS
    store = DiskStore(table, threads=1)
    gathered(store, np.arange(640, 1280))
    assert (store.reader.reads, store.reader.bytes_read) == (1, 40_960 + 4096)
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
        held = store._slot_of.nbytes + store._asked.nbytes + store._node_in.nbytes
        held += store._cached.nbytes
        assert held == store.cache_bytes <= allowed


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
