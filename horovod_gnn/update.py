"""How a step's gradients become new weights: summed over the ranks by one allreduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from gnn_core.config import RunConfig
from gnn_core.measure.timing import Stopwatch
from gnn_core.training.state import StepSums
from horovod_gnn.optimizer import OPTIMIZERS, SGD
from horovod_gnn.parallel import SingleProcess


class GradientBucket:
    """All gradients and a step's sums in one buffer, so that a step needs one allreduce.

    The model's gradients are views of the buffer: nothing is copied in or out. A GraphSAGE's
    gradients are about a megabyte, so the latency of a collective is what counts, not its size.
    """

    def __init__(self, model: nn.Module):
        parameters = list(model.parameters())
        size = sum(parameter.numel() for parameter in parameters)
        first = parameters[0]
        num_sums = len(StepSums._fields)
        self._buffer = torch.zeros(size + num_sums, dtype=first.dtype, device=first.device)
        self._sums = self._buffer[size:]
        offset = 0
        for parameter in parameters:
            view = self._buffer[offset : offset + parameter.numel()]
            parameter.grad = view.view_as(parameter)
            offset += parameter.numel()

    @property
    def num_bytes(self) -> int:
        """What a step sends around the ring."""
        return self._buffer.numel() * self._buffer.element_size()

    def clear(self) -> None:
        """Zero gradients and sums."""
        self._buffer.zero_()

    def sum_over_ranks(self, world: SingleProcess, sums: Sequence[float]) -> StepSums:
        """Add up the gradients, and the sums of a step, over the ranks."""
        self._sums.copy_(torch.tensor(sums, dtype=self._buffer.dtype))
        world.sum_(self._buffer)
        return StepSums.of(self._sums.tolist())


class Update(Protocol):
    """What a training step does with its gradients; `Allreduce` is the usual one."""

    optimizer: SGD
    bytes_per_step: int  # that this rank sends

    def clear(self) -> None:
        """Zero the gradients, before the backward pass of a step."""

    def __call__(self, sums: StepSums, lr: float, watch: Stopwatch) -> StepSums:
        """See `Allreduce`."""


class Allreduce:
    """Synchronous data parallelism: the ranks add up their gradients and take the same step.

    Args:
        model: its gradients become views of one buffer.
        optimizer: applies them.
        world: the other ranks.
    """

    def __init__(self, model: nn.Module, optimizer: SGD, world: SingleProcess):
        self.optimizer = optimizer
        self._world = world
        self._bucket = GradientBucket(model)
        self.bytes_per_step = self._bucket.num_bytes

    def clear(self) -> None:
        """Zero the gradients, before the backward pass of a step."""
        self._bucket.clear()

    def __call__(self, sums: StepSums, lr: float, watch: Stopwatch) -> StepSums:
        """Take the optimizer's step with the gradients of all ranks.

        Args:
            sums: of this rank's targets. The gradients are of its share of the mean loss over the
                targets of all ranks, so that their sum over ranks is the gradient of that mean.
            lr: the step's learning rate.
            watch: gets the seconds of the collective and of the optimizer.

        Returns:
            The sums over all ranks.
        """
        with watch.section("communicate"):
            sums = self._bucket.sum_over_ranks(self._world, sums)
        with watch.section("compute"):
            self.optimizer.lr = lr
            self.optimizer.step()
        return sums


def build_optimizer(config: RunConfig, model: nn.Module) -> SGD:
    """The optimizer that `--optimizer` names."""
    return OPTIMIZERS[config.optimizer](model.parameters(), config.lr, config.weight_decay)
