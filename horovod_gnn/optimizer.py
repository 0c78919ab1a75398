"""Adam and SGD on torch's fused kernels, without `torch.optim`; `learner` makes one for a run.

An optimizer of `torch.optim` imports `torch._dynamo` when it is made: 800 modules and more than a
second of CPU time on every rank, for a compiler that nothing here uses. These classes call the
kernels that `torch.optim.Adam(fused=True)` and `torch.optim.SGD(fused=True)` call, so the steps are
equal to the last bit (`tests/unit/test_optimizer.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor


class SGD:
    """Plain gradient descent, `torch.optim.SGD(parameters, lr, weight_decay=..., fused=True)`.

    Args:
        parameters: tensors of one dtype on one device; each needs a `grad` when `step` is called.
        lr: learning rate; may be assigned between steps.
        weight_decay: times the parameter, added to its gradient.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        self.parameters = list(parameters)
        self.lr = lr
        self.weight_decay = weight_decay

    def gradients(self) -> list[Tensor]:
        """The gradient of each parameter, which has one."""
        return cast("list[Tensor]", [parameter.grad for parameter in self.parameters])

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters in place."""
        torch._fused_sgd_(
            self.parameters,
            self.gradients(),
            [],
            weight_decay=self.weight_decay,
            momentum=0.0,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


class Adam(SGD):
    """`torch.optim.Adam(parameters, lr, weight_decay=..., fused=True)`: Kingma and Ba, algorithm 1.

    Arguments as of `SGD`.

    Attributes:
        exp_avg: moving average of each parameter's gradient, of the parameter's shape and dtype.
        exp_avg_sq: moving average of its square.
        num_steps: steps taken so far, a float32 scalar tensor.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        super().__init__(parameters, lr, weight_decay)
        self.exp_avg = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.exp_avg_sq = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.num_steps = torch.zeros((), device=self.parameters[0].device)

    @torch.no_grad()
    def step(self) -> None:
        """Update moments and parameters in place."""
        self.num_steps += 1
        steps = [self.num_steps] * len(self.parameters)
        torch._fused_adam_(
            self.parameters,
            self.gradients(),
            self.exp_avg,
            self.exp_avg_sq,
            [],
            steps,
            lr=self.lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


OPTIMIZERS = {"adam": Adam, "sgd": SGD}
