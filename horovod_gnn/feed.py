"""How batches come to the device that computes: as they are to a CPU, ahead of the step to a GPU.

On a GPU the loader's thread copies what a step reads while the step before it runs: indices, and
the feature rows unless the whole table lies on the card. `learner` asks a feed and knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnn_core.data.batch import Batch
from gnn_core.data.features import SparseFeatures
from gnn_core.usage import UsageError
from horovod_gnn.edges import Edges, to_device
from horovod_gnn.sparse_rows import FetchedRows, Table

_SHARE_FOR_TABLE = 0.5  # of a card's free memory, that `auto` lets the table take


class Feed:
    """Batches for a CPU: they lie where they are read.

    Args:
        table: `[N, F]` features.
    """

    def __init__(self, table: Table):
        self.table = table

    def prepare(self, batch: Batch) -> Batch:
        """Called in the loader's thread, if it has one."""
        return batch

    def arrived(self, batch: Batch) -> tuple[Table, Batch]:
        """The features and the batch, once the device may read them."""
        return self.table, batch


@dataclass(frozen=True)
class GpuBatch(Batch):
    """A batch whose nodes and edges lie on a GPU, as its feature rows do."""

    table: Table | None = None
    ready: torch.cuda.Event | None = None


class GpuFeed(Feed):
    """Batches for a GPU, copied on a stream of their own.

    Args:
        table: `[N, F]` features in host memory.
        device: the GPU.
        table_on: `cuda`: copy the table there; `cpu`: copy the rows of each batch; `auto`: the
            table if it fits in half of the free memory.

    Raises:
        UsageError: the table is to lie on the card and does not fit.
    """

    def __init__(self, table: Table, device: torch.device, table_on: str):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        super().__init__(_placed(table, device, table_on))

    @property
    def on_card(self) -> bool:
        """Whether the whole table is on the GPU."""
        return isinstance(self.table, Tensor) and self.table.is_cuda

    def prepare(self, batch: Batch) -> GpuBatch:
        """Begin to copy the batch."""
        with torch.cuda.stream(self._stream):
            blocks = tuple(Edges.of(block, self._device) for block in batch.blocks)
            for edges in blocks[1:]:  # the input features need no gradient
                edges.by_source()
            nodes = to_device(torch.from_numpy(batch.input_nodes), self._device)
            table = self.table if self.on_card else FetchedRows(self._rows(batch.input_nodes))
            moved = {**vars(batch), "blocks": blocks, "input_nodes": nodes, "table": table}
            return GpuBatch(**moved, ready=self._stream.record_event())

    def arrived(self, batch: Batch) -> tuple[Table, Batch]:
        """Let the present stream wait for the copies."""
        assert isinstance(batch, GpuBatch) and batch.table is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(batch.ready)
        tensors = [batch.input_nodes, *(t for edges in batch.blocks for t in edges.tensors())]
        if isinstance(batch.table, FetchedRows):
            tensors.append(batch.table.rows)
        for tensor in tensors:  # freed by this stream's work, not by the copying one's
            tensor.record_stream(current)
        return batch.table, batch

    def _rows(self, nodes: np.ndarray) -> Tensor:
        """Feature rows `[k, F]` on the GPU, by way of page-locked memory."""
        if isinstance(self.table, SparseFeatures):
            return to_device(torch.from_numpy(self.table[nodes]), self._device)
        rows = torch.empty(len(nodes), self.table.shape[1], dtype=self.table.dtype, pin_memory=True)
        torch.index_select(self.table, 0, torch.from_numpy(nodes), out=rows)
        return rows.to(self._device, non_blocking=True)


def _placed(table: Table, device: torch.device, table_on: str) -> Table:
    """The table where it is to lie."""
    if isinstance(table, SparseFeatures):
        if table_on == "cuda":
            raise UsageError("--table-on cuda: expected dense features, got sparse ones; use cpu")
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
