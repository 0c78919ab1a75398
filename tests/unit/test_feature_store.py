"""Feature stores: the rows they give, what they count, and that a curve does not depend on them."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnn_core.data.feature_store import FeatureStore, TableStore
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.training import tasks
from tests.unit.second_implementations import RowStore
from tests.unit.test_sparse_features import bag_of_words

IDS = np.array([3, 7, 3, 0, 199])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
@pytest.mark.parametrize("kind", [TableStore, RowStore])
def test_rows_are_those_of_the_table(kind: Callable[[Any], FeatureStore], dtype: type) -> None:
    table = (np.arange(2000).reshape(200, 10) * 7).astype(dtype)
    store = kind(table)
    assert (store.num_rows, store.width, store.dtype) == (200, 10, dtype)
    out = np.empty((5, 10), dtype)
    store.gather(IDS, out)
    assert out.tobytes() == table[IDS].tobytes()
    store.gather(IDS[:0], out[:0])


def test_sparse_rows_come_dense() -> None:
    dense = bag_of_words()
    store = TableStore(SparseFeatures.of(dense))
    out = np.empty((len(IDS), dense.shape[1]), np.float32)
    store.gather(IDS, out)
    assert out.tobytes() == dense[IDS].tobytes()
    assert store.row_bytes == store.table.nbytes // len(dense)


def test_a_table_in_memory_is_handed_out_as_it_is() -> None:
    table = np.zeros((4, 3), np.float32)
    assert TableStore(table).table is table
    assert RowStore(table).table is None


@pytest.mark.parametrize("wrong", [-1, 200])
def test_an_id_that_is_not_there_is_refused(wrong: int) -> None:
    store = TableStore(np.zeros((200, 10), np.float32))
    ids = np.array([3, wrong])
    with pytest.raises(IndexError, match=r"expected node ids in 0 \.\. 199, got "):
        store.gather(ids, np.empty((2, 10), np.float32))


def test_seconds_bytes_and_hits_are_counted() -> None:
    store = RowStore(np.zeros((200, 10), np.float32))
    out = np.empty((5, 10), np.float32)
    store.gather(IDS, out)
    once = store.seconds
    store.gather(IDS, out)
    assert store.seconds > once > 0
    assert (store.hits, store.bytes_read) == (8, 2 * 40)  # 199 alone is not in the cache
    assert store.lap() > once
    assert (store.seconds, store.lap()) == (0.0, 0.0)
    store.count_read(0.25, 100)
    assert (store.seconds, store.bytes_read, store.hits) == (0.25, 180, 8)


def test_no_count_of_any_thread_is_lost() -> None:
    store = TableStore(np.zeros((20, 3), np.float32))

    def work() -> None:
        for _ in range(1000):
            store.count_read(0.5, 3, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.seconds, store.bytes_read, store.hits) == (2000.0, 12_000, 4000)


def stored_as(graph: Graph, dtype: str) -> Graph:
    features = np.array(graph.features)
    if dtype == "bfloat16":
        features = (features.view(np.uint32) >> 16).astype(np.uint16)
    return dataclasses.replace(graph, features=features)


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input_dropout": 0.0, "prefetch": 0},
        {"input_dropout": 0.0, "precision": "fp64", "eval": "sampled"},
        {"aggregator": "max", "input_dropout": 0.0},
        {"stored": "bfloat16", "input_dropout": 0.0},
    ],
    ids=lambda changes: ", ".join(f"{name} {value}" for name, value in changes.items()),
)
def test_the_curve_does_not_depend_on_the_store(
    tiny_graph: Graph, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    from tests.unit.test_learner import assert_equal, made_learner, train

    graph = stored_as(tiny_graph, changes.pop("stored", "float32"))
    in_place = made_learner(graph, **changes)
    monkeypatch.setattr(tasks, "TableStore", RowStore)
    gathered = made_learner(graph, **changes)
    store = gathered.feed.store
    assert isinstance(store, RowStore)
    for epoch in range(2):
        assert train(gathered, epoch) == train(in_place, epoch)
        assert gathered.evaluate(("valid",)) == in_place.evaluate(("valid",))
    assert_equal(gathered.weights(), in_place.weights())
    assert len(store.announced) == 2 * gathered.num_steps
    assert store.hits > 0


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("kind", "prefetch", "section"),
    [
        (TableStore, 2, "fetch"),
        (TableStore, 0, "fetch"),
        (RowStore, 2, "overlapped_fetch"),
        (RowStore, 0, "fetch"),
    ],
)
def test_reading_is_reported_where_it_took_place(
    tiny_graph: Graph,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FeatureStore],
    prefetch: int,
    section: str,
) -> None:
    """Beside the steps if the loader's thread gathers; never with what an evaluation reads."""
    pytest.importorskip("torch")
    from tests.unit.test_learner import made_learner, train

    monkeypatch.setattr(tasks, "TableStore", kind)
    learner = made_learner(tiny_graph, prefetch=prefetch)
    store = learner.feed.store
    store.count_read(1000.0, 0)  # of an evaluation
    train(learner, 0)
    lap = learner.watch.lap()
    assert [name for name in lap if "fetch" in name] == [section]
    assert 0 < lap[section] < 500
    assert store.seconds == 0.0
