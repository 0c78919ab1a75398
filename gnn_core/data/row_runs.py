"""Which rows of a file are one read, and how rows are copied: for `disk_reads` and beside."""

from __future__ import annotations

from gnn_core.compiled import njit, types

_memcpy = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))


@njit(cache=True, nogil=True)
def next_run(ids, begin, layout, room):  # type: ignore[no-untyped-def]
    """Rows from `begin` on that are one read -> (end of them, start and stop of their bytes).

    Rows of one block, and those with little between them, are one read, of `room` bytes at most.
    `layout`: bytes before row 0, of a row, of a block, and most between two rows of one read. The
    start is that of a block.
    """
    offset, row_bytes, block, most_gap = layout
    start = (offset + ids[begin] * row_bytes) // block * block
    stop = offset + (ids[begin] + 1) * row_bytes
    last = begin + 1
    while last < len(ids):
        row = offset + ids[last] * row_bytes
        if row - stop > most_gap or row + row_bytes + block - start > room:
            break
        stop = row + row_bytes
        last += 1
    return last, start, stop


@njit(cache=True, nogil=True)
def copy_run(ids, positions, begin, last, shift, buffer, out):  # type: ignore[no-untyped-def]
    """Copy rows `begin` .. `last` - 1 of `ids` to `out[positions]`.

    `shift` is where row 0 would begin in the buffer.
    """
    row_bytes = out.shape[1]
    for i in range(begin, last):
        source = buffer.ctypes.data + shift + ids[i] * row_bytes
        _memcpy(out.ctypes.data + positions[i] * row_bytes, source, row_bytes)


@njit(cache=True, nogil=True)
def copy_row(source, from_row, target, to_row):  # type: ignore[no-untyped-def]
    """target[to_row] = source[from_row], of contiguous uint8 arrays, in a quarter of the time."""
    row_bytes = source.shape[1]
    first = source.ctypes.data + from_row * row_bytes
    _memcpy(target.ctypes.data + to_row * row_bytes, first, row_bytes)
