"""The ids that nodes had where a graph came from, and the names of its classes.

Nodes are numbered from 0. A graph folder may keep what they were called before: whole numbers in
`ids.npy` (int64 `[N]`), or text in `ids-offsets.npy` (int64 `[N + 1]`) and `ids-bytes.npy` (uint8),
where node i is called by the UTF-8 bytes from offset i to offset i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.checks import Subject
from gnn_core.data.graph import Graph
from gnn_core.data.mapped import map_array
from gnn_core.files import is_file
from gnn_core.usage import UsageError, shown

IDS, OFFSETS, BYTES = "ids.npy", "ids-offsets.npy", "ids-bytes.npy"
_PIECE = 1 << 16  # ids compared at a time
_MOST_DIGITS = 20


class TextIds:
    """Text ids `[N]`, memory-mapped.

    Args:
        offsets: int64 `[N + 1]`, ascending from 0.
        data: uint8, the ids one after the other, in UTF-8.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]):
        self._offsets, self._data = offsets, data

    def __len__(self) -> int:
        """N."""
        return len(self._offsets) - 1

    def __getitem__(self, nodes: npt.NDArray[np.int64]) -> list[str]:
        """The ids of some nodes int64 `[k]`."""
        begins, ends = self._offsets[nodes].tolist(), self._offsets[nodes + 1].tolist()
        return [
            self._data[begin:end].tobytes().decode("utf-8", "replace")
            for begin, end in zip(begins, ends, strict=True)
        ]


OriginalIds = npt.NDArray[np.int64] | TextIds


def original_ids(graph: Graph) -> OriginalIds | None:
    """What the nodes were called where the graph came from; None where they had no other ids.

    Raises UsageError for files that do not fit the graph.
    """
    folder = graph.folder
    if folder is None:
        return None
    subject = Subject(graph.name, folder, "import the graph again")
    if is_file(folder / IDS):
        return _column(subject, folder / IDS, np.int64, graph.num_nodes)
    if not is_file(folder / OFFSETS):
        return None
    offsets = _column(subject, folder / OFFSETS, np.int64, graph.num_nodes + 1)
    data = _column(subject, folder / BYTES, np.uint8, int(offsets[-1]))
    if offsets[0] != 0 or np.any(offsets[1:] < offsets[:-1]):
        raise subject.error(Path(OFFSETS).stem, "ascending offsets from 0", "others")
    return TextIds(offsets, data)


def called(
    ids: OriginalIds | None, nodes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | list[str]:
    """What the nodes int64 `[k]` are called: by their original ids, or by their numbers."""
    if ids is None:
        return nodes
    return ids[nodes] if isinstance(ids, TextIds) else np.asarray(ids[nodes])


def nodes_called(
    graph: Graph, ids: OriginalIds | None, words: Sequence[str]
) -> npt.NDArray[np.int64]:
    """The numbers int64 `[k]` of the nodes that are called so, in the order of `words`.

    Raises UsageError for the first word that no node is called by.
    """
    found = dict.fromkeys(words, -1)
    if ids is None:
        numbers = {word: int(word) for word in found if _is_number(word)}
        found |= {word: node for word, node in numbers.items() if node < graph.num_nodes}
    else:
        for first in range(0, graph.num_nodes, _PIECE):
            names = called(ids, np.arange(first, min(first + _PIECE, graph.num_nodes)))
            for node, name in enumerate(map(str, names), first):
                if name in found:
                    found[name] = node
    if missing := [word for word, node in found.items() if node < 0]:
        kind = "numbers from 0" if ids is None else "the ids that it was imported with"
        raise UsageError(
            f"graph {graph.name}: expected ids of its {graph.num_nodes:,} nodes ({kind}), got "
            f"{shown(missing[0])}; give others, or the data set that has it"
        )
    return np.array([found[word] for word in words], np.int64)


def class_names(graph: Graph) -> list[str] | None:
    """The names of the classes, in the order of their numbers; None where they have none."""
    for facts in (graph.meta, graph.meta.get("provenance", {})):
        names = facts.get("class_names")
        if isinstance(names, list) and len(names) == graph.num_classes:
            return [str(name) for name in names]
    return None


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < _MOST_DIGITS


def _column(subject: Subject, path: Path, dtype: npt.DTypeLike, length: int) -> npt.NDArray:
    """A one-dimensional array of a graph folder, memory-mapped. UsageError."""
    array = map_array(path, subject)
    expected = f"{np.dtype(dtype)} [{length}]"
    if array is None:
        raise subject.error(path.stem, expected, "no such file")
    if array.dtype != dtype or array.shape != (length,):
        raise subject.error(path.stem, expected, f"{array.dtype} {list(array.shape)}")
    return array
