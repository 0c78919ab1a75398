"""World: what a run needs of the other processes of its job, whatever joins them.

`World` itself is the world of a single process. A framework's own way to meet (Horovod,
`tf.distribute`) is a subclass that overrides the three collectives; all else is made of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.exchange import Transport
from gnn_core.launch import seconds_until_killed
from gnn_core.measure.machine import host_name
from gnn_core.training.monitor import RankMonitor
from gnn_core.usage import Lost, SharedUsageError, UsageError

__all__ = ["World", "Lost", "Stopped", "Wait", "WorldChanged"]
_SLICE_SECONDS = 0.2  # of a wait for a thread; between two of them signals are handled


class Stopped(Exception):
    """A stop signal came: all ranks have agreed to end here, or the others answer no more."""


class WorldChanged(Exception):
    """Ranks have gone, or are to join: those that are here meet anew and go on from memory."""


class World:
    """The world of a single process, with one replica of the model unless a subclass has more."""

    rank = 0  # of this process
    world_size = 1  # number of processes
    local_rank = 0
    controller: str | None = None
    elastic = False  # whether ranks may go and join while the run goes on
    reads_in_place = False  # steps read the rows of a store where it keeps them, with no copy

    def __init__(self) -> None:
        self.hosts_changed = False  # the launcher has said so, on this rank at least
        self.stop_signal: int | None = None  # number of the signal that asked this rank to stop
        self.stops_together = False  # since one of all was asked to
        self.rank_hosts = [host_name()]  # of each process
        self.monitor: RankMonitor | None = None  # of the other processes, where there are any
        self.join_by: float | None = None  # on the clock of `time.monotonic`, until there is one
        self.grace_seconds = 0.6 * seconds_until_killed()  # told to stop, it still waits so long
        self.can_save = False  # whether a stop signal may wait for the end of a step

    # --- waiting --------------------------------------------------------------------------------

    def monitor_ranks(
        self,
        timeout_seconds: float,
        helpers: frozenset[int] = frozenset(),
        computes_in_waits: bool = False,
    ) -> None:
        """Watch over the waits for other ranks from now on; gives `rank_hosts`, too. Collective.

        Args:
            timeout_seconds: how long to wait for a rank that shows no sign of life.
            helpers: threads of this process that work while another rank waits.
            computes_in_waits: whether a collective is one call with what is computed around it.
        """
        monitor = RankMonitor(self.rank, timeout_seconds, helpers, computes_in_waits)
        cards = self.gather(monitor.card())
        self.rank_hosts = [card["host"] for card in cards]
        monitor.watch(cards)
        self.monitor = monitor

    def waiting(self) -> Wait:
        """A wait for other ranks: `with world.waiting() as wait`, with `wait.check()` inside."""
        return Wait(self)

    def wait_for_thread(self, done: Callable[[float], bool]) -> None:
        """Wait until `done(seconds)`, which waits so long at most, for a thread of this rank.

        It may wait for other ranks itself, so all of them have to do this equally often. Raises
        what `Wait.check` does.
        """
        with Wait(self, computes=True) as wait:
            while not done(_SLICE_SECONDS):
                wait.check()

    def row_transport(self) -> Transport | None:
        """How rows of features come from other ranks; None where there are none. Collective."""
        return None

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

    @property
    def processes_here(self) -> int:
        """How many processes of the job this host has."""
        return self.rank_hosts.count(self.rank_hosts[self.rank])

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

    def raise_if_interrupted(self) -> None:
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

    def leave_world(self) -> None:
        """Leave a world that has changed, whoever of it is still there."""

    @contextlib.contextmanager
    def errors_on_all_ranks(self) -> Iterator[None]:
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
        lines = (f"rank {rank} ({self.rank_hosts[rank]}): {text}" for text, rank in found.items())
        raise SharedUsageError("; ".join(sorted(lines)))


class Wait:
    """A collective of this rank, from when it has nothing to do but wait for the others."""

    __slots__ = ("_world", "_monitor", "_computes", "_stopping_since")

    def __init__(self, world: World, computes: bool = False):
        self._world, self._monitor = world, world.monitor
        self._computes = computes  # another thread of this process does, in the meantime
        self._stopping_since: float | None = None

    def __enter__(self) -> Wait:
        if self._monitor is not None:
            self._monitor.begin(self._computes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._monitor is not None:
            self._monitor.end()

    def check(self) -> None:
        """Call it again and again while nothing has come yet.

        Raises:
            Stopped: this rank was told to stop, and the others do not come any more.
            Lost: some rank will not come.
        """
        monitor = self._monitor
        if monitor is not None and monitor.verdict is not None:
            raise Lost(monitor.verdict)
        if monitor is not None and monitor.failure is not None and not self._world.elastic:
            raise Lost(monitor.failure)
        joins = self._monitor is None and self._world.join_by is not None
        if self._world.stop_signal is None and not joins:
            return
        now = time.monotonic()
        if joins and now > (self._world.join_by or now):
            raise Lost("all ranks have joined, but some do not answer; start all again")
        if self._world.stop_signal is None:
            return
        self._stopping_since = self._stopping_since or now
        # It still waits for the others, but not until it is killed unsaved.
        if now - self._stopping_since > self._world.grace_seconds:
            raise Stopped
