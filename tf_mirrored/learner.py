"""The Keras learner: batches, model and update of one process, and the training step.

`gnn_core.training.trainer` calls it; `train.py` makes it from its parts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from gnn_core.config import RunConfig
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.learner import require_alike
from gnn_core.training.state import RunProgress, StepSums, Weights, Work
from gnn_core.training.tasks import build_evaluator, feature_store, open_store, train_loader
from tf_mirrored.evaluate import Layers, LinkLayers
from tf_mirrored.input import Feed, Prepared, feature_table, prepared
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE, trainable
from tf_mirrored.models import build_model
from tf_mirrored.objective import Objective, link_objective, node_objective
from tf_mirrored.step import TracedStep
from tf_mirrored.strategy import Replicas
from tf_mirrored.update import Allreduce, build_optimizer


class KerasLearner:
    """See `gnn_core.training.learner.Learner`.

    Args:
        config: the run's.
        graph: what to train on.
        world: the replicas of this process, and the others.
        loaders: the batches of each replica of this process; none prefetches.
        model: what is trained.
        update: applies the gradients of a step, with those of the other replicas.
        store: where the features are read from; None: the graph's own table.
    """

    def __init__(
        self,
        config: RunConfig,
        graph: Graph,
        world: Replicas,
        loaders: list[Loader],
        model: GraphSAGE | LinkModel,
        update: Allreduce,
        store: FeatureStore | None = None,
    ):
        self._config, self._world = config, world
        self.loaders, self.model, self.update = loaders, model, update
        store = self.store = store or feature_store(graph, config)
        self._feed = Feed(config, store, training=True)
        self._table = feature_table(store)
        objective: Objective = node_objective
        if config.task == "link":
            objective = partial(link_objective, loss=config.link_loss or "bce")
        self.step = TracedStep(model, objective, update, self._feed, self._table, world)
        self._schedule = Schedule.of(config, world.num_replicas)
        feed = Feed(config, store, training=False)
        self.layers: Layers
        if isinstance(model, LinkModel):
            self.layers = LinkLayers(model, self._table, feed)
        else:
            self.layers = Layers(model, self._table, feed)
        self.evaluator = build_evaluator(
            config, graph, world, self.layers, world.local_replicas, world.num_replicas, prefetch=0
        )
        self.watch = Stopwatch()
        self.interrupted = False
        self.work = [Work() for _ in loaders]
        self.num_steps = loaders[0].num_steps
        self.num_parameters = sum(math.prod(v.shape) for v in trainable(model))
        self.allreduce_bytes_per_step = update.bytes_per_step(self._feed.real)
        self.device = "gpu" if world.devices[0].startswith("GPU") else "cpu"
        rounds = config.precision == "bf16"  # and multiplies as fp32, see `rounded_product`
        self.untrained: frozenset[str] = frozenset()
        self.parameter_server = None
        self.bf16_products = {"multiplied_as": "fp32"} if rounds else None

    @classmethod
    def of(cls, config: RunConfig, graph: Graph, world: Replicas) -> KerasLearner:
        """The learner with the usual parts."""
        store = open_store(config, graph, world)
        loaders = [
            train_loader(config, graph, replica, world.num_replicas, prefetch=0, store=store)
            for replica in world.local_replicas
        ]
        with world.strategy.scope():
            model = build_model(config, graph)
            update = Allreduce(trainable(model), build_optimizer(config, model), world)
        return cls(config, graph, world, loaders, model, update, store)

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train from `progress`, which moves along, to the end of its epoch or a stop."""
        depth = self._config.prefetch
        with contextlib.ExitStack() as stack:
            iterators = [
                prepared(loader, self._feed, progress.epoch, progress.step, depth)
                for loader in self.loaders
            ]
            for iterator in iterators:
                stack.enter_context(contextlib.closing(iterator))
            stack.enter_context(self.loaders[0].giving_up_on_errors())
            while (batches := self._next(iterators)) is not None:
                sums = self._step(batches)
                loss = progress.advance(batches[0].batch, sums)
                self.interrupted = sums.num_interrupted > 0
                after_step(loss)
                if self.interrupted:
                    break
        return Tally.from_vector(progress.tally)

    def _step(self, batches: list[Prepared]) -> StepSums:
        """Forward, backward and update of each replica; the sums of the step over all of them."""
        batch, real = batches[0].batch, self._feed.real
        for work, one in zip(self.work, batches, strict=True):
            work.add(one.batch)
        with self.watch.section("compute"):
            self.update.set_rate(self._schedule.rate(batch.epoch, batch.step, self.num_steps))
            stop = float(self._world.interrupted)
            extras = [tf.constant([found.batch.num_edges, stop], real) for found in batches]
            with self._world.noticing_losses():
                sums, seconds = self.step([found.step for found in batches], extras)
                found_sums = StepSums.of(sums.numpy().tolist())
        self.watch.add("communicate", float(seconds), out_of="compute")
        return found_sums

    def _next(self, iterators: Sequence[Iterator[Prepared]]) -> list[Prepared] | None:
        with self.watch.section("wait"):
            found = [next(iterator, None) for iterator in iterators]
        batches = [one for one in found if one is not None]
        waited = None if self._config.prefetch else "wait"
        for one in batches:
            self.watch.add("sample", one.batch.sample_seconds, waited, one.batch.sampled_at)
        return batches or None

    def warm_up(self) -> None:
        """Trace the step, and take it with no learning: weights and optimizer stay as they are."""
        weights, memory = self.weights(), self.optimizer_state()
        with self._feed.store.standing_in():
            steps = [self._feed.step(loader.batch(0, 0)) for loader in self.loaders]
        self.step(steps, [tf.zeros([2], self._feed.real)] * len(steps))
        self.load_weights(weights)
        self.load_optimizer_state(memory)
        self._world.barrier()

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """What `evaluator` finds."""
        return self.evaluator.tallies(splits, whole)

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know."""
        found = []
        if self._world.name == "multiworker" and self._world.world_size == 1:
            found.append(
                "one worker only: `mpirun -np 4 python tf_mirrored/train.py --strategy multiworker`"
                " starts four"
            )
        if self.bf16_products is not None:
            found.append(
                "bf16 operands are multiplied as fp32, which is all that tf_mirrored does; no "
                "faster than --precision fp32"
            )
        return found

    def weights(self) -> Weights:
        """A copy of the weights."""
        return {n: np.array(keras.ops.convert_to_numpy(v)) for n, v in self.model.named.items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes."""
        self.model.load(weights)

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers, named as in torch."""
        optimizer = self.update.optimizer
        if self._config.optimizer == "sgd":
            return {}
        found: Weights = {"step": np.array(int(optimizer.iterations.numpy()), np.int64)}
        for kind, variables in self._moments().items():
            for name, variable in zip(self.model.named, variables, strict=True):
                found[f"{kind}.{name}"] = np.array(keras.ops.convert_to_numpy(variable))
        return found

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `optimizer_state` gave; nothing of it is a fresh start.

        ValueError for other names, dtypes or shapes.
        """
        if state:
            require_alike(self.optimizer_state(), state)
        self.update.optimizer.iterations.assign(int(state.get("step", 0)))
        for kind, variables in self._moments().items():
            for name, variable in zip(self.model.named, variables, strict=True):
                there = state.get(f"{kind}.{name}")
                variable.assign(np.zeros(variable.shape) if there is None else there)

    def _moments(self) -> dict[str, list[keras.Variable]]:
        if self._config.optimizer == "sgd":
            return {}
        optimizer = self.update.optimizer
        return {"exp_avg": optimizer._momentums, "exp_avg_sq": optimizer._velocities}
