"""What a Keras step is fed with: tensors of the declared shapes, shared memory, a thread that ends.

TensorFlow is imported by the first test that needs it, not while tests are collected: that takes
seconds, and MPI wants to be met before it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.batch import Batch
from gnn_core.data.feature_store import TableStore
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.training.tasks import feature_store
from tests.unit.test_sparse_features import bag_of_words

pytestmark = pytest.mark.needs_tensorflow
SETTINGS: dict[str, Any] = {
    "dataset": "tiny",
    "hidden": 8,
    "fanouts": (3, 2),
    "global_batch_size": 22,  # the last batch of 64 targets holds 20
    "dropout": 0.0,
    "input_dropout": 0.0,
}


@pytest.fixture(scope="module")
def keras_input() -> ModuleType:
    """The module; TensorFlow with it."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    from tf_mirrored import input as module

    return module


def stored_as(graph: Graph, dtype: str) -> Graph:
    """The same graph with features of another type."""
    features = np.array(graph.features)
    if dtype == "bfloat16":
        features = (features.view(np.uint32) >> 16).astype(np.uint16)
    elif dtype == "float16":
        features = features.astype(np.float16)
    return Graph.from_arrays(
        "tiny", graph.indptr, graph.indices, features, graph.labels, graph.splits
    )


def batches_of(graph: Graph, config: RunConfig, epoch: int = 0) -> list[Batch]:
    loader = Loader(
        graph, "train", config.fanouts, config.global_batch_size, seed=config.seed, prefetch=0
    )
    return list(loader.batches(epoch))


def leaves(tree: Any) -> list[Any]:
    """All tensors, or specifications, of nested tuples; None too, in place."""
    if isinstance(tree, tuple):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [tree]


COMBINATIONS = list(
    itertools.product(
        ["fp32", "fp64", "bf16"],
        [{}, {"dropout": 0.4}, {"input_dropout": 0.2}, {"dropout": 0.4, "input_dropout": 0.2}],
        ["float32", "float16", "bfloat16"],
        ["mean", "sum", "max", "none"],
    )
)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_is_what_the_signature_says(
    keras_input: ModuleType, tiny_graph: Graph, training: bool
) -> None:
    graphs = {name: stored_as(tiny_graph, name) for name in ("float32", "float16", "bfloat16")}
    for precision, drops, stored, aggregator in COMBINATIONS:
        changes = {"precision": precision, "aggregator": aggregator, **drops}
        config, graph = RunConfig(**{**SETTINGS, **changes}), graphs[stored]
        feed = keras_input.Feed(config, feature_store(graph), training)
        expected = leaves(feed.signature())
        *_, last = batches_of(graph, config)
        found = leaves(feed.step(last))
        assert len(found) == len(expected)
        for spec, tensor in zip(expected, found, strict=True):
            assert (spec is None) == (tensor is None)
            assert spec is None or spec.is_compatible_with(tensor), (changes, stored, spec)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_block_is_what_its_signature_says(
    keras_input: ModuleType, tiny_graph: Graph, layers: int
) -> None:
    config = RunConfig(**{**SETTINGS, "fanouts": (2,) * layers})
    feed = keras_input.Feed(config, feature_store(tiny_graph), training=False)
    batch = batches_of(tiny_graph, config)[0]
    for nodes in (batch.input_nodes, None):
        expected = leaves(feed.block_signature(nodes is not None))
        found = leaves(feed.block(batch.blocks[0], nodes))
        for spec, tensor in zip(expected, found, strict=True):
            assert (spec is None) == (tensor is None)
            assert spec is None or spec.is_compatible_with(tensor)


def test_evaluation_drops_nothing(keras_input: ModuleType, tiny_graph: Graph) -> None:
    config = RunConfig(**{**SETTINGS, "dropout": 0.4, "input_dropout": 0.2})
    step = keras_input.Feed(config, feature_store(tiny_graph), training=False).step(
        batches_of(tiny_graph, config)[0]
    )
    assert step.input_factors is None
    assert all(block.factors is None for block in step.blocks)


def test_padding_is_left_out_of_the_labels(keras_input: ModuleType, tiny_graph: Graph) -> None:
    config = RunConfig(**{**SETTINGS, "global_batch_size": 63})  # then one target is left
    loaders = [
        Loader(tiny_graph, "train", (3, 2), 63, seed=0, rank=rank, world_size=2, prefetch=0)
        for rank in range(2)
    ]
    feed = keras_input.Feed(config, feature_store(tiny_graph), training=True)
    steps = [feed.step(list(loader.batches(0))[-1]) for loader in loaders]
    assert [len(step.labels) for step in steps] == [1, 0]
    assert [float(step.num_global_real) for step in steps] == [1, 1]


# -- memory ----------------------------------------------------------------------------------------


def aligned(shape: tuple[int, ...], dtype: type = np.float32, off_by: int = 0) -> np.ndarray:
    """Ascending numbers, `off_by` bytes behind a boundary of 64."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 128, np.uint8)
    first = -room.ctypes.data % 64 + off_by
    array = room[first : first + size].view(dtype).reshape(shape)
    array[:] = np.arange(array.size).reshape(shape)
    assert array.ctypes.data % 64 == off_by
    return array


def test_an_aligned_array_is_not_copied(keras_input: ModuleType) -> None:
    array = aligned((5, 4))
    tensor = keras_input.shared_tensor(array)
    array[2, 1] = -3
    assert float(tensor[2, 1]) == -3
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("off_by", [4, 16, 32])
def test_a_misaligned_array_is_copied(keras_input: ModuleType, off_by: int) -> None:
    array = aligned((5, 4), off_by=off_by)
    expected = array.copy()
    tensor = keras_input.shared_tensor(array)
    array[:] = -3
    assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize(
    "array",
    [aligned((6, 4))[::2], aligned((6, 4)).T, aligned((6, 4))[:, :2], np.zeros((0, 4), np.float32)],
    ids=["every second row", "transposed", "columns", "empty"],
)
def test_what_is_not_one_piece_is_copied(keras_input: ModuleType, array: np.ndarray) -> None:
    tensor = keras_input.shared_tensor(array)
    assert tensor.shape == array.shape
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int32])
def test_a_memory_map_is_shared_though_it_is_read_only(
    keras_input: ModuleType, tmp_path: Path, dtype: type
) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.arange(60, dtype=dtype).reshape(20, 3))
    map_ = np.load(path, mmap_mode="r")
    tensor = keras_input.shared_tensor(map_)
    writer = np.load(path, mmap_mode="r+")
    writer[7, 1] = 99  # seen through both: the same pages
    assert int(tensor[7, 1]) == 99
    with pytest.raises(ValueError, match="read-only"):
        map_[0] = 1


def test_the_memory_lives_as_long_as_the_tensor(keras_input: ModuleType, tmp_path: Path) -> None:
    import gc

    np.save(tmp_path / "array.npy", np.full((300, 1000), 7, np.float32))
    frozen = aligned((300, 1000))
    frozen[:] = 7
    frozen.flags.writeable = False
    tensors = [
        keras_input.shared_tensor(np.load(tmp_path / "array.npy", mmap_mode="r")),
        keras_input.shared_tensor(frozen),
        keras_input.shared_tensor(aligned((300, 1000)) * 0 + 7),
    ]
    del frozen
    gc.collect()
    others = [aligned((300, 1000)) for _ in range(5)]  # would take freed memory over
    assert others
    for tensor in tensors:
        assert (tensor.numpy() == 7).all()


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_the_table_holds_the_features_as_they_are_stored(
    keras_input: ModuleType, tiny_graph: Graph, stored: str
) -> None:
    import tensorflow as tf

    graph = stored_as(tiny_graph, stored)
    table = keras_input.feature_table(feature_store(graph))
    assert table.dtype == stored
    assert table.shape == graph.features.shape
    near = {"float32": 0, "float16": 1e-3, "bfloat16": 1e-2}[stored]
    difference = tf.cast(table, tf.float32).numpy() - tiny_graph.features
    assert np.abs(difference).max() <= near * np.abs(tiny_graph.features).max()


def test_sparse_features_become_a_dense_table(keras_input: ModuleType) -> None:
    dense = bag_of_words()
    table = keras_input.feature_table(TableStore(SparseFeatures.of(dense)))
    assert table.numpy().tobytes() == dense.tobytes()


# -- the thread ------------------------------------------------------------------------------------


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ringsage-prefetch")]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_batches_come_in_order_and_the_thread_ends(
    keras_input: ModuleType, tiny_graph: Graph, depth: int
) -> None:
    config = RunConfig(**SETTINGS)
    feed = keras_input.Feed(config, feature_store(tiny_graph), training=True)
    loader = Loader(tiny_graph, "train", (3, 2), 22, seed=0, prefetch=0)
    expected = batches_of(tiny_graph, config, epoch=1)[1:]
    found = list(keras_input.prepared(loader, feed, 1, 1, depth))
    assert [item.batch.step for item in found] == [1, 2]
    for item, batch in zip(found, expected, strict=True):
        assert item.batch.key == batch.key
        assert np.array_equal(item.step.labels.numpy(), batch.labels[: batch.num_real])
        assert item.batch.sample_seconds > 0
    assert threads() == []


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_closed_early_it_stops_its_thread(
    keras_input: ModuleType, tiny_graph: Graph, depth: int
) -> None:
    config = RunConfig(**SETTINGS)
    feed = keras_input.Feed(config, feature_store(tiny_graph), training=True)
    loader = Loader(tiny_graph, "train", (3, 2), 2, seed=0, prefetch=0)
    iterator = keras_input.prepared(loader, feed, 0, 0, depth)
    next(iterator)
    assert len(threads()) == (1 if depth else 0)
    iterator.close()
    assert threads() == []


class Breaking:
    """A loader that breaks after a batch."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self.closed = False

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        try:
            yield self._loader.batch(epoch, first_step)
            raise OSError("the disk is gone")
        finally:
            self.closed = True


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_reaches_whoever_trains(
    keras_input: ModuleType, tiny_graph: Graph, depth: int
) -> None:
    feed = keras_input.Feed(RunConfig(**SETTINGS), feature_store(tiny_graph), training=True)
    loader = Breaking(Loader(tiny_graph, "train", (3, 2), 22, seed=0, prefetch=0))
    iterator = keras_input.prepared(loader, feed, 0, 0, depth)
    next(iterator)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)
    assert loader.closed
    assert threads() == []
