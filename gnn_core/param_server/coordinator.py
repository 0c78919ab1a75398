"""The coordinator of a parameter server: who takes part, and who computes what.

`Coordinator` answers servers and workers in threads of gRPC; the main thread, which runs the
trainer, begins epochs and takes the sums of finished steps.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.clock import Clock, Part
from gnn_core.param_server.placement import place
from gnn_core.param_server.shards import Vector
from gnn_core.usage import Lost, UsageError

_POLL_SECONDS = 1.0  # that a worker's call waits for work, before it asks again
_SLICE_SECONDS = 0.2  # of a wait of the main thread; between two of them it checks
LONG_SECONDS = 5.0  # until it is printed who is waited for


@dataclass(frozen=True)
class Job:
    """What all processes of a job must have in common.

    Attributes:
        version: of the program.
        digest: of the settings that the loss depends on.
        fingerprint: of the graph and of its clusters.
    """

    version: str
    digest: str
    fingerprint: str


@dataclass
class Member:
    """A server or a worker."""

    host: str
    pid: int
    address: str = ""  # of a server
    heard_at: float = field(default_factory=time.monotonic)
    ready: bool = False  # of a worker: it has compiled its step


@dataclass
class FinishedStep:
    """The sums of a step over all its slices."""

    epoch: int
    step: int
    num_global_real: int = 0
    # Slice -> loss sum, correct targets and edges; added up in the order of slices.
    of_slices: dict[int, tuple[float, float, int]] = field(default_factory=dict)

    def sums(self) -> tuple[float, float, int]:
        """Loss sum, correct targets and sampled edges over all slices."""
        losses, correct, edges = zip(
            *(self.of_slices[one] for one in sorted(self.of_slices)), strict=True
        )
        return sum(losses), sum(correct), sum(edges)


@dataclass
class Traffic:
    """What workers have reported since the run began."""

    pushes: int = 0
    bytes_pulled: int = 0
    bytes_pushed: int = 0
    delays: Counter[int] = field(default_factory=Counter)  # updates by others, pull to push
    lost_workers: int = 0
    lost_servers: int = 0
    repeated_parts: int = 0  # handed out again, since a worker was lost


@dataclass
class Seconds:
    """Of the workers, since it was asked for last."""

    compute: float = 0.0
    communicate: float = 0.0
    sample: float = 0.0


class Coordinator:
    """Answers the calls of the service `Coordinator` in control.proto.

    Args:
        job: what servers and workers are compared with.
        slices: into which a global batch is cut; also the workers that are waited for.
        num_servers: that hold the parameters.
        standby: whether each of them has a standby.
        staleness: see `Clock`.
        patience: seconds of silence after which a member is taken for lost.
    """

    def __init__(
        self,
        job: Job,
        slices: int,
        num_servers: int,
        staleness: float,
        patience: float,
        standby: bool = False,
    ):
        self.term = secrets.randbits(63) | 1
        self.clock = Clock(slices, staleness)
        self.traffic = Traffic()
        self.work: dict[int, list[int]] = {}  # worker -> rows and edges, since `begin`
        self.shards: list[Any] = []  # of messages.Shard; [] until all servers are there
        self.table = 0  # how often a standby has taken a server's place
        self._num_shards, self._num_servers = num_servers, num_servers * (2 if standby else 1)
        self._job, self._patience = job, patience
        self._primaries: list[int] = []  # of each shard, the number of the server
        self._spares: dict[int, int] = {}  # shard -> number of its standby
        self._changed = threading.Condition()
        self._members: dict[str, dict[int, Member]] = {"server": {}, "worker": {}}
        self._num_joined = Counter[str]()
        self._epoch: int | None = None  # None: nothing is to be computed
        self._steps: dict[int, FinishedStep] = {}
        self._next_step = 0  # that the main thread takes
        self._seconds = Seconds()
        self._over = self._loaded = False
        self.residual: Vector | None = None  # that the first worker to be ready begins with
        self._residuals: dict[int, Vector | None] = {}  # of each worker that is asked for it

    # --- calls ----------------------------------------------------------------------------------

    def join(self, request: Any) -> Any:
        """Take in a server or a worker."""
        if request.version != self._job.version:
            raise UsageError(
                f"expected a {request.role} of version {self._job.version}, as the coordinator is, "
                f"got {request.version} on {request.host}: install the same version on all hosts"
            )
        with self._changed:
            members = self._members.get(request.role)
            if members is None:
                raise UsageError(f"expected a server or a worker, got {request.role[:20]!r}")
            if request.role == "server" and len(members) == self._num_servers:
                raise UsageError(
                    f"expected {self._num_servers} servers, as the coordinator's --servers and "
                    f"--standby say, got another on {request.host}: start no more of them"
                )
            number = self._num_joined[request.role]
            self._num_joined[request.role] += 1
            members[number] = Member(request.host, request.pid, request.address)
            self._changed.notify_all()
        return messages.JoinReply(member=number, slices=self.clock.slices)

    def ready(self, request: Any) -> Any:
        """Compare a worker's settings and graph; where the shards are, once they are loaded."""
        for what, expected, got in (
            ("settings", self._job.digest, request.digest),
            ("graph", self._job.fingerprint, request.fingerprint),
        ):
            if got != expected:
                raise UsageError(
                    f"expected the {what} of the coordinator ({expected[:12]}), got others in "
                    f"worker {request.worker} ({got[:12]}): start it with the same flags and data"
                )
        with self._changed:
            member = self._members["worker"].get(request.worker)
            if member is not None:
                member.ready, member.heard_at = True, time.monotonic()
                self._changed.notify_all()
            if not self._loaded:
                return messages.ReadyReply()
            return messages.ReadyReply(term=self.term, shards=self.shards, table=self.table)

    def next(self, request: Any) -> Any:
        """Count what a worker has done; what it is to do next."""
        deadline = time.monotonic() + _POLL_SECONDS
        with self._changed:
            if request.HasField("done"):
                self._count(request.worker, request.done)
            if request.residual and request.worker in self._residuals:
                self._residuals[request.worker] = np.frombuffer(request.residual, self._dtype)
                self._changed.notify_all()
            while True:
                if self._over:
                    self._members["worker"].pop(request.worker, None)
                    self._changed.notify_all()
                    return messages.NextReply(over=True)
                member = self._members["worker"].get(request.worker)
                if member is None:
                    return messages.NextReply(unknown=True)
                member.heard_at = time.monotonic()
                if request.worker in self._residuals and self._residuals[request.worker] is None:
                    return messages.NextReply(residual=True)
                part = None if self._epoch is None else self.clock.take(request.worker)
                if part is not None:
                    answer = messages.NextReply(part=self._message(part), table=self.table)
                    if self.residual is not None:
                        answer.kept, self.residual = self.residual.tobytes(), None
                    if (ahead := self.clock.expected(request.worker)) is not None:
                        answer.ahead.CopyFrom(self._message(ahead))
                    return answer
                left = deadline - time.monotonic()
                if left <= 0:
                    return messages.NextReply()
                self._changed.wait(left)

    def beat(self, request: Any) -> Any:
        """Note that a member is there."""
        with self._changed:
            member = self._members.get(request.role, {}).get(request.member)
            if member is not None:
                member.heard_at = time.monotonic()
        return messages.Empty()

    def alone(self, request: Any) -> Any:
        """Let a primary go on without its standby, unless that has taken its place."""
        with self._changed:
            for shard, number in enumerate(self._primaries):
                if number == request.member and request.member in self._members["server"]:
                    if (spare := self._spares.pop(shard, None)) is not None:
                        self._members["server"].pop(spare, None)
                        print(f"lost       the standby of server {shard}", flush=True)
                    return messages.Empty()
        raise UsageError("expected the primary of a shard, got a server whose place was taken")

    # --- of the main thread ---------------------------------------------------------------------

    def await_servers(
        self, seconds: float, check: Callable[[], None]
    ) -> tuple[list[str], list[str]]:
        """Wait for all servers, and place the parameters; addresses of primaries and standbys.

        Raises UsageError where they do not come in time, and what `check` does.
        """
        servers = self._members["server"]
        self._await(lambda: len(servers) == self._num_servers, "server", seconds, check)
        # A standby is on another host than its server, where there are two hosts.
        numbers = sorted(servers, key=lambda one: (servers[one].host, servers[one].pid, one))
        count = self._num_shards
        self._primaries = numbers[:count]
        self._spares = dict(enumerate(numbers[count:]))
        placed = place({f"server {shard}": 1.0 for shard in range(count)})
        addresses = [servers[number].address for number in numbers]
        self.shards = [
            messages.Shard(address=addresses[shard], chunks=placed[f"server {shard}"])
            for shard in range(count)
        ]
        return addresses[:count], addresses[count:]

    def await_workers(self, seconds: float, check: Callable[[], None]) -> list[str]:
        """Wait until as many workers as slices are ready; the host of each."""
        workers = self._members["worker"]

        def all_ready() -> bool:
            return sum(one.ready for one in workers.values()) >= self.clock.slices

        self._await(all_ready, "worker", seconds, check)
        return [one.host for one in list(workers.values())[: self.clock.slices]]

    def loaded(self) -> None:
        """The servers hold the parameters: workers may read them."""
        with self._changed:
            self._loaded = True

    def begin(self, epoch: int, first_step: int, num_steps: int) -> None:
        """Hand out the steps of an epoch, from `first_step` on."""
        with self._changed:
            self.clock.begin(first_step, num_steps)
            self._epoch, self._next_step = epoch, first_step
            self._steps = {}
            self.work = {}
            self._changed.notify_all()

    def finished_step(self, check: Callable[[], None]) -> FinishedStep | None:
        """The next step of the epoch, once it is finished; None after the last.

        Raises Lost where no worker is left, and what `check` does.
        """
        alone_since: float | None = None
        while True:
            check()
            with self._changed:
                if self._next_step < self.clock.finished:
                    self._next_step += 1
                    return self._steps.pop(self._next_step - 1)
                if self.clock.over:
                    self._epoch = None
                    return None
                self._lose_silent_workers()
                if self._members["worker"]:
                    alone_since = None
                else:
                    alone_since = alone_since or time.monotonic()
                    if time.monotonic() - alone_since > self._patience:
                        raise Lost(
                            f"no worker is left, and none has joined for {self._patience:g} s: "
                            "start all again, with --resume to go on from the last checkpoint"
                        )
                self._changed.wait(_SLICE_SECONDS)

    def release(self, step: int) -> None:
        """Let the steps up to this one begin, where all are done in turn."""
        with self._changed:
            self.clock.release(step)
            self._changed.notify_all()

    def drain(self) -> None:
        """End the epoch with the steps that have been begun."""
        with self._changed:
            self.clock.drain()
            self._changed.notify_all()

    def collect_residuals(self, dtype: np.dtype[Any], check: Callable[[], None]) -> Vector:
        """The sum of what all workers have not sent of their gradients, which they keep.

        Call it while nothing is computed. Raises Lost where no worker is left, and what `check`
        does.
        """
        with self._changed:
            self._dtype = dtype
            self._residuals = dict.fromkeys(self._members["worker"])
            self._changed.notify_all()
        while True:
            check()
            with self._changed:
                self._lose_silent_workers()
                members = self._members["worker"]
                asked = sorted(number for number in self._residuals if number in members)
                told = [one for number in asked if (one := self._residuals[number]) is not None]
                if not asked:
                    raise Lost("no worker is left to tell what it has not sent; start all again")
                if len(told) == len(asked):
                    self._residuals = {}
                    kept = [] if self.residual is None else [self.residual]
                    total: Vector = np.sum([*kept, *told], axis=0)
                    return total
                self._changed.wait(_SLICE_SECONDS)

    def finish(self, seconds: float) -> None:
        """The run has ended: tell so the workers, who have so long to ask for more."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._over = True
            self._changed.notify_all()
            while self._members["worker"] and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def lose(self, host: str, pid: int) -> None:
        """A process of a worker or a server has ended."""
        with self._changed:
            for number, member in list(self._members["worker"].items()):
                if (member.host, member.pid) == (host, pid):
                    self._lose(number)
            for number, member in list(self._members["server"].items()):
                if (member.host, member.pid) == (host, pid):
                    del self._members["server"][number]

    def lost_shard(self) -> int | None:
        """A shard whose server is lost, so that its standby is to be promoted.

        The lost one is not let go on alone. Raises Lost where there is no standby.
        """
        now = time.monotonic()
        with self._changed:
            servers = self._members["server"]
            for number, member in list(servers.items()):
                if now - member.heard_at > self._patience:
                    del servers[number]
            for shard, number in list(self._spares.items()):
                if number not in servers:
                    del self._spares[shard]
                    print(f"lost       the standby of server {shard}", flush=True)
            for shard, number in enumerate(self._primaries):
                if number in servers:
                    continue
                if shard not in self._spares:
                    raise Lost(
                        f"server {shard} at {self.shards[shard].address} has ended or shows no "
                        "sign of life, and has no standby: start all again, with --resume to go on "
                        "from the last checkpoint"
                    )
                return shard
        return None

    def promoted(self, shard: int) -> None:
        """The standby of a shard is its server now."""
        with self._changed:
            self._primaries[shard] = self._spares.pop(shard)
            self.shards[shard].address = self._members["server"][self._primaries[shard]].address
            self.table += 1
            self.traffic.lost_servers += 1
            print(f"lost       server {shard}; its standby has taken its place", flush=True)
            self._changed.notify_all()

    def worker_seconds(self) -> Seconds:
        """Seconds of a worker, on average, since this was asked last."""
        with self._changed:
            total, self._seconds = self._seconds, Seconds()
            workers = max(1, len(self.work))
        return Seconds(*(value / workers for value in vars(total).values()))

    def _await(
        self, here: Callable[[], bool], role: str, seconds: float, check: Callable[[], None]
    ) -> None:
        begun = time.monotonic()
        report_at = begun + LONG_SECONDS
        wanted = self._num_servers if role == "server" else self.clock.slices
        while True:
            check()
            with self._changed:
                if here():
                    return
                have = len(self._members[role])
                now = time.monotonic()
                if now - begun > seconds:
                    raise UsageError(
                        f"expected {wanted} {role}s within {seconds:g} s, got {have}: start all of "
                        "them, or wait longer with --start-timeout"
                    )
                if now > report_at:
                    report_at = now + max(LONG_SECONDS, now - begun)
                    print(f"waiting    for {role}s: {have} of {wanted} have joined", flush=True)
                self._changed.wait(_SLICE_SECONDS)

    # --- under the lock -------------------------------------------------------------------------

    def _message(self, part: Part) -> Any:
        return messages.Part(
            epoch=self._epoch, step=part.step, slice=part.slice, attempt=self.clock.attempts[part]
        )

    def _count(self, worker: int, done: Any) -> None:
        part = Part(done.part.step, done.part.slice)
        if done.part.epoch != self._epoch or not self.clock.done(worker, part):
            return
        sums = self._steps.setdefault(part.step, FinishedStep(done.part.epoch, part.step))
        sums.num_global_real = done.num_global_real
        sums.of_slices[part.slice] = (done.loss_sum, done.num_correct, done.num_edges)
        rows_and_edges = self.work.setdefault(worker, [0, 0])
        rows_and_edges[0] += done.num_rows
        rows_and_edges[1] += done.num_edges
        self.traffic.pushes += 1
        self.traffic.bytes_pulled += done.bytes_pulled
        self.traffic.bytes_pushed += done.bytes_pushed
        self.traffic.delays[done.delay] += 1
        self._seconds.compute += done.compute_seconds
        self._seconds.communicate += done.communicate_seconds
        self._seconds.sample += done.sample_seconds
        self._changed.notify_all()

    def _lose_silent_workers(self) -> None:
        now = time.monotonic()
        for number, member in list(self._members["worker"].items()):
            if now - member.heard_at > self._patience:
                self._lose(number)

    def _lose(self, number: int) -> None:
        member = self._members["worker"].pop(number)
        self.traffic.lost_workers += 1
        part = self.clock.lose(number)
        self.traffic.repeated_parts += part is not None
        again = "" if part is None else f"; step {part.step + 1} is computed by another"
        print(f"lost       worker {number} ({member.host}){again}", flush=True)
        self._changed.notify_all()
