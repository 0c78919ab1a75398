"""Evaluation: exact (every neighbour, layer by layer, split over the ranks) or sampled.

Exact evaluation computes each layer for all nodes that somebody above needs, once, and keeps the
states in a memory-mapped scratch file that the ranks of a host share. A rank holds one chunk in
memory for each of its replicas, whatever the size of the graph, and no node is dropped or counted
twice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gnn_core.config import UsageError
from gnn_core.data.batch import Batch, Block
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader, rank_slice
from gnn_core.data.neighbourhood import all_neighbours, chunks, reach, shares
from gnn_core.data.part_topology import PartTopology
from gnn_core.data.progress import Progress, silent
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.training.world import World

CHUNK_NODES = 16_384
CHUNK_EDGES = 262_144


class Evaluator(Protocol):
    """Evaluates the model that it was made for, with its weights as they are when it is called."""

    def tallies(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """The tally of each split, over all ranks. Every rank must call it.

        Unless the `whole` split is wanted, a part of it that tells epochs apart is enough where
        ranking all of it would take long.
        """


class LayerwiseModel(Protocol):
    """A model that can be run layer by layer; read-only, by several threads at once."""

    widths: tuple[int, ...]  # of each layer's output
    dtype: np.dtype[Any]  # of the states between layers
    store: FeatureStore  # of the input features

    def infer_layer(
        self,
        depth: int,
        states: npt.NDArray[Any] | None,
        nodes: npt.NDArray[np.int64],
        block: Block,
    ) -> npt.NDArray[Any]:
        """One layer without dropout: `[block.num_dst, widths[depth]]`, rectified unless the last.

        `states` `[num_nodes, width]` is what the layer below gave, None for the input features;
        `nodes` `[block.num_src]` are the rows of each source.
        """


def tally_of(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Tally:
    """Sum of cross-entropies and correct predictions of `[n, classes]` against ints `[n]`."""
    with np.errstate(invalid="ignore"):  # a model that has diverged shows in its loss
        highest = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0]
        losses = log_sum - logits[np.arange(len(labels)), labels]
    correct = logits.argmax(axis=1) == labels
    return Tally(float(losses.sum(dtype=np.float64)), int(correct.sum()), len(labels))


class ExactEvaluator:
    """Layer-wise evaluation over all neighbours.

    Args:
        graph: the graph.
        world: the other ranks.
        model: what is evaluated.
        share_directly: ranks write into one scratch file instead of exchanging rows; None asks
            whether they share a host.
        threads: chunks that this rank computes at a time: one for each of its replicas.
        progress: is told after each chunk how many of this rank's chunks of a layer are done.
    """

    def __init__(
        self,
        graph: Graph,
        world: World,
        model: LayerwiseModel,
        share_directly: bool | None = None,
        threads: int = 1,
        progress: Progress = silent,
    ):
        self._graph = graph
        self._world = world
        self._model = model
        self._direct = world.single_host if share_directly is None else share_directly
        self._threads = threads
        self._progress = progress

    def tallies(self, splits: tuple[str, ...], whole: bool = True) -> dict[str, Tally]:
        """The tally of each split, always of the whole: see `Evaluator`."""
        ids = {split: self._graph.split(split) for split in splits}
        needed = self._reach(np.concatenate(list(ids.values())), len(self._model.widths) - 1)
        states = self._states(needed[:-1])
        return {split: self._score(states, ids[split]) for split in splits}

    def embeddings(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """What the last layer gives, `[N, widths[-1]]`, memory-mapped; only rows `ids` are filled.

        Every rank must call it, with the same distinct `ids`.
        """
        states = self._states(self._reach(ids, len(self._model.widths) - 1))
        assert states is not None
        return states

    def layer(
        self,
        depth: int,
        ids: npt.NDArray[np.int64],
        take: Callable[[npt.NDArray[np.int64], npt.NDArray[Any]], None],
    ) -> None:
        """Give `take` the output of layer `depth` (from 0) for this rank's share of `ids`.

        Shares and parts are consecutive: what the ranks are given, one after the other, is in the
        order of `ids`. Every rank must call it, with the same sorted and distinct `ids`. Raises
        Stopped, on all of them alike.

        Args:
            depth: the layer whose output is wanted.
            ids: of the nodes.
            take: gets part after part: ids int64 `[k]` and their rows `[k, widths[depth]]`.
        """
        needed = self._reach(ids, depth)
        if self._topology is not None:  # whose shares are what a rank owns, in no order of ids
            rows = self._states(needed)
            assert rows is not None
            bounds = rank_slice(len(ids), self._world.rank, self._world.world_size)
            for part in chunks(self._graph, ids[bounds], CHUNK_NODES, CHUNK_EDGES):
                take(part, rows[part])
            return
        states = self._states(needed[:-1])

        def compute(part: npt.NDArray[np.int64]) -> None:
            take(part, self._infer(depth, states, part))

        self._for_my_parts(depth, ids, shares(self._graph, ids, self._world.world_size), compute)

    def _infer(
        self, depth: int, states: npt.NDArray[Any] | None, part: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        block, nodes = self._all_neighbours(part)
        return self._model.infer_layer(depth, states, nodes, block)

    def _sources(self, part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self._all_neighbours(part)[1]

    @property
    def _topology(self) -> PartTopology | None:
        return self._model.store.topology

    def _all_neighbours(self, part: npt.NDArray[np.int64]) -> tuple[Block, npt.NDArray[np.int64]]:
        if self._topology is not None:
            return self._topology.all_neighbours(part)
        return all_neighbours(self._graph, part)

    def _shares(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Bounds of what each rank computes of `ids`, as `in_order` gives them."""
        if self._topology is not None:
            return self._topology.shares(ids)
        return shares(self._graph, ids, self._world.world_size)

    def _reach(self, ids: npt.NDArray[np.int64], hops: int) -> list[npt.NDArray[np.int64]]:
        """See `gnn_core.data.neighbourhood.reach`; collective where the adjacency is in parts."""
        if self._topology is None:
            return reach(self._graph, ids, hops)
        mask = np.zeros(self._graph.num_nodes, np.bool_)
        needed = [np.sort(ids)]
        for _ in range(hops):
            mask[needed[0]] = True
            with self._world.errors_on_all_ranks():
                self._topology.mark_neighbours(needed[0], mask)
            own = np.packbits(mask)
            bits = own.copy()
            for root in range(self._world.world_size):
                bits |= self._world.broadcast(own.copy(), root)
            mask = np.unpackbits(bits, count=len(mask)).view(np.bool_)
            needed.insert(0, np.flatnonzero(mask))
        return needed

    def _states(self, needed: list[npt.NDArray[np.int64]]) -> npt.NDArray[Any] | None:
        """The states after the last of the layers for which ids are `needed`; None for none."""
        states = None
        for depth, ids in enumerate(needed):
            target = self._scratch(len(ids), self._model.widths[depth], self._model.dtype)
            self._compute(depth, states, ids, target)
            states = target
        return states

    def _compute(
        self,
        depth: int,
        states: npt.NDArray[Any] | None,
        ids: npt.NDArray[np.int64],
        target: npt.NDArray[Any],
    ) -> None:
        """Fill the rows `ids` of `target` with the output of one hidden layer, on every host."""
        ids = self._model.store.in_order(ids)
        bounds = self._shares(ids)

        def fill(part: npt.NDArray[np.int64]) -> None:
            target[part] = self._infer(depth, states, part)

        self._for_my_parts(depth, ids, bounds, fill)
        if not self._direct:
            self._exchange(target, ids, bounds)

    def _for_my_parts(
        self,
        depth: int,
        ids: npt.NDArray[np.int64],
        bounds: npt.NDArray[np.int64],
        work: Callable[[npt.NDArray[np.int64]], Any],
    ) -> list[Any]:
        """What `work` returns for this rank's share of `ids`, in bounded parts, at layer `depth`.

        All ranks are done with theirs when it returns. Raises Stopped, on all of them alike.
        """
        mine = ids[bounds[self._world.rank] : bounds[self._world.rank + 1]]
        parts = chunks(self._graph, mine, CHUNK_NODES, CHUNK_EDGES)
        computed = itertools.count(1)

        def unless_stopped(part: npt.NDArray[np.int64]) -> Any:
            found = work(part) if self._world.stop_signal is None else None
            self._progress(f"layer {depth + 1}", next(computed), len(parts))
            return found

        store = self._model.store
        if depth == 0 and store.exchanges:
            with store.giving_up_on_errors():
                done = [
                    unless_stopped(part) for part in store.arriving_chunks(parts, self._sources)
                ]
        elif self._threads == 1:
            done = [unless_stopped(part) for part in parts]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                done = list(pool.map(unless_stopped, parts))
        self._world.stop_together()
        return done

    def _exchange(
        self, target: npt.NDArray[Any], ids: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]
    ) -> None:
        """Bring the rows of each rank to all others, a bounded piece at a time."""
        for root in range(self._world.world_size):
            theirs = ids[bounds[root] : bounds[root + 1]]
            for first in range(0, len(theirs), CHUNK_NODES):
                rows = theirs[first : first + CHUNK_NODES]
                piece = self._world.broadcast(target[rows], root)
                if root != self._world.rank:
                    target[rows] = piece

    def _score(self, states: npt.NDArray[Any] | None, ids: npt.NDArray[np.int64]) -> Tally:
        """The last layer for this rank's part of `ids`, summed over the ranks."""

        def score(part: npt.NDArray[np.int64]) -> Tally:
            assert self._graph.labels is not None
            return tally_of(self._infer(last, states, part), self._graph.labels[part])

        ids = self._model.store.in_order(ids)
        last = len(self._model.widths) - 1
        bounds = self._shares(ids)
        return _summed(sum(self._for_my_parts(last, ids, bounds, score), Tally()), self._world)

    def _scratch(self, num_rows: int, width: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Room for a layer's states, `[N, width]`, of which `num_rows` rows will be written.

        It is a file without a name that the ranks of a host share: it is removed from its folder as
        soon as all have opened it, so nothing is left behind even by `kill -9`. Rows that nobody
        writes take no space. Raises UsageError, on every rank, where there is too little of it.
        """
        shape = (self._graph.num_nodes, width)
        world = self._world
        creates = world.rank == 0 or not self._direct
        path, problem = "", None
        if creates:
            try:
                path = _create(shape[0] * width * dtype.itemsize, num_rows * width * dtype.itemsize)
            except UsageError as error:
                problem = str(error)
        world.require_agreement(world.gather(problem)[0] if self._direct else problem)
        opened = world.gather(path)[0] if self._direct else path
        states = np.memmap(opened, dtype, "r+", shape=shape)
        world.barrier()
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
            "; set TMPDIR to a folder with room (training can also do with --eval sampled)"
        ) from None
    return path


class SampledEvaluator:
    """Evaluation on sampled neighbourhoods, as in training: quick, and a little off.

    Args:
        loaders: one loader per split and replica of this rank, not shuffled.
        world: the other ranks.
        logits_of: `[num_real, classes]` of a batch, without dropout.
    """

    def __init__(
        self,
        loaders: Mapping[str, list[Loader]],
        world: World,
        logits_of: Callable[[Batch], npt.NDArray[Any]],
    ):
        self._loaders = loaders
        self._world = world
        self._logits_of = logits_of

    def tallies(self, splits: tuple[str, ...], whole: bool = True) -> dict[str, Tally]:
        """The tally of each split, always of the whole: see `Evaluator`."""
        return {split: _summed(self._tally(split), self._world) for split in splits}

    def _tally(self, split: str) -> Tally:
        loaders = self._loaders[split]
        if len(loaders) == 1:
            return self._tally_of_loader(loaders[0])
        with ThreadPoolExecutor(len(loaders)) as pool:
            return sum(pool.map(self._tally_of_loader, loaders), Tally())

    def _tally_of_loader(self, loader: Loader) -> Tally:
        return sum(self._tallies(loader), Tally())

    def _tallies(self, loader: Loader) -> Iterator[Tally]:
        batches = loader.batches(0)
        with contextlib.closing(batches), loader.giving_up_on_errors():
            for batch in batches:
                yield tally_of(self._logits_of(batch), batch.labels[: batch.num_real])


def _summed(tally: Tally, world: World) -> Tally:
    return Tally.from_vector(world.sum(tally.to_vector()))
