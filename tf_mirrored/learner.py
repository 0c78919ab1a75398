"""The Keras learner: model, optimizer and batches of one process, for `gnn_core.training`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.evaluate import ExactEvaluator, SampledEvaluator
from gnn_core.training.learner import RunProgress, Weights, require_alike
from gnn_core.training.link_ranking import LinkEvaluator
from gnn_core.training.tasks import feature_store, sampled_loaders, train_loader
from tf_mirrored.evaluate import Layers, LinkLayers
from tf_mirrored.input import Feed, feature_table
from tf_mirrored.link import LinkModel
from tf_mirrored.loop import Training, train_epoch
from tf_mirrored.model import GraphSAGE, trainable
from tf_mirrored.models import build
from tf_mirrored.objective import link_objective, node_objective
from tf_mirrored.optimizer import make_optimizer
from tf_mirrored.strategy import Replicas


class KerasLearner:
    """See `gnn_core.training.learner.Learner`.

    Args:
        config: the run's.
        graph: what to train on.
        replicas: those of this process, and the others.
    """

    def __init__(self, config: RunConfig, graph: Graph, replicas: Replicas):
        self._config = config
        self._replicas = replicas
        with replicas.strategy.scope():
            model = _model(config, graph)
            optimizer = make_optimizer(config.optimizer, config.lr, config.weight_decay)
            optimizer.build(trainable(model))
        is_link, store = config.task == "link", feature_store(graph)
        self.training = Training(
            model=model,
            objective=link_objective if is_link else node_objective,
            optimizer=optimizer,
            loaders=[
                train_loader(config, graph, replica, replicas.num_replicas, prefetch=0)
                for replica in replicas.local_replicas
            ],
            feed=Feed(config, store, training=True),
            table=feature_table(store),
            schedule=Schedule.of(config, replicas.num_replicas),
            replicas=replicas,
            watch=Stopwatch(),
            prefetch=config.prefetch,
        )
        self._evaluate = self._evaluator(graph, Feed(config, store, training=False))
        self.watch = self.training.watch
        self.num_steps = self.training.loaders[0].num_steps
        self.num_parameters = sum(math.prod(v.shape) for v in trainable(model))
        self.allreduce_bytes_per_step = self.training.vector_bytes
        self.device = "gpu" if replicas.devices[0].startswith("GPU") else "cpu"
        rounds = config.precision == "bf16"  # and multiplies as fp32, see `rounded_product`
        self.bf16_products = {"multiplied_as": "fp32"} if rounds else None

    @property
    def interrupted(self) -> bool:
        """Whether some process knew a reason to end training early, and all know it."""
        return self.training.interrupted

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know."""
        found = []
        if self._replicas.name == "multiworker" and self._replicas.world_size == 1:
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

    def warm_up(self) -> None:
        """Trace the step, and take it with no learning: weights and optimizer stay as they are."""
        weights, memory = self.weights(), self.optimizer_state()
        training = self.training
        steps = [training.feed.step(loader.batch(0, 0)) for loader in training.loaders]
        extras = [tf.zeros([2], training.feed.real)] * len(steps)
        training.step(training.table, steps, extras)
        self.load_weights(weights)
        self.load_optimizer_state(memory)
        self._replicas.barrier()

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train to the end of the epoch."""
        return train_epoch(self.training, progress, after_step)

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """The tally of each split, over all ranks."""
        return self._evaluate(splits, whole)

    def weights(self) -> Weights:
        """A copy of the weights."""
        return {n: keras.ops.convert_to_numpy(v) for n, v in self.training.model.named.items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes."""
        self.training.model.load(weights)

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers, named as in torch."""
        optimizer = self.training.optimizer
        if self._config.optimizer == "sgd":
            return {}
        found: Weights = {"step": np.array(int(optimizer.iterations.numpy()), np.int64)}
        for kind, variables in self._moments().items():
            for name, variable in zip(self.training.model.named, variables, strict=True):
                found[f"{kind}.{name}"] = keras.ops.convert_to_numpy(variable)
        return found

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `optimizer_state` gave; nothing of it is a fresh start.

        ValueError for other names, dtypes or shapes.
        """
        if state:
            require_alike(self.optimizer_state(), state)
        self.training.optimizer.iterations.assign(int(state.get("step", 0)))
        for kind, variables in self._moments().items():
            for name, variable in zip(self.training.model.named, variables, strict=True):
                there = state.get(f"{kind}.{name}")
                variable.assign(np.zeros(variable.shape) if there is None else there)

    def _moments(self) -> dict[str, list[keras.Variable]]:
        if self._config.optimizer == "sgd":
            return {}
        optimizer = self.training.optimizer
        return {"exp_avg": optimizer._momentums, "exp_avg_sq": optimizer._velocities}

    def _evaluator(self, graph: Graph, feed: Feed) -> Callable[..., Mapping[str, AnyTally]]:
        """(splits, whether the whole of them) -> tallies."""
        config, replicas, model = self._config, self._replicas, self.training.model
        threads = len(self._replicas.local_replicas)
        if isinstance(model, LinkModel):
            self._layers: Layers = (scored := LinkLayers(model, self.training.table, feed))
            ranks = LinkEvaluator(
                graph,
                replicas,
                candidates=config.candidates,
                most_edges=config.eval_edges,
                threads=threads,
            )
            return lambda splits, whole: ranks.tallies(scored, splits, whole)
        self._layers = layers = Layers(model, self.training.table, feed)
        if config.eval == "exact":
            exact = ExactEvaluator(graph, replicas, threads=threads)
            return lambda splits, whole: exact.tallies(layers, splits)
        shares = [
            sampled_loaders(config, graph, replica, replicas.num_replicas, prefetch=0)
            for replica in replicas.local_replicas
        ]
        loaders = {split: [share[split] for share in shares] for split in shares[0]}
        sampled = SampledEvaluator(loaders, replicas, layers.logits_of)
        return lambda splits, whole: sampled.tallies(splits)


def _model(config: RunConfig, graph: Graph) -> GraphSAGE | LinkModel:
    model = build(config, graph)
    if config.task != "link":
        return model
    return LinkModel(model, config.predictor_layers, config.seed)
