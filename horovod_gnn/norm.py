"""Normalisation of hidden layers, whose statistics do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Sum = Callable[[Tensor], Tensor]  # replaces a tensor by its sum over the ranks
_EPSILON = 1e-5
_MOMENTUM = 0.1
LEAST_TARGETS = 16  # of a step, over all ranks, for statistics of their own


class LayerNorm(nn.Module):
    """Each row to mean 0 and variance 1, then times `weight` plus `bias`, both `[width]`."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        """`[n, width]` of `[n, width]`."""
        return functional.layer_norm(h, h.shape[1:], self.weight, self.bias, _EPSILON)


class BatchNorm(nn.Module):
    """Each feature to mean 0 and variance 1 over the targets of a step, those of all ranks.

    Every row of a layer is normalised, but only the targets' rows, which come first, make the
    statistics. Each target is on exactly one rank; a neighbour may be computed on several, and
    would count as often. Evaluation, and a step of fewer than `LEAST_TARGETS`, uses moving averages
    of the mean and of the unbiased variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self._step: tuple[int, Sum] | None = None
        self._next: tuple[Tensor, Tensor] | None = None

    def begin_step(self, num_targets: int, sum_over_ranks: Sum) -> None:
        """Take the statistics of the next forward pass from its targets; all ranks do so together.

        Args:
            num_targets: of this rank, without padding; they are the first rows.
            sum_over_ranks: called in both passes, in the same order on all ranks.
        """
        self._step = num_targets, sum_over_ranks

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the averages, once the step has changed the weights."""
        if self._next is not None:
            averages = (self.running_mean, self.running_var)
            for average, value in zip(averages, self._next, strict=True):
                average.lerp_(value.to(average.dtype), _MOMENTUM)
        self._step = self._next = None

    def forward(self, h: Tensor) -> Tensor:
        """`[n, width]` of `[n, width]`."""
        mean, variance = self.running_mean, self.running_var
        if self.training and self._step is not None:
            mean, variance = self._statistics(h, *self._step)
        scale = self.weight * (variance.to(h.dtype) + _EPSILON).rsqrt()
        return (h - mean.to(h.dtype)) * scale + self.bias

    def _statistics(self, h: Tensor, num_targets: int, sum_over_ranks: Sum) -> tuple[Tensor, ...]:
        """Mean and variance `[width]`, in float64, over the targets of all ranks."""
        rows = h[:num_targets].double()
        count = rows.new_full((1,), len(rows))
        sums = torch.cat([rows.sum(0), rows.square().sum(0), count])
        sums = _SumOverRanks.apply(sums, sum_over_ranks)
        total, squares, count = sums.split([rows.shape[1], rows.shape[1], 1])
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self._next = mean.detach(), unbiased.detach()
        return mean, variance


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sum_over_ranks: Sum) -> Tensor:
        ctx.sum = sum_over_ranks
        return sum_over_ranks(tensor.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.sum(grad.clone()), None


NORMS = {"layer": LayerNorm, "batch": BatchNorm}
