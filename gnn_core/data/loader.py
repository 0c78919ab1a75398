"""The shared loader: the same batches, whatever framework trains on them and on however many ranks.

The order of an epoch is a pure function of (seed, split, epoch). It is cut into *global* batches,
and each rank takes those targets of each that an `Assign` gives to it: every rank makes the same
number of steps by construction (unequal steps hang an allreduce), and the remainder is kept. Who
computes which target does not change the loss curve.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.data.ahead import ahead
from gnn_core.data.batch import Batch
from gnn_core.data.checks import index_dtype
from gnn_core.data.exchange import Counters
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.sampler import Sampler
from gnn_core.data.window_sampler import Sampled, WindowSampler

IntArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.integer]
# (targets of a global batch int64 [n], ranks, epoch, step) -> the rank of each, int [n]. A pure
# function, since each rank asks it by itself; any rank may get any number of targets, or none.
Assign = Callable[[IntArray, int, int, int], npt.NDArray[np.integer]]


def rank_slice(length: int, rank: int, world_size: int) -> slice:
    """Which part of `length` items is this rank's: contiguous, sizes differing by one at most."""
    quotient, remainder = divmod(length, world_size)
    start = rank * quotient + min(rank, remainder)
    return slice(start, start + quotient + (rank < remainder))


def equal_slices(targets: IntArray, world_size: int, epoch: int, step: int) -> IntArray:
    """The default `Assign`: each rank its `rank_slice`, in every step."""
    ranks = np.empty(len(targets), np.int64)
    for rank in range(world_size):
        ranks[rank_slice(len(targets), rank, world_size)] = rank
    return ranks


class Loader:
    """Iterates `Batch` for one rank over one split of a graph.

    Args:
        graph: the graph to sample from.
        split: `train`, `valid` or `test`.
        fanouts: neighbours per node and hop, targets outward; -1 takes all.
        global_batch_size: targets per step over all ranks.
        seed: the run's seed.
        rank: this rank.
        world_size: number of ranks (or of replicas).
        shuffle: draw a new order each epoch; otherwise ascending ids.
        prefetch: batches drawn ahead by a thread; 0 draws in the caller's thread.
        assign: which rank computes which targets of a global batch.
        most: of the split's nodes that are taken, evenly spaced; 0 is all.
        store: whose rows of the batches are to be here before they are; None: of no such store.
            Where it has the adjacency rows, in parts, the batches of a window are drawn together.
    """

    def __init__(
        self,
        graph: Graph,
        split: str,
        fanouts: tuple[int, ...],
        global_batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        prefetch: int = 2,
        assign: Assign = equal_slices,
        most: int = 0,
        store: FeatureStore | None = None,
    ):
        self._graph = graph
        self._split = split
        self._most = most
        self._items = self._find_items()
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._shuffle = shuffle
        self._prefetch = prefetch
        self._assign = assign
        self._store = store
        self._last_order: tuple[int, IdArray] | None = None  # of `batch`, and its epoch
        self._sampler = Sampler(graph, fanouts)
        self._window_sampler: WindowSampler | None = None
        if store is not None and store.topology is not None:
            counters = store.topology.counters if split == "train" else Counters()
            self._window_sampler = WindowSampler(store.topology, fanouts, counters)

    @property
    def prefetches(self) -> bool:
        """Whether batches are drawn in another thread, beside the training."""
        return self._prefetch > 0

    @property
    def num_targets(self) -> int:
        """Targets in one epoch, over all ranks."""
        return len(self._items)

    @property
    def num_steps(self) -> int:
        """Steps in one epoch; the same on every rank."""
        return -(-self.num_targets // self._global_batch_size)

    def batches(
        self, epoch: int, first_step: int = 0, prepare: Callable[[Batch], Batch] | None = None
    ) -> Generator[Batch]:
        """The batches of one epoch, from `first_step` on, each as `prepare` returns it.

        `prepare` runs in the prefetch thread, if there is one. Close the iterator
        (`contextlib.closing`) to stop that thread when leaving early.
        """
        prepared = self._prepared(epoch, first_step, prepare)
        if self._prefetch == 0:
            return prepared
        return ahead(prepared, self._prefetch, self._store.wait if self._store else None)

    def _prepared(
        self, epoch: int, first_step: int, prepare: Callable[[Batch], Batch] | None
    ) -> Generator[Batch]:
        order = self._order(epoch)
        batches = self._drawn(order, epoch, range(first_step, self.num_steps))
        if self._store is not None:
            behind = 0 if prepare else self._prefetch
            batches = self._store.arriving(batches, behind, counts=self._split == "train")
        with contextlib.closing(batches):
            for batch in batches:
                yield prepare(batch) if prepare else batch

    def giving_up_on_errors(self) -> contextlib.AbstractContextManager[Any]:
        """Put it around what iterates the batches: see `FeatureStore`."""
        return self._store.giving_up_on_errors() if self._store else contextlib.nullcontext()

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch by itself, drawn in the caller's thread.

        Collective where the adjacency lies in parts of other ranks, unless the store stands in.
        """
        if self._last_order is None or self._last_order[0] != epoch:
            self._last_order = (epoch, self._order(epoch))
        return self._batches(self._last_order[1], epoch, range(step, step + 1))[0]

    def _find_items(self) -> IdArray:
        """What an epoch goes through: here the nodes of the split, in the width of their ids."""
        items = self._graph.split(self._split)
        if 0 < self._most < len(items):
            items = items[np.arange(self._most) * len(items) // self._most]
        return items.astype(index_dtype(self._graph.num_nodes))

    def _order(self, epoch: int) -> IdArray:
        if not self._shuffle:
            return self._items
        return seeding.permuted(self._items, self._seed, "order", self._split, epoch)

    def _drawn(self, order: IdArray, epoch: int, steps: range) -> Generator[Batch]:
        """The batches of the steps; where neighbours come from other ranks, a window at a time."""
        together = self._window_sampler.window if self._window_sampler else 1
        for first in range(0, len(steps), together):
            yield from self._batches(order, epoch, steps[first : first + together])

    def _batches(self, order: IdArray, epoch: int, steps: range) -> list[Batch]:
        start = time.perf_counter()
        shares = [self._share(order, epoch, step) for step in steps]
        if self._window_sampler is None:
            made = [
                self._made(*share, epoch, step) for share, step in zip(shares, steps, strict=True)
            ]
        else:
            keys = [self._sampling_key(epoch, step) for step in steps]
            sampled = self._window_sampler.sample([mine for mine, _, _ in shares], keys)
            made = [
                self._labelled(drawn, *share, epoch, step)
                for drawn, share, step in zip(sampled, shares, steps, strict=True)
            ]
        seconds = (time.perf_counter() - start) / len(steps)
        return [
            replace(batch, sample_seconds=seconds, sampled_at=start + number * seconds)
            for number, batch in enumerate(made, 1)
        ]

    def _share(self, order: IdArray, epoch: int, step: int) -> tuple[IntArray, IntArray, int]:
        """Items of this rank, those of all ranks, and how many of this rank's are no padding."""
        size = self._global_batch_size
        everyones = order[step * size : (step + 1) * size].astype(np.int64)
        is_mine = self._assign(everyones, self._world_size, epoch, step) == self._rank
        mine = everyones[is_mine]
        num_real = len(mine)
        if num_real < -(-len(everyones) // self._world_size):  # so there are others' items
            mine = np.append(mine, everyones[np.argmin(is_mine)])
        return mine, everyones, num_real

    def _made(
        self, mine: IntArray, everyones: IntArray, num_real: int, epoch: int, step: int
    ) -> Batch:
        """The batch of this rank's items `mine` out of those of all ranks."""
        sampled = self._sampler.sample(mine, self._sampling_key(epoch, step))
        return self._labelled(sampled, mine, everyones, num_real, epoch, step)

    def _labelled(
        self,
        sampled: Sampled,
        mine: IntArray,
        everyones: IntArray,
        num_real: int,
        epoch: int,
        step: int,
    ) -> Batch:
        blocks, input_nodes = sampled
        labels = self._graph.labels
        return Batch(
            blocks=blocks,
            input_nodes=input_nodes,
            targets=mine,
            labels=np.full(len(mine), -1, np.int32) if labels is None else labels[mine],
            num_real=num_real,
            num_global_real=len(everyones),
            epoch=epoch,
            step=step,
            key=self._dropout_key(epoch, step),
        )

    def _sampling_key(self, epoch: int, step: int) -> int:
        return seeding.key(self._seed, "sampling", self._split, epoch, step)

    def _dropout_key(self, epoch: int, step: int) -> int:
        return seeding.key(self._seed, "dropout", epoch, step)
