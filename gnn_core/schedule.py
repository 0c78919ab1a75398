"""The learning rate as a pure function of progress, so that a resumed run needs no scheduler state.

Linear scaling and warm-up: Goyal et al., "Accurate, Large Minibatch SGD", 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnn_core.config import RunConfig


@dataclass(frozen=True)
class Schedule:
    """Learning rate at a point of training.

    `constant` keeps the base rate, `cosine` lets it fall to zero over the run, `step` multiplies it
    by `gamma` every `step_epochs`. Before that it rises linearly over `warmup_epochs`.
    """

    base: float
    kind: str
    epochs: int
    warmup_epochs: int = 0
    step_epochs: int = 1
    gamma: float = 1.0

    @classmethod
    def of(cls, config: RunConfig, world_size: int) -> Schedule:
        """Read the schedule of a run; `--scale-lr` multiplies the rate by the number of ranks."""
        return cls(
            base=config.lr * (world_size if config.scale_lr else 1),
            kind=config.lr_schedule,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            step_epochs=config.lr_step_epochs or 1,
            gamma=config.lr_gamma or 1.0,
        )

    def rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Learning rate of one step; epoch and step count from 0."""
        done = epoch + step / steps_per_epoch
        if done < self.warmup_epochs:
            return (
                self.base
                * (epoch * steps_per_epoch + step + 1)
                / (self.warmup_epochs * steps_per_epoch)
            )
        if self.kind == "cosine":
            share = (done - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
            return self.base * 0.5 * (1 + math.cos(math.pi * share))
        if self.kind == "step":
            return self.base * self.gamma ** int((done - self.warmup_epochs) // self.step_epochs)
        return self.base
