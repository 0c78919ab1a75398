"""Fused CPU passes of a GraphSAGE layer, in Numba: one trip to memory where torch makes several.

The matrix products stay torch's. Around them a layer gathers, averages, adds a bias, rectifies and
drops out; as operations of their own each of those writes and re-reads tens of megabytes. Here each
is one pass over a chunk of rows that is still in cache from the product before it.

Each is compiled twice: as it is, and as `..._bf16` that leaves bfloat16 behind, whose sums are made
in float32 and then rounded to the nearest.

All arrays are C-contiguous. Numba has no 16-bit floats on the CPU, so their bits arrive as
integers: IEEE halves as int16, bfloat16 as uint16. Every kernel releases the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils, errors

from gnn_core.compiled import njit
from gnn_core.dropout import draw

# mypy: disable-error-code="no-untyped-def"

# Numba's own type has the typing context among the arguments of a call, which does not pass it.
intrinsic: Callable[..., Any] = extending.intrinsic

# Rows are asked for so long before they are read, since the cache misses are what a gather costs.
# Measured: 4 edges ahead hide a third of them, 16 nearly all, 32 no more.
_EDGES_AHEAD = 16
_ROWS_AHEAD = 8
_CACHE_LINE_BYTES = 64


@intrinsic
def _widen(typingctx, value):
    """The number itself, or the float32 that the bits of a 16-bit float stand for."""
    if isinstance(value, types.Float):
        return value(value), lambda context, builder, signature, arguments: arguments[0]
    if value == types.int16:
        return types.float32(value), _half_to_float
    if value == types.uint16:
        return types.float32(value), _bfloat16_to_float
    raise errors.TypingError(f"a table of {value}")


def _half_to_float(context, builder, signature, arguments):
    return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())


def _bfloat16_to_float(context, builder, signature, arguments):
    wide = builder.zext(arguments[0], ir.IntType(32))  # it is the upper half of a float32
    return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())


@intrinsic
def _narrow(typingctx, value):
    """The bits of the bfloat16 nearest to a float32, to the even one of two; as torch rounds."""

    def codegen(context, builder, signature, arguments):
        int32, int16 = ir.IntType(32), ir.IntType(16)
        bits = builder.bitcast(arguments[0], int32)
        upper = builder.lshr(bits, int32(16))
        rounded = builder.add(bits, builder.add(builder.and_(upper, int32(1)), int32(0x7FFF)))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        narrow = builder.trunc(builder.lshr(rounded, int32(16)), int16)
        return builder.select(is_nan, int16(0x7FC0), narrow)

    return types.uint16(types.float32), codegen


@intrinsic
def _prefetch(typingctx, table, row, offset_bytes):
    """Ask for one cache line of `table[row]` without waiting for it."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte_pointer = ir.IntType(8).as_pointer()
        row_bytes = builder.mul(arguments[1], builder.extract_value(array.strides, 0))
        address = builder.gep(
            builder.bitcast(array.data, byte_pointer), [builder.add(row_bytes, arguments[2])]
        )
        int32 = ir.IntType(32)
        signature_ir = ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32])
        function = cgutils.get_or_insert_function(
            builder.module, signature_ir, "llvm.prefetch.p0i8"
        )
        read, keep, data = int32(0), int32(3), int32(1)
        builder.call(function, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(table, types.int64, types.int64), codegen


@njit(nogil=True, cache=True, inline="always")
def _prefetch_row(table, row, first_byte, last_byte):
    for offset in range(first_byte, last_byte, _CACHE_LINE_BYTES):
        _prefetch(table, row, offset)


@njit(nogil=True, cache=True, inline="always")
def _prefetch_either(table, more, row, row_bytes):
    if row < len(table):
        _prefetch_row(table, row, 0, row_bytes)
    else:
        _prefetch_row(more, row - len(table), 0, row_bytes)


@njit(nogil=True, cache=True, inline="always")
def _either(table, more, row):
    return table[row] if row < len(table) else more[row - len(table)]


def _gather_rows(narrow):
    """`gather_rows`, or that which rounds what it has summed to bfloat16."""

    @njit(nogil=True, cache=True)
    def gather_rows(table, more, nodes, offsets, columns, first, last, mean, out):
        width = table.shape[1]
        row_bytes = width * table.itemsize
        num_edges = offsets[last]
        # Widened before it is added up, lest float64 sums be made in float32.
        if narrow:
            real = np.float32
            sums = np.empty(2 * width, dtype=np.float32)
        else:
            real = out.dtype.type
        for i in range(first, last):
            if i + _ROWS_AHEAD < last:
                _prefetch_either(table, more, nodes[i + _ROWS_AHEAD], row_bytes)
            if narrow:
                both = sums
            else:
                both = out[i - first]
            own = both[:width]
            row = _either(table, more, nodes[i])
            for j in range(width):
                own[j] = _widen(row[j])
            edge, end = offsets[i], offsets[i + 1]
            degree = end - edge
            for later in range(edge + _EDGES_AHEAD, min(end + _EDGES_AHEAD, num_edges)):
                _prefetch_either(table, more, nodes[columns[later]], row_bytes)
            gathered = both[width:]
            if degree % 2 == 1:
                row = _either(table, more, nodes[columns[edge]])
                for j in range(width):
                    gathered[j] = _widen(row[j])
                edge += 1
            else:
                gathered[:] = 0
            while edge < end:  # in pairs: half the trips to `gathered`
                row = _either(table, more, nodes[columns[edge]])
                other = _either(table, more, nodes[columns[edge + 1]])
                for j in range(width):
                    gathered[j] += real(_widen(row[j])) + real(_widen(other[j]))
                edge += 2
            if mean and degree > 1:
                scale = real(1) / real(degree)
                for j in range(width):
                    gathered[j] *= scale
            if narrow:
                rounded = out[i - first]
                for j in range(2 * width):
                    rounded[j] = _narrow(both[j])

    return gather_rows


gather_rows, gather_rows_bf16 = _gather_rows(False), _gather_rows(True)
"""Self and aggregated neighbour states of destinations [first, last), side by side.

Args:
    table: `[num_rows, width]` float32, float64 or the bits of a 16-bit float.
    more: `[any, width]` of the same dtype, the rows beyond those of the table.
    nodes: int64 `[num_src]`, the table row of each source.
    offsets: int32 `[num_dst + 1]`.
    columns: int32 `[num_edges]`.
    first: first destination.
    last: one past the last destination.
    mean: divide by the degree (else sum).
    out: `[>= last - first, 2 * width]`; left half self, right half neighbours.
"""


def _activate(narrow):
    """`activate`, or that of rows that hold the bits of bfloat16."""

    @njit(nogil=True, cache=True)
    def activate(rows, bias, nodes, key, threshold):
        width = rows.shape[1]
        bits = np.empty((width + 3) // 4, dtype=np.uint64)
        lanes = bits.view(np.uint16)
        if narrow:
            real = np.float32
            wide = np.empty(width, dtype=np.float32)
        else:
            real = rows.dtype.type
        zero = real(0)
        scale = real(65536.0 / (65536.0 - threshold))
        least = np.int32(threshold)
        for i in range(rows.shape[0]):
            if narrow:
                row = wide
                for j in range(width):
                    row[j] = _widen(rows[i, j])
            else:
                row = rows[i]
            if threshold == 0:
                for j in range(width):
                    value = row[j] + bias[j]
                    row[j] = zero if value <= zero else value  # NaN stays NaN, as in torch
            else:
                draw(key, nodes[i], bits)
                for j in range(width):
                    value = row[j] + bias[j]
                    dropped = np.int32(lanes[j]) < least
                    row[j] = zero if value <= zero or dropped else value * scale
            if narrow:
                for j in range(width):
                    rows[i, j] = _narrow(row[j])

    return activate


activate, activate_bf16 = _activate(False), _activate(True)
"""Bias, ReLU and dropout in place: rows = dropout(relu(rows + bias)).

Drops what `gnn_core.dropout.dropout_factors` drops; a `threshold` of 0 drops nothing.

Args:
    rows: `[n, width]`.
    bias: `[width]`.
    nodes: int64 `[n]`, global ids of the rows.
    key: uint64, of this step and layer.
    threshold: 0 .. 65535.
"""


def _transpose(ordered):
    """`transpose`, or that which also tells where each edge was."""

    @njit(nogil=True, cache=True)
    def transpose(offsets, columns, num_src):
        source_offsets = np.zeros(num_src + 1, dtype=np.int32)
        for edge in range(len(columns)):
            source_offsets[columns[edge] + 1] += 1
        for i in range(num_src):
            source_offsets[i + 1] += source_offsets[i]
        fill = source_offsets[:-1].copy()
        destinations = np.empty(len(columns), dtype=np.int32)
        if ordered:
            order = np.empty(len(columns), dtype=np.int32)
        for i in range(len(offsets) - 1):
            for edge in range(offsets[i], offsets[i + 1]):
                place = fill[columns[edge]]
                destinations[place] = i
                if ordered:
                    order[place] = edge
                fill[columns[edge]] += 1
        if ordered:
            return source_offsets, destinations, order
        return source_offsets, destinations

    return transpose


transpose, transpose_with_order = _transpose(False), _transpose(True)
"""The same edges grouped by source.

Args:
    offsets: int32 `[num_dst + 1]`.
    columns: int32 `[num_edges]`.
    num_src: number of sources.

Returns:
    int32 `[num_src + 1]` offsets and int32 `[num_edges]` destinations; from `transpose_with_order`
    the number that each edge had before, too, int32 `[num_edges]`.
"""


def _scatter_back(narrow):
    """`scatter_back`, or that which rounds what it has summed to bfloat16."""

    @njit(nogil=True, cache=True)
    def scatter_back(
        grad,
        offsets,
        source_offsets,
        destinations,
        states,
        first,
        last,
        mean,
        scale,
        out,
        bias_grad,
    ):
        width = states.shape[1]
        row_bytes = width * grad.itemsize
        num_dst = grad.shape[0]
        num_edges = source_offsets[last]
        if narrow:
            real = np.float32
            sums = np.empty(width, dtype=np.float32)
        else:
            real = out.dtype.type
        for s in range(first, last):
            if narrow:
                row = sums
            else:
                row = out[s - first]
            if s < num_dst:  # loops, since Numba's slice assignment takes longer than they do
                own = grad[s, :width]
                for j in range(width):
                    row[j] = _widen(own[j])
            else:
                for j in range(width):
                    row[j] = 0
            begin, end = source_offsets[s], source_offsets[s + 1]
            for later in range(begin + _EDGES_AHEAD, min(end + _EDGES_AHEAD, num_edges)):
                _prefetch_row(grad, destinations[later], row_bytes, 2 * row_bytes)
            for edge in range(begin, end):
                destination = destinations[edge]
                degree = offsets[destination + 1] - offsets[destination]
                weight = real(1) / real(degree if mean else 1)
                gathered = grad[destination, width:]
                for j in range(width):
                    row[j] += _widen(gathered[j]) * weight
            state = states[s]
            for j in range(width):
                value = row[j] * real(scale) if state[j] != 0 else real(0)
                row[j] = value
                bias_grad[j] += value
            if narrow:
                rounded = out[s - first]
                for j in range(width):
                    rounded[j] = _narrow(row[j])

    return scatter_back


scatter_back, scatter_back_bf16 = _scatter_back(False), _scatter_back(True)
"""Gradient before the activation of sources [first, last), from that at the rows gathered.

The reverse of `gather_rows`, times the derivative of `activate`: a state that left it as
zero was rectified or dropped, any other was multiplied by `scale`. Also adds up the bias
gradient.

Args:
    grad: `[num_dst, 2 * width]`, gradient at the rows that `gather_rows` made.
    offsets: int32 `[num_dst + 1]`, for the degrees.
    source_offsets: from `transpose`.
    destinations: from `transpose`.
    states: `[num_src, width]`, what `activate` returned.
    first: first source.
    last: one past the last source.
    mean: the aggregation was a mean (else a sum).
    scale: 1 / (1 - dropout).
    out: `[>= last - first, width]`.
    bias_grad: `[width]`, added to.
"""
