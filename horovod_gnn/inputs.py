"""What layer 1 reads: a table in place, or rows that were gathered before the step.

`feed` and `evaluate` make it from a feature store; `model` and `fused` read it, and report the time
that takes to the store.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnn_core.data.feature_store import FeatureStore, Lent
from gnn_core.data.features import SparseFeatures

FeatureTable = Tensor | SparseFeatures  # [N, F]


@dataclass(frozen=True)
class StoredTable:
    """A store's table, to be read in place."""

    table: FeatureTable  # on the CPU it shares the store's memory
    store: FeatureStore


@dataclass(frozen=True)
class FetchedRows:
    """Rows of a table that were read before, in the order in which they are asked for.

    They are `rows` `[k, F]`, or, not copied out of `rows` `[any, F]` yet, its rows `at`; those
    beyond them are rows of `more`.
    """

    rows: Tensor
    at: np.ndarray | None = None  # int64 [k]
    more: Tensor | None = None

    @classmethod
    def of(cls, lent: Lent) -> FetchedRows:
        """Rows that a store has lent, on its memory."""
        more = None if lent.more is None else _in_torch(lent.more)
        return cls(_in_torch(lent.rows), lent.at, more)


Inputs = FeatureTable | StoredTable | FetchedRows


def is_sparse(inputs: Inputs) -> bool:
    """Whether layer 1 reads sparse rows in place."""
    table = inputs.table if isinstance(inputs, StoredTable) else inputs
    return isinstance(table, SparseFeatures)


def torch_table(store: FeatureStore) -> FeatureTable | None:
    """The store's table on the same memory: a tensor, or sparse; None if it has none to give."""
    if store.table is None or isinstance(store.table, SparseFeatures):
        return store.table
    return _in_torch(store.table)


def gather(store: FeatureStore, ids: np.ndarray, pinned: bool = False) -> Tensor:
    """Rows `[k, F]` of a store, on the CPU, in page-locked memory if `pinned`."""
    rows, wait = gather_ahead(store, ids, pinned)
    wait()
    return rows


def gather_ahead(
    store: FeatureStore, ids: np.ndarray, pinned: bool = False
) -> tuple[Tensor, Callable[[], None]]:
    """The same rows, which may be read when the function beside them has returned."""
    dtype = torch.from_numpy(np.empty(0, store.dtype)).dtype
    rows = torch.empty(len(ids), store.width, dtype=dtype, pin_memory=pinned)
    return _decoded(rows), store.gather_ahead(ids, rows.numpy())


def fetch_rows(
    inputs: Inputs, rows: np.ndarray | Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Rows `[k, F]` of the inputs, dense, as `dtype`.

    Args:
        inputs: what layer 1 reads.
        rows: int64 `[k]`, which rows, on the table's device; `FetchedRows` are just those already.
        dtype: of the result; None leaves what is stored.
    """
    if isinstance(inputs, StoredTable):
        start = time.perf_counter()
        fetched = fetch_rows(inputs.table, rows, dtype)
        seconds = time.perf_counter() - start
        inputs.store.count_read(seconds, len(rows) * inputs.store.row_bytes)
        return fetched
    if isinstance(inputs, FetchedRows):
        fetched = inputs.rows
        if inputs.at is not None:
            at = torch.from_numpy(inputs.at)
            if inputs.more is None:
                fetched = fetched.index_select(0, at)
            else:
                beyond = at - len(fetched)
                first = fetched.index_select(0, at.clamp(max=len(fetched) - 1))
                first[beyond >= 0] = inputs.more[beyond[beyond >= 0]]
                fetched = first
    elif isinstance(inputs, SparseFeatures):
        fetched = torch.from_numpy(inputs[rows])
    else:
        fetched = inputs.index_select(0, torch.as_tensor(rows))
    return fetched if dtype is None else fetched.to(dtype)


def _in_torch(stored: np.ndarray) -> Tensor:
    """Stored features on the same memory."""
    with warnings.catch_warnings():
        # A map is read-only, and nothing here writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return _decoded(torch.from_numpy(stored))


def _decoded(stored: Tensor) -> Tensor:
    """Stored features as torch names them: NumPy has no bfloat16 and keeps its bits in a uint16."""
    return stored.view(torch.bfloat16) if stored.dtype == torch.uint16 else stored
