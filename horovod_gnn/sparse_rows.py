"""Reading a sparse table of features: what `kernels.gather_rows` does of a dense one.

`fused` reads layer 1's table here, so that a wide bag of words is never made dense as a whole. The
sums are made in the order of the dense kernel: the same numbers, to the last bit.
"""

from __future__ import annotations

from gnn_core.compiled import njit

# mypy: disable-error-code="no-untyped-def"


@njit(nogil=True, cache=True)
def gather_sparse_rows(
    indptr, table_columns, values, nodes, offsets, columns, first, last, mean, out
):
    """Self and aggregated neighbour states of destinations [first, last), side by side.

    Args:
        indptr: int64 `[num_rows + 1]`, of the table as are `table_columns` and `values`.
        table_columns: int32 `[K]`, ascending within a row.
        values: float32 `[K]`.
        nodes: int64 `[num_src]`, the table row of each source.
        offsets: int32 `[num_dst + 1]`.
        columns: int32 `[num_edges]`.
        first: first destination.
        last: one past the last destination.
        mean: divide by the degree (else sum).
        out: `[>= last - first, 2 * width]`; left half self, right half neighbours.
    """
    width = out.shape[1] // 2
    real = out.dtype.type
    for i in range(first, last):
        row = out[i - first]
        row[:] = 0
        for k in range(indptr[nodes[i]], indptr[nodes[i] + 1]):
            row[table_columns[k]] = values[k]
        gathered = row[width:]
        edge, end = offsets[i], offsets[i + 1]
        degree = end - edge
        if degree % 2 == 1:
            node = nodes[columns[edge]]
            for k in range(indptr[node], indptr[node + 1]):
                gathered[table_columns[k]] = values[k]
            edge += 1
        while edge < end:  # a pair is added up before it is added, as in the dense kernel
            node, other = nodes[columns[edge]], nodes[columns[edge + 1]]
            a, a_end = indptr[node], indptr[node + 1]
            b, b_end = indptr[other], indptr[other + 1]
            while a < a_end and b < b_end:
                column_a, column_b = table_columns[a], table_columns[b]
                if column_a == column_b:
                    gathered[column_a] += real(values[a]) + real(values[b])
                    a += 1
                    b += 1
                elif column_a < column_b:
                    gathered[column_a] += real(values[a])
                    a += 1
                else:
                    gathered[column_b] += real(values[b])
                    b += 1
            for k in range(a, a_end):
                gathered[table_columns[k]] += real(values[k])
            for k in range(b, b_end):
                gathered[table_columns[k]] += real(values[k])
            edge += 2
        if mean and degree > 1:
            scale = real(1) / real(degree)
            for j in range(width):
                gathered[j] *= scale
