"""Balancer: how busy each rank was, and so how much of the next steps it gets.

A step ends when the slowest rank has its gradients. Every few steps the ranks tell how long they
computed, without their waits for each other, and the batches that follow are cut in proportion.
Global batches stay what they are, and with them the loss curve.
"""

from __future__ import annotations

from gnn_core.config import RunConfig
from gnn_core.data.shares import Shares
from gnn_core.training.world import World


class Balancer:
    """Changes the shares of the ranks.

    Args:
        world: the ranks.
        every: steps between two changes.
    """

    def __init__(self, world: World, every: int):
        self.shares = Shares([1.0] * world.world_size)
        self._world, self._every = world, every
        self._steps, self._seconds = 0, 0.0

    @classmethod
    def of(cls, config: RunConfig, world: World) -> Balancer | None:
        """As `--balance` asks for it; None: all ranks get alike."""
        return cls(world, config.balance) if config.balance else None

    def after_step(self, seconds: float) -> bool:
        """Count a step in; whether the shares have changed. Collective after `every` steps.

        Args:
            seconds: that this rank was busy with the step.
        """
        self._steps += 1
        self._seconds += seconds
        if self._steps < self._every:
            return False
        everyones = self._world.gather(self._seconds)
        self._steps, self._seconds = 0, 0.0
        return self.shares.follow(everyones)
