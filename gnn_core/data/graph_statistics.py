"""A graph in words and numbers, for people: what `datasets show` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gnn_core.compiled import njit
from gnn_core.data.checks import ARRAY_NAMES, SPLIT_NAMES, spans
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import damage_reported, require_node, require_row
from gnn_core.usage import printable

_BAR = 40
_MOST_CLASSES = 16
_NAME = 12  # characters of the name of a class
_PERCENTILES = (0, 10, 25, 50, 75, 90, 99, 100)


def statistics(graph: Graph) -> str:
    """Counts, degrees, homophily, splits, years, classes, disk and memory, as aligned text."""
    parts = [_counts(graph), _degrees(graph)]
    if graph.splits is not None:
        parts.append(_splits(graph))
    if graph.years is not None:
        parts.append(_years(graph))
    if graph.labels is not None:
        parts.append(_classes(graph))
    parts.append(_memory(graph))
    return "\n\n".join("\n".join(map(printable, part)) for part in parts)


def edge_homophily(graph: Graph) -> float | None:
    """Share of edges that join nodes of the same class, among edges whose two ends have one."""
    if graph.labels is None:
        return None
    with damage_reported(graph):
        same, known = _count_alike(graph.indptr, graph.indices, graph.labels)
    return same / known if known else None


@njit(cache=True, nogil=True)
def _count_alike(indptr, indices, labels):  # type: ignore[no-untyped-def]
    same = known = 0
    for node in range(len(indptr) - 1):
        label = labels[node]
        if label < 0:
            continue
        require_row(indptr[node], indptr[node + 1], len(indices))
        for edge in range(indptr[node], indptr[node + 1]):
            require_node(indices[edge], len(labels))
            other = labels[indices[edge]]
            known += other >= 0
            same += other == label
    return same, known


def _counts(graph: Graph) -> list[str]:
    lines = [graph.name, ""]
    lines.append(_row("nodes", _number(graph.num_nodes)))
    mean = graph.num_edges / graph.num_nodes
    lines.append(_row("edges", f"{_number(graph.num_edges)}  (messages; {mean:.1f} per node)"))
    if graph.citations is not None:
        per_node = len(graph.citations) / graph.num_nodes
        lines.append(
            _row("citations", f"{_number(len(graph.citations))}  ({per_node:.1f} per node)")
        )
    if graph.features is None:
        lines.append(_row("features", "none"))
    else:
        sparse = ", sparse" if isinstance(graph.features, SparseFeatures) else ""
        lines.append(_row("features", f"{graph.num_features} x {graph.feature_dtype}{sparse}"))
    lines.append(_row("classes", str(graph.num_classes) if graph.labels is not None else "none"))
    homophily = edge_homophily(graph)
    if homophily is not None:
        lines.append(_row("homophily", f"{homophily:.3f}  (share of edges within a class)"))
    lines += [_row(key, value) for key, value in _origin(graph)]
    return lines


def _origin(graph: Graph) -> list[tuple[str, str]]:
    provenance = graph.meta.get("provenance", {})
    made_by = provenance.get("generator") or provenance.get("reader") or provenance.get("source")
    rows = [("made by", str(made_by))] if made_by else []
    files = provenance.get("imported_from") or ()
    rows += [("from" if not at else "", str(file)) for at, file in enumerate(files[:8])]
    if "edges_read" in provenance:
        told = f"{_number(provenance['edges_read'])}, of which {_number(provenance['self_loops'])}"
        told += f" self loops and {_number(provenance['repeats'])} repeats are left out"
        rows.append(("edges read", told))
    if graph.folder is not None:
        rows.append(("folder", str(graph.folder)))
    return rows


def _degrees(graph: Graph) -> list[str]:
    degrees = np.empty(graph.num_nodes, graph.indices.dtype)
    bins = np.zeros(64, np.int64)  # that double: 0, 1, 2-3, 4-7, ...
    for part in spans(graph.num_nodes, 8, full=True):
        degrees[part] = piece = np.diff(graph.indptr[part.start : part.stop + 1])
        bins += np.bincount(np.frexp(piece.astype(np.float64))[1], minlength=64)
    values = np.percentile(degrees, _PERCENTILES, method="nearest").astype(int)
    names = ["least", *(f"{p} %" for p in _PERCENTILES[1:-1]), "most"]
    table = [
        _row("degree", "".join(f"{name:>8}" for name in names)),
        _row("", "".join(f"{_number(int(value)):>8}" for value in values)),
        "",
    ]
    bins = np.trim_zeros(bins, "b")
    labels = ["0", "1"] + [f"{_number(2**k)} - {_number(2 ** (k + 1) - 1)}" for k in range(1, 63)]
    rows = [(labels[i], int(count)) for i, count in enumerate(bins)]
    return table + _bars(rows if bins[0] else rows[1:])


def _splits(graph: Graph) -> list[str]:
    assert graph.splits is not None
    counts = np.zeros(len(SPLIT_NAMES), np.int64)
    for part in spans(graph.num_nodes, 8, full=True):
        counts += np.bincount(graph.splits[part], minlength=len(SPLIT_NAMES))
    order = [1, 2, 3, 0]
    return ["splits"] + _bars([(SPLIT_NAMES[i], int(counts[i])) for i in order if counts[i] or i])


def _years(graph: Graph) -> list[str]:
    assert graph.years is not None
    found: Counter[int] = Counter()
    for part in spans(graph.num_nodes, 8, full=True):
        years, counts = np.unique(graph.years[part], return_counts=True)
        found.update(dict(zip(years.tolist(), counts.tolist(), strict=True)))
    rows = [(str(year), count) for year, count in sorted(found.items())]
    if len(rows) > 30:  # then the oldest ones are few
        older = sum(count for _, count in rows[:-25])
        rows = [(f"to {rows[-26][0]}", older), *rows[-25:]]
    return ["years"] + _bars(rows)


def _classes(graph: Graph) -> list[str]:
    assert graph.labels is not None
    counts = np.zeros(graph.num_classes, np.int64)
    for part in spans(graph.num_nodes, 8, full=True):
        piece = graph.labels[part]
        counts += np.bincount(piece[piece >= 0], minlength=graph.num_classes)[: len(counts)]
    unknown = graph.num_nodes - int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    shown, rest = order[:_MOST_CLASSES], order[_MOST_CLASSES:]
    names = graph.meta.get("provenance", {}).get("class_names")
    if not isinstance(names, list) or len(names) != graph.num_classes:
        names = range(graph.num_classes)
    rows = [(str(names[label])[:_NAME], int(counts[label])) for label in shown]
    lines = _bars(rows, graph.num_nodes)
    if len(rest):
        lines.append(_row(f"{len(rest)} others", f"{_number(int(counts[rest].sum())):>11}"))
    if unknown:
        lines.append(_row("no class", f"{_number(unknown):>11}"))
    return ["classes, largest first", *lines]


def _memory(graph: Graph) -> list[str]:
    arrays = {name: getattr(graph, name) for name in ARRAY_NAMES}
    sizes = {name: array.nbytes for name, array in arrays.items() if array is not None}
    lines = ["memory"]
    lines += [_row(name, f"{_bytes(size):>10}") for name, size in sizes.items()]
    lines.append(_row("on disk", f"{_bytes(sum(sizes.values())):>10}"))
    read = sum(size for name, size in sizes.items() if name not in ("citations", "years"))
    lines.append(
        _row("in training", f"{_bytes(read):>10}  shared by the ranks of a machine (page cache)")
    )
    if graph.features is not None:
        rows = min(graph.num_nodes, 1024 * (1 + 10 + 10 * 10))
        size = rows * graph.num_features * 4
        text = f"{_bytes(size):>10}  at most, for the features of 1024 targets, fan-outs 10, 10"
        lines.append(_row("each rank", text))
    return lines


def _row(name: str, text: str) -> str:
    return f"  {name:<13}{text}".rstrip()


def _bars(rows: Sequence[tuple[str, int]], total: int = 0) -> list[str]:
    """One line per (name, count): the count, its share of the total, a bar."""
    most = max((count for _, count in rows), default=0) or 1
    total = total or sum(count for _, count in rows) or 1
    lines = []
    for name, count in rows:
        bar = "#" * max(round(_BAR * count / most), count > 0)
        share = f"{100 * count / total:5.1f} %"
        lines.append(_row(name, f"{_number(count):>11} {share}  {bar}"))
    return lines


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
