"""Splits given in a file of their own: a table (id, split) or an array with a number per node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.casts import cast
from gnn_core.data.importer.arrays import column_in
from gnn_core.data.importer.edges import numbers_of
from gnn_core.data.importer.keys import Keys
from gnn_core.data.importer.nodes import IDS, id_column, split_numbers
from gnn_core.data.importer.request import Request
from gnn_core.data.importer.tables import Table
from gnn_core.data.importer.text import refuse
from gnn_core.usage import UsageError

_ARRAYS = (".npy", ".npz")


def read_split_file(
    path: Path, request: Request, keys: Keys, listed_in: str
) -> npt.NDArray[np.uint8]:
    """uint8 [N]: 0 none (also where the table has no row), 1 train, 2 validation, 3 test."""
    if not path.exists():
        wanted = "random:0.6,0.2,0.2, planetoid, year:2017,2018 or a file"
        raise UsageError(f"--split: expected {wanted}, got {path}, which is not there")
    if path.suffix in _ARRAYS:

        def error(expected: str, got: object) -> UsageError:
            return refuse(path, None, expected, got)

        values = column_in(path, len(keys), ("splits", "split"))
        what = "splits (0 none, 1 train, 2 validation, 3 test)"
        return cast(values.reshape(-1), np.uint8, what, error, 0, 3)
    table = Table.open(path, [*IDS, "split"], request.text)
    key = id_column(table, request)
    others = [name for name in table.names if name != key]
    if not others:
        raise refuse(path, None, "columns of ids and splits", "one column")
    named = request.split_column
    split = table.column(named, "--split-column") if named in table.names else None
    column = split or table.guess(("split", "splits")) or others[0]
    splits = np.zeros(len(keys), np.uint8)
    is_given = np.zeros(len(keys), np.bool_)
    for batch in table.batches({key: keys.kind, column: "text"}):
        nodes = numbers_of(batch, key, keys, listed_in)
        again = is_given[nodes]
        again[np.setdiff1d(np.arange(len(nodes)), np.unique(nodes, return_index=True)[1])] = True
        if again.any():
            row = int(np.flatnonzero(again)[0])
            got = f"{batch.columns[key][row].as_py()!r} again"
            raise batch.error(row, "each node in one split", got)
        is_given[nodes] = True
        splits[nodes] = split_numbers(batch, column)
    return splits
