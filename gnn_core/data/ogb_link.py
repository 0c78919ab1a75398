"""The split of ogbl-citation2 (Hu et al., NeurIPS 2020): edges to train on, and those held out.

`train.pt`, `valid.pt` and `test.pt` hold `source_node` and `target_node`, `[n]` each; the last two
also `target_node_neg` `[n, K]`: whom each of their edges is ranked among. The raw edge file has the
edges of `train.pt` once more, in any order, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import index_dtype, spans
from gnn_core.data.progress import Progress
from gnn_core.data.store import GraphWriter
from gnn_core.data.torch_file import IntegerArrays, read_arrays
from gnn_core.usage import UsageError

SPLITS = ("train", "valid", "test")
_ENDS = ("source_node", "target_node")
_OTHERS = "target_node_neg"


def write_split(
    writer: GraphWriter,
    folder: Path,
    num_nodes: int,
    edge_file: Path,
    edges: Iterator[npt.NDArray[np.integer]],
    progress: Progress,
) -> None:
    """Write the edges of the three splits and the candidates of two.

    Args:
        writer: of the graph.
        folder: where the three files are.
        num_nodes: nodes of the graph.
        edge_file: the raw edge file, to be named in an error.
        edges: what it holds, `[k, 2]` at a time, of valid ids.
        progress: gets where this is.

    Raises:
        UsageError: a file is not as described, or the edge file has other edges than `train.pt`.
    """
    for done, split in enumerate(SPLITS):
        progress("split", done, len(SPLITS))
        path = folder / f"{split}.pt"
        arrays = read_arrays(path)
        _check(path, arrays, num_nodes, held_out=split != "train")
        ends = [arrays[name] for name in _ENDS]
        _write(writer, f"{split}_edges", ends, num_nodes)
        if split == "train":
            _require_same(path, _numbered(ends, num_nodes), edge_file, edges, num_nodes)
        else:
            _write(writer, f"{split}_candidates", [arrays[_OTHERS]], num_nodes)


def _check(path: Path, arrays: IntegerArrays, num_nodes: int, *, held_out: bool) -> None:
    names = (*_ENDS, _OTHERS) if held_out else _ENDS
    for name in names:
        if name not in arrays:
            raise _error(path, name, f"only {', '.join(arrays) or 'an empty dict'}")
        array, count = arrays[name], len(np.atleast_1d(arrays[_ENDS[0]]))
        if array.ndim != 1 + (name == _OTHERS) or len(array) != count or not array.size:
            shape = "[edges, candidates]" if name == _OTHERS else "[edges]"
            raise _error(path, f"{name} of shape {shape}, as many as source_node", array.shape)
        for span in spans(len(array), array.itemsize * (array.size // count), full=True):
            low, high = array[span].min(), array[span].max()
            if low < 0 or high >= num_nodes:
                got = int(low if low < 0 else high)
                raise _error(path, f"node ids from 0 to {num_nodes - 1} in {name}", got)


def _write(
    writer: GraphWriter, name: str, columns: list[npt.NDArray[np.integer]], num_nodes: int
) -> None:
    """Write columns side by side, a piece at a time."""
    dtype = index_dtype(num_nodes)
    tables = [column.reshape(len(column), -1) for column in columns]
    width = sum(table.shape[1] for table in tables)
    with writer.stream(name, dtype, (len(tables[0]), width)) as sink:
        for span in spans(len(tables[0]), 8 * width, full=True):
            sink.write(np.concatenate([table[span] for table in tables], axis=1).astype(dtype))


def _numbered(ends: list[npt.NDArray[np.integer]], num_nodes: int) -> npt.NDArray[np.int64]:
    """One number for each edge: source * num_nodes + target."""
    numbers = ends[0].astype(np.int64)
    numbers *= num_nodes
    numbers += ends[1].astype(np.int64)
    return numbers


def _require_same(
    path: Path,
    wanted: npt.NDArray[np.int64],
    edge_file: Path,
    edges: Iterator[npt.NDArray[np.integer]],
    num_nodes: int,
) -> None:
    """Raise UsageError unless the edges are those, each as often, in any order."""
    found = np.concatenate(
        [np.empty(0, np.int64), *(_numbered([*piece.T], num_nodes) for piece in edges)]
    )
    if len(found) != len(wanted):
        raise _error(edge_file, f"the {len(wanted)} edges of {path.name}", f"{len(found)} edges")
    wanted.sort()
    found.sort()
    odd = np.flatnonzero(found != wanted)
    if len(odd):
        first = min(int(found[odd[0]]), int(wanted[odd[0]]))
        edge = " -> ".join(str(end) for end in divmod(first, num_nodes))
        got = f"others: {edge} is in one of the two only, or more often"
        raise _error(edge_file, f"the edges of {path.name}", got)


def _error(path: Path, expected: str, got: object) -> UsageError:
    got = list(got) if isinstance(got, tuple) else got
    return UsageError(f"{path}: expected {expected}, got {got}; fetch the file again")
