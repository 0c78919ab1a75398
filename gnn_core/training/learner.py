"""What a framework has to bring: a way to start, and a learner that trains and evaluates.

`horovod_gnn.learner` and `tf_mirrored.learner` are the two there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from gnn_core.config import RunConfig
from gnn_core.data.batch import Batch
from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.training.world import World

Weights = dict[str, npt.NDArray[Any]]  # name -> array; names and shapes are those of `initial`


class Diverged(Exception):
    """The loss is not a number any more."""


@dataclass
class RunProgress:
    """Where a run is: everything that decides how it goes on, besides weights and optimizer."""

    epoch: int = 0  # the next step's epoch
    step: int = 0  # the next step within it
    tally: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # of the epoch so far
    num_sampled_edges: int = 0  # of the epoch so far, over all ranks
    best_score: float = -1.0  # accuracy or MRR on the validation split
    best_epoch: int = -1
    evaluations_without_gain: int = 0

    def advance(self, batch: Batch, statistics: Sequence[float]) -> float:
        """Count one step in; its mean loss.

        `statistics` begin with loss sum, correct and sampled edges, each summed over the ranks.
        Raises Diverged for a loss that is NaN or infinite.
        """
        loss_sum, correct, edges = statistics[:3]
        loss = loss_sum / batch.num_global_real
        if not math.isfinite(loss):
            where = f"epoch {batch.epoch + 1}, step {batch.step + 1}"
            raise Diverged(f"the loss is {loss} at {where}: lower --lr")
        self.tally[0] += loss_sum
        self.tally[1] += correct
        self.tally[2] += batch.num_global_real
        self.num_sampled_edges += round(edges)
        self.step = batch.step + 1
        return loss


@dataclass
class State:
    """What a run needs to go on."""

    weights: Weights
    optimizer: Weights
    best: Weights  # {} until an evaluation
    progress: RunProgress
    run_id: str  # of the run that saved it


def require_alike(expected: Mapping[str, npt.NDArray[Any]], found: Mapping[str, Any]) -> None:
    """Raise ValueError unless both have arrays of the same names, dtypes and shapes.

    Kernels write through the pointers of what is loaded, as far as the weights reach.
    """
    for name in sorted({*expected, *found}):
        sides = [_described(arrays.get(name)) for arrays in (expected, found)]
        if sides[0] != sides[1]:
            raise ValueError(f"{name}: expected {sides[0]}, got {sides[1]}")


def _described(array: Any) -> str:
    return "no such array" if array is None else f"{array.dtype} {list(array.shape)}"


class Learner(Protocol):
    """Model, optimizer and batches of this process: all that knows the framework."""

    watch: Stopwatch
    interrupted: bool  # training ended early: some rank knew a reason to, and all know it
    num_steps: int  # of one epoch
    num_parameters: int
    allreduce_bytes_per_step: int
    device: str  # where the model is, as it is told
    bf16_products: dict[str, Any] | None  # of --precision bf16 on a CPU: see RunRecord

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know of the way they were made."""

    def warm_up(self) -> None:
        """Take a step that changes nothing, so that no epoch is timed while code compiles."""

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train from `progress`, which moves along, to the end of its epoch or a stop.

        Returns the tally of the whole epoch over all ranks; `after_step` is told each step's mean
        loss. Raises Diverged, on all ranks alike, when that is not a number.
        """

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """The tally of each split, over all ranks. Every rank must call it.

        Unless the `whole` split is wanted, as at the end, a part of it that tells epochs apart is
        enough where ranking all of it would take long.
        """

    def weights(self) -> Weights:
        """A copy of the weights."""

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over weights of the same names and shapes."""

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers.

        SGD: nothing. Adam: `step` int64 `[]`, and for each weight `exp_avg.<name>` and
        `exp_avg_sq.<name>`, the running means of its gradient and of the square of that.
        """

    def load_optimizer_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `optimizer_state` gave, in whichever framework.

        Raises ValueError for arrays of other names, dtypes or shapes.
        """


@dataclass(frozen=True)
class Framework:
    """How a run starts in one framework."""

    # One of gnn_core.strategies.STRATEGIES.
    strategy: Callable[[RunConfig], str]
    # Join the other processes. The configuration is None where this one could not read its own.
    start: Callable[[RunConfig | None], World]
    # Check and set what the machine must have; raises UsageError. All ranks wait for each other.
    prepare: Callable[[RunConfig, World], None]
    learn: Callable[[RunConfig, Graph, World], Learner]
