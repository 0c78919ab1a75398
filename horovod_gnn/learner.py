"""The torch learner: model, optimizer and batches of one rank, for `gnn_core.training`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from gnn_core.config import RunConfig
from gnn_core.data.datasets import find_cache
from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.learner import Framework, RunProgress, Weights, require_alike
from gnn_core.training.tasks import feature_store, sampled_loaders, train_loader
from gnn_core.training.world import World
from horovod_gnn.device import choose_device
from horovod_gnn.evaluate import ExactEvaluator, LinkEvaluator, SampledEvaluator
from horovod_gnn.feed import Feed, GpuFeed
from horovod_gnn.link import LinkModel
from horovod_gnn.loop import GradientBucket, Training, train_epoch
from horovod_gnn.models import build
from horovod_gnn.node_model import NodeModel
from horovod_gnn.objective import link_objective, node_objective
from horovod_gnn.optimizer import OPTIMIZERS, Adam
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.product_rates import ProductRates, product_rates, slowest


class TorchLearner:
    """See `gnn_core.training.learner.Learner`.

    Args:
        config: the run's.
        graph: what to train on.
        parallel: the other ranks.
    """

    def __init__(self, config: RunConfig, graph: Graph, parallel: SingleProcess):
        self._parallel = parallel
        share = (parallel.rank, parallel.world_size, config.prefetch)
        store = feature_store(graph)
        is_link = config.task == "link"
        device = choose_device(config, parallel)
        self._rates = _agreed_rates(config, device, parallel)
        native_bf16 = None if self._rates is None else self._rates.native_bf16
        model = _model(config, graph, native_bf16).to(device)
        for tensor in model.state_dict().values():
            parallel.broadcast_(tensor)
        optimizer = OPTIMIZERS[config.optimizer](model.parameters(), config.lr, config.weight_decay)
        self.training = Training(
            model=model,
            objective=link_objective if is_link else node_objective,
            optimizer=optimizer,
            bucket=GradientBucket(model),
            loader=train_loader(config, graph, *share),
            feed=Feed(store) if device.type == "cpu" else GpuFeed(store, device, config.table_on),
            schedule=Schedule.of(config, parallel.world_size),
            parallel=parallel,
            watch=Stopwatch(),
        )
        self._evaluator: ExactEvaluator | SampledEvaluator | LinkEvaluator
        if is_link:
            self._evaluator = LinkEvaluator(
                graph, store, parallel, config.candidates, config.eval_edges
            )
        elif config.eval == "exact":
            self._evaluator = ExactEvaluator(graph, store, parallel)
        else:
            self._evaluator = SampledEvaluator(
                sampled_loaders(config, graph, *share), store, parallel
            )
        self.watch = self.training.watch
        self.num_steps = self.training.loader.num_steps
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.allreduce_bytes_per_step = self.training.bucket.num_bytes
        self.device = str(model.device)
        self.bf16_products = None if self._rates is None else self._rates.facts()

    @property
    def interrupted(self) -> bool:
        """Whether some rank knew a reason to end training early, and all ranks know it."""
        return self.training.interrupted

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know."""
        found = []
        parallel = self._parallel
        if parallel.starts_four and parallel.world_size == 1:
            found.append(f"one rank only: `{parallel.starts_four}` starts four")
        if self._rates is not None:
            found.append(self._rates.note())
        feed = self.training.feed
        if isinstance(feed, GpuFeed):
            found.append(
                "features on the GPU"
                if feed.on_card
                else "features in host memory, the "
                "rows of each batch copied to the GPU ahead of its step"
            )
        return found

    def warm_up(self) -> None:
        """Take a step that changes nothing, so that no epoch is timed while kernels compile.

        One rank of a host goes first: it compiles, and the others find its results on disk.
        """
        training, parallel = self.training, self._parallel
        for leads in (True, False):
            if leads == (parallel.local_rank == 0):
                batch = training.feed.prepare(training.loader.batch(0, 0))
                training.model.train()
                loss_sum, _ = training.objective(training.model, *training.feed.arrived(batch))
                loss_sum.backward()
            parallel.barrier()

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train to the end of the epoch."""
        return train_epoch(self.training, progress, after_step)

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """The tally of each split, over all ranks."""
        return self._evaluator.tallies(self.training.model, splits, whole)

    def weights(self) -> Weights:
        """A copy of the weights."""
        return {name: _copied(t) for name, t in self.training.model.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of the same names and shapes."""
        state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        self.training.model.load_state_dict(state)

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers."""
        optimizer = self.training.optimizer
        if not isinstance(optimizer, Adam) or not optimizer.num_steps:
            return {}
        found: Weights = {"step": np.array(int(optimizer.num_steps), np.int64)}
        return found | {name: _copied(moment) for name, moment in self._moments(optimizer)}

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `optimizer_state` gave; ValueError for other names, dtypes or shapes."""
        optimizer = self.training.optimizer
        if not state or not isinstance(optimizer, Adam):
            return
        moments = dict(self._moments(optimizer))
        own = {"step": np.array(0, np.int64)} | {n: _copied(m) for n, m in moments.items()}
        require_alike(own, state)
        optimizer.num_steps.fill_(int(state["step"]))
        for name, moment in moments.items():
            moment.copy_(torch.from_numpy(np.array(state[name])))

    def _moments(self, optimizer: Adam) -> Iterator[tuple[str, Tensor]]:
        for i, (name, _) in enumerate(self.training.model.named_parameters()):
            yield f"exp_avg.{name}", optimizer.exp_avg[i]
            yield f"exp_avg_sq.{name}", optimizer.exp_avg_sq[i]


def _agreed_rates(
    config: RunConfig, device: torch.device, parallel: SingleProcess
) -> ProductRates | None:
    """What decides how all ranks multiply bfloat16; None if no rank does so on a CPU.

    All decide alike: the choice shows in the loss, if only by the rounding of bfloat16.
    """
    if config.precision != "bf16":
        return None
    on_cpu = device.type == "cpu"
    mine = asdict(product_rates(find_cache(config.cache_dir))) if on_cpu else None
    found = [ProductRates(**rates) for rates in parallel.gather(mine) if rates is not None]
    return slowest(found) if found else None


def _model(config: RunConfig, graph: Graph, native_bf16: bool | None) -> NodeModel | LinkModel:
    model = build(config, graph, native_bf16)
    if config.task != "link":
        return model
    return LinkModel(model, config.predictor_layers, config.seed)


KERAS_ONLY = dict.fromkeys(("--strategy", "--replicas"), "it is one of tf_mirrored/train.py")
OF_SEVERAL_RANKS = dict.fromkeys(
    ("--start-timeout", "--collective-timeout"), "it has no other ranks to wait for"
)


def torch_framework(strategy: str, start: Callable[[RunConfig | None], SingleProcess]) -> Framework:
    """PyTorch with its ranks joined by `start`."""
    return Framework(lambda config: strategy, start, _prepare, TorchLearner)


def _prepare(config: RunConfig, world: World) -> None:
    choose_device(config, world)
    torch.set_num_threads(config.threads)
    if config.threads == 1 and torch.get_num_interop_threads() != 1:  # it can be set only once
        torch.set_num_interop_threads(1)


def _copied(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
