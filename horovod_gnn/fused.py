"""The fast path on a CPU: a stack of GraphSAGE layers with a hand-written backward pass.

Rows go through a layer in chunks that fit the cache: gather and average, multiply, add the bias,
rectify, drop out, and only then is the chunk written for good. Backward does the same in reverse,
so the gradient at a hidden layer never exists as a whole. The model's plain torch code computes the
same numbers; `tests/unit/test_model.py` holds the two equal, gradients included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gnn_core.data.batch import Block
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.features import SparseFeatures
from horovod_gnn import kernels
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.inputs import FeatureTable
from horovod_gnn.sparse_rows import SparseInput

CHUNK_ROWS = 1024  # 1 MiB of float32 at 2 x 128 features: a fraction of a core's share of the L3


@dataclass(frozen=True)
class StackOptions:
    """What a forward pass needs besides arrays."""

    mean: bool  # average the neighbours (else add them up)
    dropout_threshold: int  # of 65536; 0 in evaluation
    keys: tuple[int, ...]  # 64-bit dropout key of each layer
    arithmetic: Arithmetic
    input_dropout: tuple[int, int] = (0, 0)  # threshold and key, of sparse features
    activate_last: bool = False  # layer-wise inference runs one hidden layer at a time
    more: Tensor | None = None  # rows beyond those of the table, for layer 1
    store: FeatureStore | None = None  # whose table layer 1 reads, and whose stopwatch runs then

    @property
    def dropout_scale(self) -> float:
        """What a kept feature is multiplied by."""
        return 65536.0 / (65536.0 - self.dropout_threshold)


class FusedStack(torch.autograd.Function):
    """logits = FusedStack.apply(table, rows, nodes, blocks, options, *weights_and_biases)."""

    @staticmethod
    def forward(
        ctx: Any,
        table: FeatureTable,
        rows: np.ndarray,
        nodes: np.ndarray,
        blocks: Sequence[Block],
        options: StackOptions,
        *parameters: Tensor,
    ) -> Tensor:
        """Compute the last layer's rows.

        Args:
            ctx: autograd's.
            table: `[num_rows, width]` states that layer 1 reads; float of any width, maybe mapped,
                or sparse.
            rows: int64 `[blocks[0].num_src]`, the table row of each source.
            nodes: int64 `[blocks[0].num_src]`, the global id of each source, for dropout.
            blocks: input layer first.
            options: see `StackOptions`.
            parameters: weight `[out, 2 * in]` and bias `[out]` of each layer, alternating.

        Returns:
            `[blocks[-1].num_dst, out]` in the arithmetic's storage dtype.
        """
        arithmetic = options.arithmetic
        weights = [arithmetic.operand(weight) for weight in parameters[0::2]]
        biases = parameters[1::2]
        states, rows_of = table, rows
        sparse = None
        gathered, outputs = [], []
        for depth, block in enumerate(blocks):
            active = depth < len(blocks) - 1 or options.activate_last
            activation = (nodes, options.keys[depth]) if active else None
            h = arithmetic.empty(block.num_dst, len(weights[depth]))
            if isinstance(states, SparseFeatures):
                sparse = _sparse_input(states, rows_of, nodes, block, options)
                h.copy_(sparse.product(weights[depth]))
                _activate(h, biases[depth], activation, options)
            else:
                x = arithmetic.empty(block.num_dst, 2 * states.shape[1])
                _layer_forward(
                    states,
                    rows_of,
                    block,
                    weights[depth],
                    biases[depth],
                    options,
                    activation,
                    (options.more, options.store) if depth == 0 else (None, None),
                    x,
                    h,
                )
                gathered.append(x)
            outputs.append(h)
            states, rows_of = h, np.arange(block.num_dst)
        ctx.save_for_backward(*weights, *gathered, *outputs[:-1])
        ctx.blocks, ctx.options, ctx.sparse = blocks, options, sparse
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights and biases; the table gets none."""
        blocks, options = ctx.blocks, ctx.options
        depths = len(blocks)
        saved, sparse = ctx.saved_tensors, ctx.sparse
        weights, outputs = saved[:depths], saved[len(saved) - depths + 1 :]
        gathered = saved[depths : len(saved) - depths + 1]
        if sparse is not None:
            gathered = (sparse, *gathered)
        arithmetic = options.arithmetic
        grads: list[Tensor | None] = [None] * (2 * depths)
        operand = arithmetic.operand(grad.contiguous())
        last = gathered[-1]
        if isinstance(last, SparseInput):
            grads[-2] = last.weight_gradient(operand)
        else:
            grads[-2] = arithmetic.product(operand.t(), last)
        grads[-1] = grad.to(arithmetic.accumulator).sum(0)
        grad_rows = arithmetic.product(operand, weights[-1]) if depths > 1 else None
        for depth in range(depths - 2, -1, -1):
            assert grad_rows is not None
            grad_weight, grad_bias, grad_rows = _layer_backward(
                grad_rows,
                blocks[depth + 1],
                outputs[depth],
                gathered[depth],
                weights[depth],
                options,
                needs_rows=depth > 0,
            )
            grads[2 * depth], grads[2 * depth + 1] = grad_weight, grad_bias
        return (None, None, None, None, None, *grads)


def _sparse_input(
    table: SparseFeatures, rows: np.ndarray, nodes: np.ndarray, block: Block, options: StackOptions
) -> SparseInput:
    start = time.perf_counter()
    how = options.mean, options.input_dropout, options.arithmetic
    found = SparseInput(table, rows, nodes, block, *how)
    if (store := options.store) is not None:
        store.count_read(time.perf_counter() - start, len(rows) * store.row_bytes)
    return found


def _layer_forward(
    states: Tensor,
    rows_of: np.ndarray,
    block: Block,
    weight: Tensor,
    bias: Tensor,
    options: StackOptions,
    activation: tuple[np.ndarray, int] | None,
    beside: tuple[Tensor | None, FeatureStore | None],
    x: Tensor,
    h: Tensor,
) -> None:
    """Fill `x` (gathered rows) and `h` (the layer's output), chunk by chunk."""
    arithmetic = options.arithmetic
    narrow = arithmetic.is_native_bf16
    gather = kernels.gather_rows_bf16 if narrow else kernels.gather_rows
    into = nullcontext if narrow else arithmetic.written
    more, store = beside
    table = _as_numpy(states)
    beyond = table[:0] if more is None else _as_numpy(more)
    for first, last in _chunks(block.num_dst, CHUNK_ROWS):
        x_chunk, h_chunk = x[first:last], h[first:last]
        start = time.perf_counter()
        with into(x_chunk) as out:
            gather(
                table,
                beyond,
                rows_of,
                block.offsets,
                block.columns,
                first,
                last,
                options.mean,
                _as_numpy(out),
            )
        if store is not None:
            num_rows = last - first + int(block.offsets[last] - block.offsets[first])
            store.count_read(time.perf_counter() - start, num_rows * store.row_bytes)
        torch.mm(x_chunk, weight.t(), out=h_chunk)
        here = None if activation is None else (activation[0][first:last], activation[1])
        _activate(h_chunk, bias, here, options)


def _activate(
    h: Tensor, bias: Tensor, activation: tuple[np.ndarray, int] | None, options: StackOptions
) -> None:
    """Add the bias to rows; with the `activation`'s nodes and key, rectify and drop out too."""
    arithmetic = options.arithmetic
    narrow = arithmetic.is_native_bf16
    bias_row = bias.detach().to(arithmetic.accumulator).numpy()
    with nullcontext(h) if narrow and activation else arithmetic.updated(h) as out:
        if activation is None:
            out += torch.from_numpy(bias_row)
        else:
            nodes, key = activation
            activate = kernels.activate_bf16 if narrow else kernels.activate
            threshold = options.dropout_threshold
            activate(_as_numpy(out), bias_row, nodes, np.uint64(key), threshold)


def _layer_backward(
    grad_rows: Tensor,
    block: Block,
    states: Tensor,
    x: Tensor | SparseInput,
    weight: Tensor,
    options: StackOptions,
    needs_rows: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """From the gradient at the rows that `block` gathered to that of the layer below it.

    Returns the gradients of that layer's weight, bias and (if needed) gathered rows.
    """
    arithmetic = options.arithmetic
    source_offsets, destinations = kernels.transpose(block.offsets, block.columns, block.num_src)
    grad_weight = torch.zeros(weight.shape, dtype=arithmetic.accumulator)
    grad_bias = torch.zeros(len(weight), dtype=arithmetic.accumulator)
    # A product of bfloat16 is rounded to it: to keep it so loses nothing.
    below = arithmetic.empty(*x.shape) if needs_rows and isinstance(x, Tensor) else None
    chunk_rows = max(1, len(states)) if isinstance(x, SparseInput) else CHUNK_ROWS
    scratch = arithmetic.empty(min(chunk_rows, len(states)), len(weight))
    states_array, grad_array = _as_numpy(states), _as_numpy(grad_rows)
    scatter = kernels.scatter_back_bf16 if arithmetic.is_native_bf16 else kernels.scatter_back
    for first, last in _chunks(len(states), chunk_rows):
        grad_chunk = scratch[: last - first]
        scatter(
            grad_array,
            block.offsets,
            source_offsets,
            destinations,
            states_array,
            first,
            last,
            options.mean,
            options.dropout_scale,
            _as_numpy(grad_chunk),
            grad_bias.numpy(),
        )
        operand = arithmetic.operand(grad_chunk)
        if isinstance(x, SparseInput):
            grad_weight = x.weight_gradient(operand)
        else:
            arithmetic.add_product(grad_weight, operand.t(), x[first:last])
        if below is not None:
            torch.mm(operand, weight, out=below[first:last])
    return grad_weight, grad_bias, below


def _chunks(num_rows: int, chunk_rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, num_rows, chunk_rows):
        yield first, min(first + chunk_rows, num_rows)


def _as_numpy(states: Tensor) -> np.ndarray:
    """The array a kernel reads; 16-bit floats as the integers that kernels take for them."""
    bits = {torch.float16: torch.int16, torch.bfloat16: torch.uint16}.get(states.dtype)
    return states.numpy() if bits is None else states.view(bits).numpy()
