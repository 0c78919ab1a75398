"""The learner of a coordinator: servers hold the weights, workers compute the steps.

It evaluates, saves and resumes like that of one process. What the trainer asks of an epoch, workers
do; what it asks of weights and optimizer is read from the servers and written to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.parameter_worker import dtype_of, flatten, spread
from gnn_core.config import RunConfig
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.run_record import ParameterServerRecord
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.compression import NONE
from gnn_core.param_server.coordinator import Coordinator
from gnn_core.param_server.journal import Journal, Key, Update
from gnn_core.param_server.rpc import Callee, Peer, answer_all
from gnn_core.param_server.shards import Shards, vector_of
from gnn_core.training.state import RunProgress, StepSums, Weights, Work
from gnn_core.usage import Lost
from horovod_gnn.learner import TorchLearner
from horovod_gnn.link import LinkModel
from horovod_gnn.node_model import NodeModel
from horovod_gnn.optimizer import Adam
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.update import Allreduce, build_optimizer

_RESIDUAL = "residual."  # before the name of a parameter, in a checkpoint


class ServedParameters:
    """The model's parameters and the optimizer's moments, as the coordinator reads and sets them.

    Args:
        coordinator: that knows which shard is where.
        peers: the servers, in the order of the shards; others where standbys take over.
        config: the run's.
        model: whose parameters they hold.
        spares: shard -> its standby; fewer where some have taken over or are lost.
        recover: returns when another server has taken the place of a lost one; raises Lost.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        peers: Sequence[Callee],
        config: RunConfig,
        model: NodeModel | LinkModel,
        spares: Mapping[int, Peer] | None = None,
        recover: Callable[[], None] | None = None,
    ):
        self._spares, self._recover = spares or {}, recover
        self.optimizer = build_optimizer(config, model)
        self._peers, self._config = peers, config
        self._term, self._slices = coordinator.term, coordinator.clock.slices
        self._parameters = list(model.parameters())
        self._dtype = dtype_of(self._parameters)
        self._flat = flatten(self._parameters)
        chunks = [list(shard.chunks) for shard in coordinator.shards]
        self._shards = Shards(len(self._flat), chunks)
        self.num_bytes = self._flat.nbytes
        self.chunks_held = [len(some) for some in chunks]

    def load(self, with_optimizer: bool = False) -> None:
        """Give the servers what the model, and its optimizer, have. Raises UsageError or Lost."""
        values = self._shards.cut(flatten(self._parameters))
        requests = [self._request(one.size, one.tobytes()) for one in values]
        if with_optimizer and isinstance(self.optimizer, Adam):
            moments = zip(
                self._shards.cut(flatten(self.optimizer.exp_avg)),
                self._shards.cut(flatten(self.optimizer.exp_avg_sq)),
                strict=True,
            )
            for request, (mean, square) in zip(requests, moments, strict=True):
                request.exp_avg, request.exp_avg_sq = mean.tobytes(), square.tobytes()
                request.num_steps = int(self.optimizer.num_steps)
        self._all("Load", requests)
        for shard, spare in list(self._spares.items()):
            requests[shard].is_standby, requests[shard].standby = True, ""
            with contextlib.suppress(Lost):  # which is found out soon
                spare.call("Load", requests[shard])

    def read(self, with_optimizer: bool = False) -> None:
        """Give the model, and its optimizer, what the servers have. Raises UsageError or Lost."""
        request = messages.ReadRequest(optimizer=with_optimizer)
        answers = self._all("Read", [request] * len(self._peers))
        spread(self._joined([one.values for one in answers]), self._parameters)
        if with_optimizer and isinstance(self.optimizer, Adam):
            spread(self._joined([one.exp_avg for one in answers]), self.optimizer.exp_avg)
            spread(self._joined([one.exp_avg_sq for one in answers]), self.optimizer.exp_avg_sq)
            self.optimizer.num_steps.fill_(max(one.num_steps for one in answers))

    def updates(self) -> list[list[Update]]:
        """What was applied in this epoch, of each server in order. Raises UsageError or Lost."""
        request = messages.ReadRequest(journal=True)
        answers = self._all("Read", [request] * len(self._peers))
        return [
            [
                Update(Key(one.part.step, one.part.slice, one.part.attempt), tuple(one.pulled))
                for one in answer.journal
            ]
            for answer in answers
        ]

    def _all(self, method: str, requests: Sequence[Any]) -> list[Any]:
        """The answers of all servers. Raises UsageError or Lost."""
        while True:
            if method == "Load":
                for shard, request in enumerate(requests):
                    spare = self._spares.get(shard)
                    request.standby = spare.address if spare else ""
            try:
                return answer_all(self._peers, method, requests)
            except Lost:
                if self._recover is None:
                    raise
                self._recover()

    def _request(self, size: int, values: bytes) -> Any:
        return messages.LoadRequest(
            term=self._term,
            dtype=self._dtype,
            optimizer=self._config.optimizer,
            weight_decay=self._config.weight_decay,
            synchronous=self._config.staleness == "0",
            slices=self._slices,
            size=size,
            values=values,
            compress=self._config.compress,
        )

    def _joined(self, shards: Sequence[bytes]) -> np.ndarray:
        values = [
            vector_of(data, self._dtype, size)
            for data, size in zip(shards, self._shards.sizes, strict=True)
        ]
        self._shards.join(values, self._flat)
        return self._flat


class ServedLearner(TorchLearner):
    """See `gnn_core.training.learner.Learner`.

    Args:
        config: the run's.
        graph: what to train on.
        world: of this process.
        loader: that tells how many steps an epoch has.
        model: what is trained.
        parameters: of the model, on the servers.
        coordinator: of the workers.
        check: called again and again while workers compute; raises what ends the run.
        store: where the features are read from.
        journal: gets the updates of each epoch, and is written to --journal.
    """

    def __init__(
        self,
        config: RunConfig,
        graph: Graph,
        world: SingleProcess,
        loader: Loader,
        model: NodeModel | LinkModel,
        parameters: ServedParameters,
        coordinator: Coordinator,
        check: Callable[[], None],
        store: FeatureStore | None = None,
        journal: Journal | None = None,
    ):
        update = Allreduce(model, parameters.optimizer, world)
        super().__init__(config, graph, world, loader, model, update, store)
        self._parameters, self._coordinator, self._check = parameters, coordinator, check
        self._config, self._journal = config, journal
        self.allreduce_bytes_per_step = parameters.num_bytes
        self.work = [Work() for _ in range(coordinator.clock.slices)]

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Let the workers train to the end of the epoch, or of the steps begun before a stop."""
        coordinator, drains = self._coordinator, False
        coordinator.begin(progress.epoch, progress.step, self.num_steps)
        while True:
            if self._world.interrupted and not drains:
                coordinator.drain()
                drains = True
            with self.watch.section("wait"):
                step = coordinator.finished_step(self._check)
            if step is None:
                break
            loss_sum, num_correct, num_edges = step.sums()
            loss = progress.advance(step, StepSums(loss_sum, num_correct, num_edges, 0.0))
            after_step(loss)
            coordinator.release(progress.step)
        self.interrupted = progress.step < self.num_steps
        self._count_work()
        if self._journal is not None and not self.interrupted:
            self._journal.add(self._parameters.updates())
            self._journal.write(Path(self._config.journal or ""))
        return Tally.from_vector(progress.tally)

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """What `evaluator` finds with the servers' weights."""
        self._parameters.read()
        return super().evaluate(splits, whole)

    def warm_up(self) -> None:
        """Workers have compiled their steps before they were ready."""

    def weights(self) -> Weights:
        """A copy of the servers' weights."""
        self._parameters.read()
        return super().weights()

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Give the servers weights of the same names and shapes."""
        super().load_weights(weights)
        self._parameters.load()

    def optimizer_state(self) -> Weights:
        """A copy of what the servers' optimizers remember."""
        self._parameters.read(with_optimizer=True)
        return super().optimizer_state() | self._residuals()

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Give the servers what `optimizer_state` gave; ValueError for other arrays."""
        own = {name: array for name, array in state.items() if not name.startswith(_RESIDUAL)}
        super().load_optimizer_state(own)
        self._parameters.load(with_optimizer=bool(own))
        residual = [state[name].reshape(-1) for name in self._residual_names() if name in state]
        if residual:
            self._coordinator.residual = np.concatenate(residual)

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know."""
        found = [*super().notes(), "memory and resources are those of the coordinator alone"]
        if self._config.compress != NONE:
            found.append(f"--compress {self._config.compress}: the loss curve is another one")
        if self._config.staleness != "0":
            found.append(
                f"--staleness {self._config.staleness}: each push is an update of its own, so that "
                "the loss curve is another one and differs from run to run"
            )
        return found

    @property
    def parameter_server(self) -> ParameterServerRecord:
        """What servers and workers did until now."""
        traffic = self._coordinator.traffic
        return ParameterServerRecord(
            servers=len(self._parameters.chunks_held),
            chunks=self._parameters.chunks_held,
            staleness=self._config.staleness,
            compress=self._config.compress,
            pushes=traffic.pushes,
            bytes_pulled=traffic.bytes_pulled,
            bytes_pushed=traffic.bytes_pushed,
            unfinished_steps=_histogram(self._coordinator.clock.missing),
            updates_between=_histogram(traffic.delays),
            lost_workers=traffic.lost_workers,
            lost_servers=traffic.lost_servers,
            repeated_parts=traffic.repeated_parts,
        )

    def _residual_names(self) -> list[str]:
        return [f"{_RESIDUAL}{name}" for name, _ in self.model.named_parameters()]

    def _residuals(self) -> Weights:
        """What workers have not sent yet of their gradients; {} where they send all."""
        begun = self._coordinator.traffic.pushes or self._coordinator.residual is not None
        if self._config.compress == NONE or not begun:
            return {}
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        total = self._coordinator.collect_residuals(flatten(parameters).dtype, self._check)
        parts = np.split(total, np.cumsum([one.numel() for one in parameters])[:-1])
        named = zip(self._residual_names(), parts, parameters, strict=True)
        return {name: part.reshape(tuple(one.shape)) for name, part, one in named}

    def _count_work(self) -> None:
        """Take over rows, edges and seconds of the workers."""
        for place, (rows, edges) in enumerate(self._coordinator.work.values()):
            self.work[place % len(self.work)].rows += rows
            self.work[place % len(self.work)].edges += edges
        for name, seconds in vars(self._coordinator.worker_seconds()).items():
            self.watch.add(name, seconds, out_of=None if name == "sample" else "wait")


def _histogram(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}
