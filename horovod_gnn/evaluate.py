"""Evaluation: exact (every neighbour, layer by layer, split over the ranks) or sampled.

Exact evaluation computes each layer for all nodes that somebody above needs, once, and keeps the
states in a memory-mapped scratch file that the ranks of a host share. A rank holds one chunk in
memory, whatever the size of the graph, and no node is dropped or counted twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gnn_core.config import UsageError
from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.data.neighbourhood import all_neighbours, chunks, reach, shares
from gnn_core.report.metrics import Tally
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import OneProcess, Stopped

CHUNK_NODES = 16_384
CHUNK_EDGES = 262_144


def tally_of(logits: Tensor, labels: Tensor) -> Tally:
    """Loss sum and correct predictions of `[n, classes]` logits against int labels `[n]`."""
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(dim=1) == labels).sum()
    return Tally(float(loss), int(correct), len(labels))


class ExactEvaluator:
    """Layer-wise evaluation over all neighbours.

    Args:
        graph: the graph.
        table: `[N, F]` its features as a tensor that shares their memory.
        parallel: the fellow ranks.
        share_directly: ranks write into one scratch file instead of exchanging rows; None asks
            whether they share a host.
    """

    def __init__(
        self,
        graph: Graph,
        table: Tensor,
        parallel: OneProcess,
        share_directly: bool | None = None,
    ):
        self._graph = graph
        self._table = table
        self._parallel = parallel
        self._direct = parallel.single_host if share_directly is None else share_directly

    def tallies(self, model: GraphSAGE, splits: tuple[str, ...]) -> dict[str, Tally]:
        """The tally of each split, over all ranks. Every rank must call it."""
        ids = {split: self._graph.split(split) for split in splits}
        needed = reach(self._graph, np.concatenate(list(ids.values())), len(model.layers) - 1)
        model.eval()
        states = self._table
        for depth, layer in enumerate(model.layers[:-1]):
            target = self._scratch(len(needed[depth]), len(layer.bias), layer.bias.dtype)
            self._compute(model, depth, states, needed[depth], target)
            states = target
        return {split: self._score(model, states, ids[split]) for split in splits}

    def _compute(
        self, model: GraphSAGE, depth: int, states: Tensor, ids: np.ndarray, target: Tensor
    ) -> None:
        """Fill the rows `ids` of `target` with the output of one hidden layer, on every host."""
        bounds = shares(self._graph, ids, self._parallel.world_size)
        for part, block, nodes in self._my_parts(ids, bounds):
            target[torch.from_numpy(part)] = model.infer_layer(depth, states, nodes, block).cpu()
        if not self._direct:
            self._exchange(target, ids, bounds)
        self._parallel.barrier()

    def _my_parts(
        self, ids: np.ndarray, bounds: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Block, np.ndarray]]:
        """This rank's share of `ids` in bounded parts, each with its block and sources."""
        mine = ids[bounds[self._parallel.rank] : bounds[self._parallel.rank + 1]]
        for part in chunks(self._graph, mine, CHUNK_NODES, CHUNK_EDGES):
            if self._parallel.stop_signal is not None:
                raise Stopped
            block, nodes = all_neighbours(self._graph, part)
            yield part, block, nodes

    def _exchange(self, target: Tensor, ids: np.ndarray, bounds: np.ndarray) -> None:
        """Bring the rows of each rank to all others, a bounded piece at a time."""
        for root in range(self._parallel.world_size):
            theirs = ids[bounds[root] : bounds[root + 1]]
            for first in range(0, len(theirs), CHUNK_NODES):
                rows = torch.from_numpy(theirs[first : first + CHUNK_NODES])
                piece = self._parallel.broadcast_(target[rows], root)
                if root != self._parallel.rank:
                    target[rows] = piece

    def _score(self, model: GraphSAGE, states: Tensor, ids: np.ndarray) -> Tally:
        """The last layer for this rank's part of `ids`, summed over the ranks."""
        tally = Tally()
        for part, block, nodes in self._my_parts(
            ids, shares(self._graph, ids, self._parallel.world_size)
        ):
            logits = model.infer_layer(len(model.layers) - 1, states, nodes, block).cpu()
            tally += tally_of(logits, torch.from_numpy(self._graph.labels[part]).long())
        return _summed(tally, self._parallel)

    def _scratch(self, num_rows: int, width: int, dtype: torch.dtype) -> Tensor:
        """Room for a layer's states, `[N, width]`, of which `num_rows` rows will be written.

        It is a file without a name that the ranks of a host share: it is removed from its folder as
        soon as all have opened it, so nothing is left behind even by `kill -9`. Rows that nobody
        writes take no space. Raises UsageError, on every rank, where there is too little of it.
        """
        shape = (self._graph.num_nodes, width)
        parallel = self._parallel
        creates = parallel.rank == 0 or not self._direct
        path, problem = "", None
        if creates:
            try:
                path = _create(shape[0] * width * dtype.itemsize, num_rows * width * dtype.itemsize)
            except UsageError as error:
                problem = str(error)
        parallel.require_agreement(parallel.gather(problem)[0] if self._direct else problem)
        opened = parallel.gather(path)[0] if self._direct else path
        count = shape[0] * width
        states = torch.from_file(opened, shared=True, size=count, dtype=dtype).view(shape)
        parallel.barrier()
        if creates:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
        return states


def _create(size_bytes: int, written_bytes: int) -> str:
    """An empty file of that size, and of that much room to write; its path. Raises UsageError."""
    try:
        folder = tempfile.gettempdir()
        # Asked beforehand, since a map that finds no room when it is written to kills the process.
        free = shutil.disk_usage(folder).free
        if free < written_bytes:
            raise OSError(f"{written_bytes:,} bytes are needed in {folder}, {free:,} are free")
        handle, path = tempfile.mkstemp(prefix="ringsage-states-", dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.truncate(size_bytes)
    except OSError as error:
        raise UsageError(
            f"exact evaluation keeps the states of a layer in a temporary file, and cannot: {error}"
            "; set TMPDIR to a folder with room, or use --eval sampled"
        ) from None
    return path


class SampledEvaluator:
    """Evaluation on sampled neighbourhoods, as in training: quick, and a little off.

    Args:
        loaders: one loader per split, not shuffled.
        table: `[N, F]` features.
        parallel: the fellow ranks.
    """

    def __init__(self, loaders: Mapping[str, Loader], table: Tensor, parallel: OneProcess):
        self._loaders = loaders
        self._table = table
        self._parallel = parallel

    @torch.no_grad()
    def tallies(self, model: GraphSAGE, splits: tuple[str, ...]) -> dict[str, Tally]:
        """The tally of each split, over all ranks. Every rank must call it."""
        model.eval()
        result = {}
        for split in splits:
            tally = Tally()
            with contextlib.closing(self._loaders[split].batches(0)) as batches:
                for batch in batches:
                    logits = model(self._table, batch.input_nodes, batch.blocks)[: batch.num_real]
                    labels = torch.from_numpy(batch.labels[: batch.num_real]).long()
                    tally += tally_of(logits.cpu(), labels)
            result[split] = _summed(tally, self._parallel)
        return result


def _summed(tally: Tally, parallel: OneProcess) -> Tally:
    return Tally.from_vector(parallel.sum_(torch.from_numpy(tally.to_vector())).numpy())
