"""Fellows: what a run needs of the other processes of its job, whatever joins them.

`Fellows` itself is the world of a single process. A framework's own way to meet (Horovod,
`tf.distribute`) is a subclass that overrides the three collectives; all else is made of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.report.machine import host_name
from gnn_core.usage import SharedUsageError, UsageError


class Stopped(Exception):
    """A stop signal came: all ranks have agreed to end here, or the others answer no more."""


class Lost(Exception):
    """Another process has gone without a word: the run cannot go on."""


class WorldChanged(Exception):
    """Ranks have gone, or are to join: those that are here meet anew and go on from memory."""


class Fellows:
    """The world of a single process, with one replica of the model unless a subclass has more."""

    rank = 0  # of this process
    world_size = 1  # number of processes
    local_rank = 0
    controller: str | None = None
    elastic = False  # whether ranks may go and join while the run goes on

    def __init__(self) -> None:
        self.hosts_changed = False  # the launcher has told so, on this rank at least
        self.stop_signal: int | None = None  # number of the signal that asked this rank to stop
        self.stops_together = False  # since one of all was asked to
        self.rank_hosts = [host_name()]  # of each process

    # --- the collectives ------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """A JSON-able value of every process, in the order of ranks, on every process."""
        return [value]

    def sum(self, vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum of `vector` over the processes."""
        return vector

    def broadcast(self, array: npt.NDArray[Any], root: int = 0) -> npt.NDArray[Any]:
        """The array of process `root`; all processes bring one of its shape and dtype."""
        return array

    # --- made of them ---------------------------------------------------------------------------

    @property
    def num_replicas(self) -> int:
        """Replicas of the model over all processes: into so many slices a batch is cut."""
        return self.world_size

    @property
    def replica_hosts(self) -> list[str]:
        """The host of each replica."""
        return self.rank_hosts

    @property
    def single_host(self) -> bool:
        """Whether all processes share one machine, its page cache and its files."""
        return len(set(self.rank_hosts)) == 1

    def broadcast_bytes(self, data: bytes, root: int = 0) -> bytes:
        """The bytes of process `root`, of any length, on every process."""
        size = self.gather(len(data))[root]
        if not size:
            return b""
        mine = data if self.rank == root else bytes(size)
        return self.broadcast(np.frombuffer(mine, np.uint8).copy(), root).tobytes()

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.gather(None)

    @property
    def interrupted(self) -> bool:
        """Whether this rank knows a reason to end training after its present step."""
        return self.stop_signal is not None or self.hosts_changed

    def heed(self) -> None:
        """Raise what has interrupted training, after a step that told all ranks of it.

        Stopped if any rank was asked to stop, WorldChanged if it is only the hosts.
        """
        if not self.elastic:
            raise Stopped
        self.stop_together()
        raise WorldChanged

    def stop_together(self) -> None:
        """Raise Stopped on every rank if a signal asked any of them to stop.

        A rank that stopped by itself would leave the others waiting for it.
        """
        self.stops_together = any(self.gather(self.stop_signal is not None))
        if self.stops_together:
            raise Stopped

    def leave(self) -> None:
        """Part at the end of a run that went well, in whatever order it takes."""

    def disband(self) -> None:
        """Leave a world that has changed, whoever of it is still there."""

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Around what a rank may refuse by itself: a UsageError in it is raised on every rank."""
        problem = None
        try:
            yield
        except UsageError as error:
            problem = str(error)
        self.require_agreement(problem)

    def require_agreement(self, problem: str | None) -> None:
        """Raise the same UsageError on every rank if any of them has a problem."""
        problems = self.gather(problem)
        found = {text: rank for rank, text in reversed(list(enumerate(problems))) if text}
        if not found:
            return
        if len(found) == 1 and all(problems):
            raise SharedUsageError(next(iter(found)))
        told = (f"rank {rank} ({self.rank_hosts[rank]}): {text}" for text, rank in found.items())
        raise SharedUsageError("; ".join(sorted(told)))
