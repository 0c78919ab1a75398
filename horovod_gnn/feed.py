"""How features and batches come from the feature store and the loader to the device that computes.

A feed prepares each batch in the loader's thread while the step before it runs. On a CPU a table
that may be read in place is left to the model; of any other store the rows are gathered ahead. To
a GPU everything is copied ahead, unless the whole table lies on the card. `learner` asks a
feed and knows no device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gnn_core.data.batch import Batch
from gnn_core.data.feature_store import FeatureStore, Lent
from gnn_core.data.features import SparseFeatures
from gnn_core.usage import UsageError
from horovod_gnn.edges import Edges, to_device
from horovod_gnn.inputs import (
    FeatureTable,
    FetchedRows,
    Inputs,
    StoredTable,
    gather,
    gather_ahead,
    torch_table,
)

_SHARE_FOR_TABLE = 0.5  # of a card's free memory, that `auto` lets the table take


class Batches(Protocol):
    """What gives a learner its batches; a `Loader` does."""

    @property
    def prefetches(self) -> bool: ...  # noqa: D102
    @property
    def num_steps(self) -> int: ...  # noqa: D102
    def batch(self, epoch: int, step: int) -> Batch: ...  # noqa: D102
    def giving_up_on_errors(self) -> AbstractContextManager[Any]: ...  # noqa: D102
    def batches(  # noqa: D102
        self, epoch: int, first_step: int = 0, prepare: Callable[[Batch], Batch] | None = None
    ) -> Generator[Batch]: ...


@dataclass(frozen=True)
class FedBatch(Batch):
    """A batch with what layer 1 reads; on a GPU its nodes and edges lie there too."""

    inputs: Inputs | None = None  # None: what is lent
    wait: Callable[[], Lent | None] | None = None  # until its rows are there, or lent
    ready: torch.cuda.Event | None = None
    tensors: tuple[Tensor, ...] = ()  # all that was copied to a GPU


class Feed:
    """Batches for a CPU.

    Args:
        store: of the input features.
    """

    def __init__(self, store: FeatureStore):
        self.store = store
        self.table: FeatureTable | None = torch_table(store)  # None: rows are gathered
        self._lent: Lent | None = None  # to the step under way

    def fetches_in(self, loader: Batches) -> str | None:
        """The section of a `Stopwatch` in which rows are read; None: in the loader's thread."""
        if self._reads_in_step:
            return "compute"
        return None if loader.prefetches else "wait"

    @property
    def _reads_in_step(self) -> bool:
        return self.table is not None

    def inputs(self, nodes: np.ndarray) -> Inputs:
        """What layer 1 reads for these nodes, int64 `[k]`, in host memory."""
        if self.table is None:
            return FetchedRows(gather(self.store, nodes))
        return StoredTable(self.table, self.store)

    def prepare(self, batch: Batch) -> Batch:
        """Called in the loader's thread, if it has one."""
        self.store.prefetch(batch.input_nodes)
        if self.table is not None:
            return FedBatch(**vars(batch), inputs=self.inputs(batch.input_nodes))
        if (lend := self.store.lend_ahead(batch.input_nodes)) is not None:
            return FedBatch(**vars(batch), wait=lend)
        rows, wait = gather_ahead(self.store, batch.input_nodes)
        return FedBatch(**vars(batch), inputs=FetchedRows(rows), wait=wait)

    def wait_for_rows(self, batch: Batch) -> None:
        """Wait until the rows of a prepared batch are in memory; raises what reading them did.

        The step before it is over, and gives back what it was lent.
        """
        self._hold(None)
        if isinstance(batch, FedBatch) and batch.wait is not None:
            start = time.perf_counter()
            batch.wait()
            waited = self.store.seconds_waited or 0.0
            self.store.seconds_waited = waited + time.perf_counter() - start

    def lent_inputs(self, nodes: np.ndarray) -> Inputs:
        """The same for the nodes of a batch, distinct; to be read until it is called again."""
        if self.table is None and (lend := self.store.lend_ahead(nodes)) is not None:
            self._hold(lend())
            assert self._lent is not None
            return FetchedRows.of(self._lent)
        return self.inputs(nodes)

    def _hold(self, lent: Lent | None) -> None:
        """Give back what the step before was lent, and keep what this one is."""
        if self._lent is not None and self._lent is not lent:
            self._lent.give_back()
        self._lent = lent

    def arrived(self, batch: Batch) -> tuple[Inputs, Batch]:
        """What layer 1 reads and the prepared batch, once the device may read them."""
        assert isinstance(batch, FedBatch)
        if batch.wait is not None:  # returns at once if somebody has waited
            self._hold(batch.wait())
        if batch.inputs is not None:
            return batch.inputs, batch
        assert self._lent is not None
        return FetchedRows.of(self._lent), batch


class GpuFeed(Feed):
    """Batches for a GPU, copied on a stream of their own.

    Args:
        store: of the input features, in host memory.
        device: the GPU.
        table_on: `cuda`: copy the table there; `cpu`: copy the rows of each batch; `auto`: the
            table if it fits in half of the free memory.

    Raises:
        UsageError: the table is to lie on the card and does not fit.
    """

    def __init__(self, store: FeatureStore, device: torch.device, table_on: str):
        super().__init__(store)
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self.table = _placed(self.table, device, table_on)

    @property
    def on_card(self) -> bool:
        """Whether the whole table is on the GPU."""
        return isinstance(self.table, Tensor) and self.table.is_cuda

    @property
    def _reads_in_step(self) -> bool:
        return self.on_card

    def prepare(self, batch: Batch) -> FedBatch:
        """Begin to copy the batch."""
        with torch.cuda.stream(self._stream):
            blocks = tuple(Edges.of(block, self._device) for block in batch.blocks)
            for edges in blocks[1:]:  # the input features need no gradient
                edges.by_source()
            nodes = to_device(torch.from_numpy(batch.input_nodes), self._device)
            tensors = [nodes, *(tensor for edges in blocks for tensor in edges.tensors())]
            if self.on_card:
                inputs = self.inputs(batch.input_nodes)
            else:
                rows = self._rows(batch.input_nodes).to(self._device, non_blocking=True)
                inputs = FetchedRows(rows)
                tensors.append(rows)
            moved = {**vars(batch), "blocks": blocks, "input_nodes": nodes, "inputs": inputs}
            return FedBatch(**moved, ready=self._stream.record_event(), tensors=tuple(tensors))

    def arrived(self, batch: Batch) -> tuple[Inputs, Batch]:
        """Let the present stream wait for the copies."""
        inputs, batch = super().arrived(batch)
        assert isinstance(batch, FedBatch) and batch.ready is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(batch.ready)
        for tensor in batch.tensors:  # freed by this stream's work, not by the copying one's
            tensor.record_stream(current)
        return inputs, batch

    def _rows(self, nodes: np.ndarray) -> Tensor:
        """Feature rows `[k, F]` in page-locked memory."""
        if not isinstance(self.table, Tensor):
            return gather(self.store, nodes, pinned=True)
        rows = torch.empty(len(nodes), self.table.shape[1], dtype=self.table.dtype, pin_memory=True)
        start = time.perf_counter()
        torch.index_select(self.table, 0, torch.from_numpy(nodes), out=rows)  # on all threads
        self.store.count_read(time.perf_counter() - start, len(nodes) * self.store.row_bytes)
        return rows


def _placed(table: FeatureTable | None, device: torch.device, table_on: str) -> FeatureTable | None:
    """The table where it is to lie; None if there is none to read in place."""
    if not isinstance(table, Tensor):
        if table_on == "cuda":
            kind = "sparse ones" if isinstance(table, SparseFeatures) else "a store without a table"
            raise UsageError(f"--table-on cuda: expected dense features, got {kind}; use cpu")
        return table
    size = table.numel() * table.element_size()
    free = torch.cuda.mem_get_info(device)[0]
    fits = size <= _SHARE_FOR_TABLE * free
    if table_on == "cuda" and size > free:
        raise UsageError(
            f"--table-on cuda: expected at least {size / 1e9:.1f} GB of free memory on the GPU for "
            f"the features, got {free / 1e9:.1f} GB; use --table-on cpu, or --table-dtype fp16"
        )
    return table.to(device) if table_on == "cuda" or (table_on == "auto" and fits) else table
