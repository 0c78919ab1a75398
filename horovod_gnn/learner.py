"""The torch learner: batches, model and update of one rank, and the training step.

`gnn_core.training.trainer` calls it; the entry scripts make it from its parts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gnn_core.config import RunConfig
from gnn_core.data.batch import Batch
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.run_record import ParameterServerRecord
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.balance import Balancer
from gnn_core.training.learner import require_alike
from gnn_core.training.state import RunProgress, StepSums, Weights, Work
from gnn_core.training.tasks import build_evaluator, feature_store, open_store, train_loader
from horovod_gnn.convolutions import Sage
from horovod_gnn.device import choose_device
from horovod_gnn.evaluate import Layers, LinkLayers
from horovod_gnn.feed import Batches, Feed, GpuFeed
from horovod_gnn.link import LinkModel
from horovod_gnn.models import build_model, check_model
from horovod_gnn.node_model import NodeModel
from horovod_gnn.norm import LEAST_TARGETS, BatchNorm
from horovod_gnn.objective import Objective, link_objective, node_objective
from horovod_gnn.optimizer import Adam
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.update import Allreduce, Update, build_optimizer


class TorchLearner:
    """See `gnn_core.training.learner.Learner`.

    Args:
        config: the run's.
        graph: what to train on.
        world: the other ranks.
        loader: this rank's batches.
        model: what is trained.
        update: applies the gradients of a step, with those of the other ranks.
        store: where the features are read from; None: the graph's own table.
        balancer: changes the shares that the loader's targets follow.
    """

    def __init__(
        self,
        config: RunConfig,
        graph: Graph,
        world: SingleProcess,
        loader: Batches,
        model: NodeModel | LinkModel,
        update: Update,
        store: FeatureStore | None = None,
        balancer: Balancer | None = None,
    ):
        self._balancer = balancer
        self.loader, self.model, self.update = loader, model, update
        self._world = world
        store, device = store or feature_store(graph, config), model.device
        self.store = store
        self.feed = Feed(store) if device.type == "cpu" else GpuFeed(store, device, config.table_on)
        self.objective: Objective = partial(link_objective, loss=config.link_loss or "bce")
        if config.task == "node":
            self.objective = partial(node_objective, label_smoothing=config.label_smoothing)
        self._batch_norms = [one for one in model.modules() if isinstance(one, BatchNorm)]
        self._schedule = Schedule.of(config, world.num_replicas)
        layers = LinkLayers(model, store) if isinstance(model, LinkModel) else Layers(model, store)
        self.evaluator = build_evaluator(
            config, graph, world, layers, [world.rank], world.world_size, config.prefetch
        )
        self.watch = Stopwatch()
        self.interrupted = False
        self.work = [Work()]
        self.num_steps = loader.num_steps
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.untrained = frozenset(name for name, _ in model.named_buffers())
        self.allreduce_bytes_per_step = update.bytes_per_step
        self.device = str(device)
        self._rates = model.rates
        self.bf16_products = None if self._rates is None else self._rates.facts()

    @classmethod
    def of(cls, config: RunConfig, graph: Graph, world: SingleProcess) -> TorchLearner:
        """The learner with the usual parts."""
        store = open_store(config, graph, world)
        place = (world.rank, world.world_size, config.prefetch)
        balancer = Balancer.of(config, world)
        loader = train_loader(config, graph, *place, store=store, balancer=balancer)
        model = build_model(config, graph, world)
        update = Allreduce(model, build_optimizer(config, model), world)
        return cls(config, graph, world, loader, model, update, store, balancer)

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train from `progress`, which moves along, to the end of its epoch or a stop."""
        self.model.train()
        self.feed.store.lap()  # what an evaluation read is not counted here
        while not self._train_at_these_shares(progress, after_step):
            pass
        return Tally.from_vector(progress.tally)

    def _train_at_these_shares(
        self, progress: RunProgress, after_step: Callable[[float], None]
    ) -> bool:
        """Train until the epoch ends, a stop, or other shares; False for those."""
        batches = self.loader.batches(progress.epoch, progress.step, self.feed.prepare)
        with contextlib.closing(batches), self.loader.giving_up_on_errors():
            begun, waited = time.perf_counter(), self.watch.spent("communicate")
            while (batch := self._next(batches)) is not None:
                sums = self.step(batch)
                loss = progress.advance(batch, sums)
                self.interrupted = sums.num_interrupted > 0
                after_step(loss)
                if self.interrupted:
                    break
                if self._balancer is not None:
                    now, waits = time.perf_counter(), self.watch.spent("communicate")
                    if self._balancer.after_step(now - begun - (waits - waited)):
                        return False
                    begun, waited = time.perf_counter(), self.watch.spent("communicate")
        return True

    def step(self, batch: Batch) -> StepSums:
        """Forward, backward and update; the sums of the step over all ranks."""
        self.work[0].add(batch)
        with self.watch.section("compute"):
            self.update.clear()
            if batch.num_global_real >= LEAST_TARGETS:
                for norm in self._batch_norms:
                    norm.begin_step(batch.num_real, self._world.sum_)
            loss_sum, correct = self.objective(self.model, *self.feed.arrived(batch))
            # Divided by the targets of all ranks: the sum over ranks is the mean over targets.
            (loss_sum / batch.num_global_real).backward()
            is_interrupted = float(self._world.interrupted)
            sums = StepSums(
                float(loss_sum.detach()), float(correct), batch.num_edges, is_interrupted
            )
        self.watch.add("fetch", self.feed.store.lap(), self.feed.fetches_in(self.loader))
        rate = self._schedule.rate(batch.epoch, batch.step, self.num_steps)
        sums = self.update(sums, rate, self.watch)
        for norm in self._batch_norms:
            norm.end_step()
        return sums

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        with self.watch.section("wait"):
            batch = next(batches, None)
            if batch is not None:
                self.feed.wait_for_rows(batch)
        if batch is not None:
            waited = None if self.loader.prefetches else "wait"
            self.watch.add("sample", batch.sample_seconds, waited, batch.sampled_at)
        return batch

    def warm_up(self) -> None:
        """Take a step that changes nothing, so that no epoch is timed while kernels compile.

        One rank of a host goes first: it compiles, and the others find its results on disk.
        """
        for leads in (True, False):
            if leads == (self._world.local_rank == 0):
                with self.feed.store.standing_in():
                    batch = self.feed.prepare(self.loader.batch(0, 0))
                self.model.train()
                loss_sum, _ = self.objective(self.model, *self.feed.arrived(batch))
                loss_sum.backward()
            self._world.barrier()

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """What `evaluator` finds, with nothing dropped."""
        self.model.eval()
        return self.evaluator.tallies(splits, whole)

    @property
    def parameter_server(self) -> ParameterServerRecord | None:
        """What servers did: there are none, the ranks have the weights."""
        return None

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know."""
        found = []
        if self._world.starts_four and self._world.world_size == 1:
            found.append(f"one rank only: `{self._world.starts_four}` starts four")
        if self._rates is not None:
            found.append(self._rates.note())
        if any(isinstance(one, Sage) for one in self.model.modules()):
            found.append("residual, norm or jumping knowledge: layers without the fused kernels")
        if isinstance(self.feed, GpuFeed):
            ahead = "in host memory, the rows of each batch copied to the GPU ahead of its step"
            found.append(f"features {'on the GPU' if self.feed.on_card else ahead}")
        return found

    def weights(self) -> Weights:
        """A copy of the weights."""
        return {name: _copied(tensor) for name, tensor in self.model.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes."""
        state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        self.model.load_state_dict(state)

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers."""
        optimizer = self.update.optimizer
        if not isinstance(optimizer, Adam) or not optimizer.num_steps:
            return {}
        found: Weights = {"step": np.array(int(optimizer.num_steps), np.int64)}
        return found | {name: _copied(moment) for name, moment in self._moments(optimizer)}

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `optimizer_state` gave; ValueError for other names, dtypes or shapes."""
        optimizer = self.update.optimizer
        if not state or not isinstance(optimizer, Adam):
            return
        moments = dict(self._moments(optimizer))
        own = {"step": np.array(0, np.int64)} | {n: _copied(m) for n, m in moments.items()}
        require_alike(own, state)
        optimizer.num_steps.fill_(int(state["step"]))
        for name, moment in moments.items():
            moment.copy_(torch.from_numpy(np.array(state[name])))

    def _moments(self, optimizer: Adam) -> Iterator[tuple[str, Tensor]]:
        for i, (name, _) in enumerate(self.model.named_parameters()):
            yield f"exp_avg.{name}", optimizer.exp_avg[i]
            yield f"exp_avg_sq.{name}", optimizer.exp_avg_sq[i]


def set_up_torch(config: RunConfig, world: SingleProcess) -> None:
    """Check device and own model of this rank, and set the number of threads. UsageError."""
    world.reads_in_place = choose_device(config, world).type == "cpu"
    check_model(config)
    torch.set_num_threads(config.threads)
    if config.threads == 1 and torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):  # in a process that has computed before, too late
            torch.set_num_interop_threads(1)


def _copied(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
