"""fp32, fp64 or bf16: in which type rows are stored, multiplied and accumulated.

bf16 means: operands of every matrix product are rounded to bfloat16 and products are accumulated in
float32, while weights, gradients and the optimizer stay float32. On a CPU the rounded operands are
either stored and multiplied as bfloat16 (what a product returns is rounded too), or multiplied as
float32: the numerics of bfloat16 without its gain. Which is faster depends on the processor:
`product_rates` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PRECISIONS = ("fp32", "bf16", "fp64")


def native_bf16_product() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Arithmetic:
    """Storage and products of one precision.

    Args:
        precision: one of `PRECISIONS`.
        native_bf16: the CPU is to store and multiply bfloat16; None: if it has an instruction for
            it, be that fast or slow. A GPU always does.
    """

    def __init__(self, precision: str, native_bf16: bool | None = None):
        if native_bf16 is None:
            native_bf16 = native_bf16_product()
        self.precision = precision
        self.rounds = precision == "bf16"
        self.accumulator = torch.float64 if precision == "fp64" else torch.float32
        self.storage = torch.bfloat16 if self.rounds and native_bf16 else self.accumulator

    @property
    def is_native_bf16(self) -> bool:
        """Whether rows are kept, and multiplied, as bfloat16 on the CPU."""
        return self.storage == torch.bfloat16

    def empty(self, *shape: int) -> Tensor:
        """Rows as they are kept between a layer's passes."""
        return torch.empty(*shape, dtype=self.storage)

    def empty_accumulator(self, *shape: int) -> Tensor:
        """Rows in the type that sums are made in."""
        return torch.empty(*shape, dtype=self.accumulator)

    def operand(self, values: Tensor) -> Tensor:
        """`values` as one side of a product."""
        values = values.detach()
        if not self.rounds:
            return values.to(self.storage)
        return values.bfloat16().to(torch.bfloat16 if values.is_cuda else self.storage)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """The product left @ right of two operands, in the accumulator's type."""
        return torch.mm(left, right).to(self.accumulator)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """What autograd is to see of x @ weight.T, the operands of all three products rounded."""
        return _Linear.apply(x, weight, self) if self.rounds else x @ weight.t()

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """Add left @ right to `total`."""
        if self.storage == self.accumulator:
            total.addmm_(left, right)
        else:
            total += torch.mm(left, right)

    @contextmanager
    def written(self, rows: Tensor) -> Iterator[Tensor]:
        """A buffer to fill in the accumulator's type; its values end in `rows`, as operands."""
        if self.storage == self.accumulator:
            yield rows
            if self.rounds:
                rows.copy_(rows.bfloat16())
        else:
            buffer = self.empty_accumulator(*rows.shape)
            yield buffer
            rows.copy_(buffer)

    @contextmanager
    def updated(self, rows: Tensor) -> Iterator[Tensor]:
        """The same with the buffer holding the values of `rows` at the start."""
        if self.storage == self.accumulator:
            yield rows
        else:
            buffer = rows.to(self.accumulator)
            yield buffer
            rows.copy_(buffer)


class _Linear(torch.autograd.Function):
    """x @ weight.T of an `Arithmetic` that rounds; autograd alone would not round the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, arithmetic: Arithmetic) -> Tensor:
        operands = arithmetic.operand(x), arithmetic.operand(weight)
        ctx.save_for_backward(*operands)
        ctx.arithmetic = arithmetic
        return arithmetic.product(operands[0], operands[1].t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        operand = ctx.arithmetic.operand(grad)
        grad_x = ctx.arithmetic.product(operand, weight) if ctx.needs_input_grad[0] else None
        return grad_x, ctx.arithmetic.product(operand.t(), x), None
