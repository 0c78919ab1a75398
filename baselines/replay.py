"""The learner that makes an asynchronous run of a parameter server once more, in one process.

It follows the journal of the run: each gradient is computed with the versions of the shards that it
was computed with then, and applied in the order of then, by the same code. All weights are equal to
the last bit on a machine of the same kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from baselines.parameter_shard import ParameterShard
from baselines.parameter_worker import flat_gradient, flatten, spread
from baselines.served_learner import ServedLearner
from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.coordinator import FinishedStep
from gnn_core.param_server.journal import Journal, Key, Update
from gnn_core.param_server.shards import Shards, Vector, vector_of
from gnn_core.training.state import RunProgress, StepSums
from gnn_core.usage import UsageError
from horovod_gnn.optimizer import SGD


class LocalServer:
    """A server in this process, called as `rpc.Peer` is."""

    def __init__(self) -> None:
        self._shard = ParameterShard()

    def begin(self, method: str, request: Any) -> Any:
        """The answer, at once."""
        return getattr(self._shard, method.lower())(request)

    def finish(self, call: Any) -> Any:
        """The same."""
        return call

    def call(self, method: str, request: Any) -> Any:
        """The answer."""
        return self.begin(method, request)


class _Kept:
    """Keeps the gradient of a step, in the place of an allreduce."""

    def __init__(self, parameters: Sequence[torch.Tensor], optimizer: SGD):
        self.optimizer = optimizer
        self._gradient = flat_gradient(parameters)
        self.bytes_per_step = 0

    def clear(self) -> None:
        self._gradient.zero_()

    def __call__(self, sums: StepSums, lr: float, watch: Stopwatch) -> StepSums:
        self.gradient: Vector = self._gradient.cpu().numpy().copy()
        self.lr = lr
        return sums


class Replay:
    """Puts the updates of one epoch into an order in which one process can make them.

    Args:
        updates: of each server, in order.
        versions: of each shard at the beginning.
        read: gives the present values of a shard.
        compute: computes the gradient of a key from the values of all shards.
        apply: applies the gradient of a key to a shard.
    """

    def __init__(
        self,
        updates: Sequence[Sequence[Update]],
        versions: Sequence[int],
        read: Callable[[int], Vector],
        compute: Callable[[Key, list[Vector]], None],
        apply: Callable[[int, Update], None],
    ):
        self._updates, self._versions = updates, list(versions)
        self._read, self._compute, self._apply = read, compute, apply
        self._next = [0] * len(updates)  # place in `updates` of each server
        pulled = {one.key: one.pulled for some in updates for one in some}
        self._values: dict[Key, dict[int, Vector]] = {key: {} for key in pulled}
        # (server, version) -> the gradients that are computed with it
        self._wanted: dict[tuple[int, int], list[Key]] = {}
        for key, of_shards in pulled.items():
            for place in enumerate(of_shards):
                self._wanted.setdefault(place, []).append(key)
        self._computed: set[Key] = set()

    def run(self) -> None:
        """Make all updates. Raises UsageError where their order contradicts itself."""
        for server in range(len(self._updates)):
            self._look(server)
        moved = True
        while moved:
            moved = any([self._advance(server) for server in range(len(self._updates))])
        if any(place < len(some) for place, some in zip(self._next, self._updates, strict=True)):
            raise UsageError(
                "--replay: expected updates that follow from each other, got one that was computed "
                "with weights that never were: the journal is damaged"
            )

    def _advance(self, server: int) -> bool:
        """Apply the next updates of a server as long as their gradients are known."""
        first = self._next[server]
        updates = self._updates[server]
        while self._next[server] < len(updates):
            update = updates[self._next[server]]
            if update.key not in self._computed:
                break
            self._apply(server, update)
            self._next[server] += 1
            self._versions[server] += 1
            self._look(server)
        return self._next[server] > first

    def _look(self, server: int) -> None:
        """Keep the present values of a shard for the gradients that are computed with them."""
        wanted = self._wanted.get((server, self._versions[server]))
        if wanted is None:
            return
        values = self._read(server)
        for key in wanted:
            of_key = self._values[key]
            of_key[server] = values
            if len(of_key) == len(self._updates):
                self._compute(key, [of_key[one] for one in range(len(self._updates))])
                self._computed.add(key)
                del self._values[key]


class ReplayLearner(ServedLearner):
    """See `ServedLearner`; nobody else takes part.

    Call `follow` before the run.
    """

    def follow(
        self, journal: Journal, servers: Sequence[LocalServer], loader_of: Callable[[int], Loader]
    ) -> None:
        """Take over what is to be made.

        Args:
            journal: of the run.
            servers: that hold the shards of the journal.
            loader_of: gives the loader of a slice.
        """
        self._followed, self._servers = journal, list(servers)
        self._loaders = [loader_of(one) for one in range(journal.slices)]
        parameters = list(self.model.parameters())
        self._all = parameters
        self._flat = flatten(parameters)
        self._shards = Shards(len(self._flat), journal.chunks)
        self._kept = _Kept(parameters, self.update.optimizer)
        self.update = self._kept

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Make the updates of an epoch of the journal."""
        if progress.epoch >= len(self._followed.epochs):
            raise UsageError(
                f"--replay: expected a journal of {progress.epoch + 1} epochs, got one of "
                f"{len(self._followed.epochs)}: give --epochs {len(self._followed.epochs)}"
            )
        self.model.train()
        self._gradients: dict[Key, tuple[Vector, float, float]] = {}
        self._steps: dict[int, FinishedStep] = {}
        self._epoch = progress.epoch
        pull = messages.PullRequest(term=self._coordinator.term)
        versions = [server.call("Pull", pull).version for server in self._servers]
        updates = self._followed.updates(progress.epoch)
        self._uses = Counter(one.key for some in updates for one in some)
        Replay(updates, versions, self._values_of, self._compute, self._apply).run()
        for step in range(self.num_steps):
            if step not in self._steps:
                raise UsageError(
                    f"--replay: expected all {self.num_steps} steps of epoch {self._epoch + 1}, "
                    f"got none of step {step + 1}: the run did not end it"
                )
            losses, correct, edges = self._steps[step].sums()
            after_step(progress.advance(self._steps[step], StepSums(losses, correct, edges, 0.0)))
        self.interrupted = self._world.interrupted
        return Tally.from_vector(progress.tally)

    def _values_of(self, server: int) -> Vector:
        pull = messages.PullRequest(term=self._coordinator.term)
        data = self._servers[server].call("Pull", pull).values
        return vector_of(data, self._flat.dtype.name, self._shards.sizes[server])

    def _compute(self, key: Key, values: list[Vector]) -> None:
        self._shards.join(values, self._flat)
        spread(self._flat, self._all)
        batch = self.feed.prepare(self._loaders[key.slice].batch(self._epoch, key.step))
        sums = self.step(batch)
        share = batch.num_real / batch.num_global_real
        self._gradients[key] = (self._kept.gradient, self._kept.lr, share)
        step = self._steps.setdefault(key.step, FinishedStep(self._epoch, key.step))
        step.num_global_real = batch.num_global_real
        step.of_slices[key.slice] = (sums.loss_sum, sums.num_correct, batch.num_edges)

    def _apply(self, server: int, update: Update) -> None:
        gradient, lr, share = self._gradients[update.key]
        step, slice_, attempt = update.key
        part = messages.Part(epoch=self._epoch, step=step, slice=slice_, attempt=attempt)
        request = messages.PushRequest(
            term=self._coordinator.term,
            part=part,
            lr=lr,
            share=share,
            gradient=self._shards.cut(gradient)[server].tobytes(),
            pulled=update.pulled,
        )
        self._servers[server].call("Push", request)
        self._uses[update.key] -= 1
        if not self._uses[update.key]:
            del self._gradients[update.key]
