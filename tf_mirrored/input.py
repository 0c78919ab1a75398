"""What a step is fed with: the shared loader's batches as tensors, prepared beside the training.

Whatever does not depend on the weights is done here, in the thread that draws the batches: which
rows of the table an edge reads, the segment of each edge, which features are dropped. Every array's
length changes from step to step; `Feed.signature` says so once, and the step is traced once.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gnn_core import seeding
from gnn_core.config import RunConfig
from gnn_core.data.ahead import ahead
from gnn_core.data.batch import Batch, Block, Common, Pairs
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.loader import Loader
from gnn_core.data.pair_common import reads_common
from gnn_core.data.pair_structure import structure_width
from gnn_core.dropout import dropout_factors, dropout_threshold
from tf_mirrored.segments import backward_edges, gradient_shares

_REALS = {"fp32": tf.float32, "bf16": tf.float32, "fp64": tf.float64}
_ALIGNMENT_BYTES = 64  # that TensorFlow's kernels take for granted


class Reversed(NamedTuple):
    """The same edges for the gradient; see `tf_mirrored.segments`."""

    rows: Any  # int32 [num_dst + num_edges]
    segments: Any  # int32, beside them: sources, ascending
    num_src: Any  # int32 []
    shares: Any  # real [2 * num_dst, 1]; None where neighbours are added up


class BlockInput(NamedTuple):
    """One layer's edges, grouped by destination."""

    columns: Any  # [num_edges] rows of the table below
    segments: Any  # int32 [num_edges] destination of each edge, ascending
    num_dst: Any  # int32 []
    rows: Any = None  # [num_dst] rows of the destinations below; None: its first num_dst
    factors: Any = None  # [num_dst, width] what dropout multiplies the output by; None: not any
    back: Reversed | None = None  # None: no gradient is needed, or TensorFlow's own will do


class CommonInput(NamedTuple):
    """Common neighbours of pairs; see `gnn_core.data.batch.Common`."""

    pairs: Any  # int32 [R]
    segments: Any  # int32 [E]
    nodes: Any  # int32 [E]
    weights: Any  # real [E, 1]


class PairInput(NamedTuple):
    """Real pairs of link prediction; see `gnn_core.data.batch.Pairs`."""

    sources: Any  # int32 [num_real]
    destinations: Any  # int32 [num_real]
    negatives: Any  # int32 [num_real, K]
    structure: Any = None  # float32 [num_real, 1 + K, S]
    common: tuple[CommonInput, CommonInput] | None = None


class StepInput(NamedTuple):
    """A batch; see `gnn_core.data.batch.Batch`."""

    blocks: tuple[BlockInput, ...]
    labels: Any  # int32 [num_real]; None for link prediction
    num_global_real: Any  # real []
    nodes: Any = None  # [num_src] rows to gather first; None: block 0 reads the table itself
    rows: Any = None  # [num_src, in_features] that take the table's place, of a store without one
    input_factors: Any = None  # [num_src, in_features]
    pairs: PairInput | None = None


@dataclass(frozen=True)
class Prepared:
    """A batch with its tensors."""

    batch: Batch
    step: StepInput


class Feed:
    """Turns batches into tensors.

    Args:
        config: the run's.
        store: of the input features.
        training: whether anything is dropped, and gradients are needed.
        reverses: give reversed edges for the gradient; else TensorFlow's own has to do.
    """

    def __init__(
        self, config: RunConfig, store: FeatureStore, training: bool, reverses: bool = True
    ):
        self.real = _REALS[config.precision]
        self._index = tf.int32 if store.num_rows < 2**31 else tf.int64
        self._num_features = store.width
        self._hidden = config.hidden
        self._negatives = config.negatives or 0
        self._structure_width = structure_width(config)
        self._reads_common = reads_common(config)
        self._layers = config.layers
        self._reverses = reverses and training and config.aggregator in ("mean", "sum")
        self._shares = config.aggregator == "mean"
        self._threshold = dropout_threshold(config.dropout) if training else 0
        self._input_threshold = dropout_threshold(config.input_dropout) if training else 0
        self.store, self.stored = store, feature_dtype(store)
        self._fetches = store.table is None  # rows come with each batch
        # Segment operations sum in the type that they read, and dropped features are nobody else's.
        converts = self.stored != self.real or self._input_threshold > 0
        self._gathers = converts and not self._fetches
        self._reads_table = not converts and not self._fetches

    def signature(self) -> StepInput:
        """The specification of what `step` returns."""
        blocks = []
        for depth in range(self._layers):
            reads_table = depth == 0 and self._reads_table
            drops = self._threshold > 0 and depth < self._layers - 1
            factors = _spec(self.real, None, self._hidden) if drops else None
            back = self._reversed_signature() if self._reverses and depth else None
            blocks.append(self.block_signature(reads_table)._replace(factors=factors, back=back))
        ends, is_link = _spec(tf.int32, None), self._negatives > 0
        return StepInput(
            tuple(blocks),
            None if is_link else ends,
            _spec(self.real),
            _spec(self._index, None) if self._gathers else None,
            _spec(self.stored, None, self._num_features) if self._fetches else None,
            _spec(self.real, None, self._num_features) if self._input_threshold else None,
            self._pair_signature() if is_link else None,
        )

    def _pair_signature(self) -> PairInput:
        ends = _spec(tf.int32, None)
        structure = None
        if self._structure_width:
            structure = _spec(tf.float32, None, 1 + self._negatives, self._structure_width)
        common = None
        if self._reads_common:
            one = CommonInput(ends, ends, ends, _spec(self.real, None, 1))
            common = (one, one)
        return PairInput(ends, ends, _spec(tf.int32, None, self._negatives), structure, common)

    def block_signature(self, reads_table: bool = True) -> BlockInput:
        """The specification of what `block` returns, with `nodes` or without."""
        return BlockInput(
            _spec(self._index if reads_table else tf.int32, None),
            _spec(tf.int32, None),
            _spec(tf.int32),
            _spec(self._index, None) if reads_table else None,
        )

    def step(self, batch: Batch) -> StepInput:
        """The tensors of a batch."""
        nodes, keys = (
            batch.input_nodes,
            [seeding.key(batch.key, "layer", depth) for depth in range(self._layers + 1)],
        )
        blocks = []
        for depth, block in enumerate(batch.blocks):
            factors = None
            if self._threshold and depth < self._layers - 1:
                factors = self._factors(
                    nodes[: block.num_dst], keys[depth], self._threshold, self._hidden
                )
            reads_table = depth == 0 and self._reads_table
            back = self._reversed(block) if self._reverses and depth else None
            made = self.block(block, nodes if reads_table else None)
            blocks.append(made._replace(factors=factors, back=back))
        input_factors = None
        if self._input_threshold:
            input_factors = self._factors(
                nodes, keys[-1], self._input_threshold, self._num_features
            )
        pairs = None if batch.pairs is None else self._pairs(batch.pairs, batch.num_real)
        return StepInput(
            tuple(blocks),
            None if pairs else tf.convert_to_tensor(batch.labels[: batch.num_real]),
            tf.convert_to_tensor(batch.num_global_real, self.real),
            tf.convert_to_tensor(nodes, self._index) if self._gathers else None,
            self.rows(nodes) if self._fetches else None,
            input_factors,
            pairs,
        )

    def _pairs(self, pairs: Pairs, count: int) -> PairInput:
        """The tensors of the first `count` pairs."""
        parts = (pairs.sources, pairs.destinations, pairs.negatives)
        made = PairInput(*(tf.convert_to_tensor(part[:count], tf.int32) for part in parts))
        if pairs.structure is not None:
            made = made._replace(structure=tf.convert_to_tensor(pairs.structure[:count]))
        if pairs.common is not None:
            of_pairs, of_negatives = pairs.common
            of_negatives = of_negatives.first(count * pairs.negatives.shape[1])
            common = (self._common(of_pairs.first(count)), self._common(of_negatives))
            made = made._replace(common=common)
        return made

    def _common(self, common: Common) -> CommonInput:
        parts = (common.pairs, common.segments, common.nodes)
        pairs, segments, nodes = (tf.convert_to_tensor(part, tf.int32) for part in parts)
        weights = tf.convert_to_tensor(common.weights[:, None], self.real)
        return CommonInput(pairs, segments, nodes, weights)

    def block(self, block: Block, nodes: np.ndarray | None) -> BlockInput:
        """A block's tensors; with `nodes` int64 `[num_src]`, its columns are those rows."""
        segments = np.repeat(np.arange(block.num_dst, dtype=np.int32), np.diff(block.offsets))
        columns, rows = block.columns, None
        if nodes is not None:
            nodes = nodes.astype(self._index.as_numpy_dtype)
            columns, rows = nodes[columns], tf.convert_to_tensor(nodes[: block.num_dst])
        return BlockInput(
            tf.convert_to_tensor(columns),
            tf.convert_to_tensor(segments),
            tf.convert_to_tensor(block.num_dst, tf.int32),
            rows,
        )

    def rows(self, nodes: np.ndarray) -> tf.Tensor:
        """The features `[k, in_features]` of int64 `[k]` nodes, as stored, out of the store."""
        rows = _aligned(len(nodes), self.store.width, self.store.dtype)
        self.store.gather(nodes, rows)
        return _decoded(shared_tensor(rows))

    def layer_input(self, table: tf.Tensor, nodes: np.ndarray) -> tuple[tf.Tensor, np.ndarray]:
        """Features in the type of the sums, and which of their rows are those of the nodes.

        Args:
            table: as from `feature_table`.
            nodes: int64 `[k]`.
        """
        if self.stored == self.real and not self._fetches:
            return table, nodes
        rows = self.rows(nodes) if self._fetches else tf.gather(table, nodes)
        return tf.cast(rows, self.real), np.arange(len(nodes))

    def _reversed_signature(self) -> Reversed:
        shares = _spec(self.real, None, 1) if self._shares else None
        return Reversed(_spec(tf.int32, None), _spec(tf.int32, None), _spec(tf.int32), shares)

    def _reversed(self, block: Block) -> Reversed:
        rows, segments = backward_edges(block.offsets, block.columns, block.num_src)
        shares = None
        if self._shares:
            shares = tf.convert_to_tensor(gradient_shares(block.offsets, self.real.as_numpy_dtype))
        return Reversed(
            tf.convert_to_tensor(rows),
            tf.convert_to_tensor(segments),
            tf.convert_to_tensor(block.num_src, tf.int32),
            shares,
        )

    def _factors(self, nodes: np.ndarray, key: int, threshold: int, width: int) -> tf.Tensor:
        factors = _aligned(len(nodes), width, self.real.as_numpy_dtype)
        dropout_factors(nodes, np.uint64(key), threshold, factors)
        return shared_tensor(factors)  # a copy of it takes three times as long as making it


def prepared(
    loader: Loader, feed: Feed, epoch: int, first_step: int, depth: int
) -> Generator[Prepared]:
    """The batches of an epoch with their tensors, made by a thread up to `depth` steps ahead.

    `loader` itself must not prefetch. Close the iterator to stop the thread.
    """

    def work() -> Generator[Prepared]:
        with contextlib.closing(loader.batches(epoch, first_step)) as batches:
            for batch in batches:
                start = time.perf_counter()
                step = feed.step(batch)
                now = time.perf_counter()
                seconds = batch.sample_seconds + now - start
                timed = dataclasses.replace(batch, sample_seconds=seconds, sampled_at=now)
                yield Prepared(timed, step)

    yield from ahead(work(), depth, feed.store.wait) if depth else work()


def _aligned(rows: int, width: int, dtype: npt.DTypeLike) -> np.ndarray:
    """An empty `[rows, width]` array where TensorFlow needs no copy of it."""
    size = rows * width * np.dtype(dtype).itemsize
    room = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    first = -room.ctypes.data % _ALIGNMENT_BYTES
    return room[first : first + size].view(dtype).reshape(rows, width)


def _spec(dtype: tf.DType, *shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


def feature_dtype(store: FeatureStore) -> tf.DType:
    """The type that the features are stored in."""
    return tf.bfloat16 if store.dtype == np.uint16 else tf.as_dtype(store.dtype)


def feature_table(store: FeatureStore) -> tf.Tensor:
    """The features `[N, F]` as a tensor on the same, memory-mapped and shared, memory.

    Sparse ones become dense, in memory of this process. A store without a table gives no row.
    """
    if store.table is None:
        return tf.zeros([0, store.width], feature_dtype(store))
    return _decoded(shared_tensor(np.asarray(store.table)))


def _decoded(stored: tf.Tensor) -> tf.Tensor:
    """Stored features as TensorFlow names them: NumPy keeps bfloat16 in a uint16."""
    return tf.bitcast(stored, tf.bfloat16) if stored.dtype == tf.uint16 else stored


def shared_tensor(array: np.ndarray) -> tf.Tensor:
    """A tensor on the memory of `array`; a copy where that is not aligned as TensorFlow needs it.

    TensorFlow copies what it converts, which a graph of a hundred gigabytes does not bear. DLPack
    does not, but knows no read-only memory; nothing here writes through the tensor.
    """
    if array.ctypes.data % _ALIGNMENT_BYTES or not array.flags.c_contiguous or not array.size:
        return tf.convert_to_tensor(array)
    if not array.flags.writeable:
        memory: Any = (ctypes.c_byte * array.nbytes).from_address(array.ctypes.data)
        memory.owner = array  # lives as long as the tensor
        array = np.frombuffer(memory, array.dtype).reshape(array.shape)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
