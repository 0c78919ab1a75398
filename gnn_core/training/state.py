"""Where a run stands: its progress, what a step adds up, and what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from gnn_core.data.batch import Batch

Weights = dict[str, npt.NDArray[Any]]  # name -> array; names and shapes are those of `initial`


class Diverged(Exception):
    """The loss is not a number any more."""


class StepSums(NamedTuple):
    """What a step adds up, first on each rank, then over all ranks."""

    loss_sum: float  # of the real targets
    num_correct: float
    num_sampled_edges: float
    num_interrupted: float  # ranks that know a reason to end training after this step

    @classmethod
    def of(cls, vector: Sequence[float]) -> StepSums:
        """The sums in a vector of four numbers, in the order of the fields."""
        return cls(*vector)


class Step(Protocol):
    """A step that was made; a `Batch` of it tells as much."""

    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def num_global_real(self) -> int: ...  # noqa: D102


@dataclass
class Work:
    """What one replica has computed since its epoch, or this world, began."""

    rows: int = 0  # input nodes, whose features it read
    edges: int = 0  # sampled ones

    def add(self, batch: Batch) -> None:
        """Count a batch in."""
        self.rows += len(batch.input_nodes)
        self.edges += batch.num_edges


@dataclass
class RunProgress:
    """Where a run is: everything that decides how it goes on, besides weights and optimizer."""

    epoch: int = 0  # the next step's epoch
    step: int = 0  # the next step within it
    # Of the epoch so far, over all ranks: loss sum, correct targets, targets.
    tally: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    num_sampled_edges: int = 0  # of the epoch so far, over all ranks
    best_score: float = -1.0  # accuracy or MRR on the validation split
    best_epoch: int = -1
    evaluations_without_gain: int = 0

    def advance(self, batch: Step, sums: StepSums) -> float:
        """Count one step in, from its sums over all ranks; its mean loss.

        Raises Diverged for a loss that is NaN or infinite.
        """
        loss = sums.loss_sum / batch.num_global_real
        if not math.isfinite(loss):
            where = f"epoch {batch.epoch + 1}, step {batch.step + 1}"
            raise Diverged(f"the loss is {loss} at {where}: lower --lr")
        added = (sums.loss_sum, sums.num_correct, batch.num_global_real)
        self.tally = [total + one for total, one in zip(self.tally, added, strict=True)]
        self.num_sampled_edges += round(sums.num_sampled_edges)
        self.step = batch.step + 1
        return loss

    def begin_next_epoch(self) -> None:
        """Move on to the first step of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.tally, self.num_sampled_edges = [0.0, 0.0, 0.0], 0


@dataclass
class State:
    """What a run needs to go on."""

    weights: Weights
    optimizer: Weights
    best: Weights  # {} until an evaluation
    progress: RunProgress
    run_id: str  # of the run that saved it
