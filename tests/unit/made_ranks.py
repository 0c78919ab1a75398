"""Ranks that are threads of this process, for tests of what they exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from gnn_core.training.world import World
from tests.patience import patient


class Rendezvous:
    """Where threads that play ranks exchange what each brings."""

    def __init__(self, world_size: int):
        self.barrier = threading.Barrier(world_size, timeout=patient(20))
        self.brought: list[Any] = [None] * world_size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.brought[rank] = value
        self.barrier.wait()
        result = list(self.brought)
        self.barrier.wait()
        return result


class ThreadRank(World):
    """A rank that is a thread."""

    def __init__(self, rank: int, rendezvous: Rendezvous, hosts: list[str]):
        super().__init__()
        self.rank, self.world_size = rank, len(hosts)
        self.rank_hosts = hosts
        self._rendezvous = rendezvous

    def gather(self, value: Any) -> list[Any]:
        return self._rendezvous.exchange(self.rank, value)

    def sum(self, vector: np.ndarray) -> np.ndarray:
        return np.sum(self._rendezvous.exchange(self.rank, vector.copy()), axis=0)

    def broadcast(self, array: np.ndarray, root: int = 0) -> np.ndarray:
        brought = self._rendezvous.exchange(self.rank, array.copy())
        assert {(theirs.shape, theirs.dtype) for theirs in brought} == {(array.shape, array.dtype)}
        return brought[root].copy()


def on_ranks(hosts: list[str], work: Callable[[World], Any]) -> list[Any]:
    """What `work` returns on each rank; an exception of one rank is raised here."""
    rendezvous = Rendezvous(len(hosts))
    results: list[Any] = [None] * len(hosts)

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadRank(rank, rendezvous, hosts))
        except Exception as error:
            rendezvous.barrier.abort()
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [r for r in results if isinstance(r, Exception)]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return results
