"""The matrix products of a training step alone: what no implementation of the step can undercut."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnn_core.data.batch import Batch


@dataclass(frozen=True)
class Product:
    """`[rows, inner]` times `[inner, columns]`; one of the operands may lie transposed."""

    name: str
    rows: int
    inner: int
    columns: int
    left_transposed: bool = False
    right_transposed: bool = False

    @property
    def num_operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns


def products_of(batch: Batch, widths: Sequence[int]) -> list[Product]:
    """The products of one step, input layer first, laid out as the model has them.

    Args:
        batch: its blocks tell the numbers of rows.
        widths: of the input features, of each hidden layer, of the logits.
    """
    found = []
    for depth, block in enumerate(batch.blocks):
        wide, out = 2 * widths[depth], widths[depth + 1]  # self and neighbours, side by side
        layer, rows = f"layer {depth + 1}", block.num_dst
        found.append(Product(f"{layer} forward", rows, wide, out, right_transposed=True))
        found.append(Product(f"{layer} weight gradient", out, rows, wide, left_transposed=True))
        if depth:  # nobody asks for the gradient of the features
            found.append(Product(f"{layer} input gradient", rows, out, wide))
    return found


class Products:
    """Runs the products of a batch with `torch.mm` and keeps how fast each was.

    Args:
        batches: what will be run; room is made for the largest.
        widths: see `products_of`.
        dtype: of operands and results.
    """

    def __init__(self, batches: Sequence[Batch], widths: Sequence[int], dtype: torch.dtype):
        self._widths = widths
        every = [product for batch in batches for product in products_of(batch, widths)]
        self.rates: dict[str, list[float]] = {}  # operations per second, by product
        self._left, self._right, self._out = (
            torch.rand(most).to(dtype)
            for most in (
                max(p.rows * p.inner for p in every),
                max(p.inner * p.columns for p in every),
                max(p.rows * p.columns for p in every),
            )
        )

    def step(self, batch: Batch) -> None:
        """All products of one training step."""
        for product in products_of(batch, self._widths):
            left = _matrix(self._left, product.rows, product.inner, product.left_transposed)
            right = _matrix(self._right, product.inner, product.columns, product.right_transposed)
            out = _matrix(self._out, product.rows, product.columns, False)
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            seconds = time.perf_counter() - start
            self.rates.setdefault(product.name, []).append(product.num_operations / seconds)

    def best_rates(self) -> dict[str, float]:
        """Operations per second of each product, in the step in which least else went on."""
        return {name: max(rates) for name, rates in self.rates.items()}


def _matrix(room: Tensor, rows: int, columns: int, transposed: bool) -> Tensor:
    room = room[: rows * columns]
    return room.view(columns, rows).t() if transposed else room.view(rows, columns)
