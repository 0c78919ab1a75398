"""A partition in words and numbers, for people: what `show` prints, and the picture it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.data.checks import index_dtype
from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.data.room import size_text
from gnn_core.usage import UsageError, printable

_MOST_ROWS = 64
_FORMATS = (".png", ".svg", ".pdf")
_DRAWN = {
    "cut": "edges between parts",
    "remote_share": "remote rows of a step",
    "halo": "nodes and copies per node",
    "node_balance": "nodes, max / mean",
    "train_balance": "training targets, max / mean",
}


def holdings(meta: dict[str, Any]) -> str:
    """What each part holds: nodes, training targets, bytes of features and of adjacency rows.

    Args:
        meta: of `gnn_core.data.partition.folder.read_meta`.
    """
    lines = [("part", "nodes", "train targets", "edges", "features", "adjacency")]
    for part, counts in enumerate(_held(meta)[:_MOST_ROWS]):
        sizes = [size_text(size) for size in part_sizes(meta, *counts[:2])]
        adjacency = sizes[1] if meta["topology"] else "not stored"
        nodes, edges, train = (f"{count:,}" for count in counts)
        lines.append((f"{part}", nodes, train, edges, sizes[0], adjacency))
    text = "\n".join(
        f"{line[0]:>6}" + "".join(f"{cell:>15}" for cell in line[1:]) for line in lines
    )
    left = meta["num_parts"] - _MOST_ROWS
    more = f"\n{left:>6} more" if left > 0 else ""
    return (
        f"{text}{more}\n\nWith k parts on R ranks, part p is held by rank p * R // k.\n"
        f"{_of_all_nodes(meta)}"
    )


def _of_all_nodes(meta: dict[str, Any]) -> str:
    """What every host holds, whatever its parts are."""
    num_nodes, ids = meta["num_nodes"], index_dtype(meta["num_nodes"]).itemsize
    nodes = size_text((ids + 8 + 4 + 1) * num_nodes)
    adjacency = size_text(ids * sum(edges for _, edges, _ in _held(meta)))
    unless = ", unless it trains with --partition-topology" if meta["topology"] else ""
    return (
        f"Beside its parts, each host holds places, offsets, labels and splits of all nodes "
        f"({nodes}),\nand the neighbours of all nodes ({adjacency}){unless}."
    )


def summary(meta: dict[str, Any]) -> str:
    """How the graph was cut and how well."""
    rows = [
        ("graph", f"{printable(meta['graph'])}, {meta['num_nodes']:,} nodes"),
        ("method", f"{printable(meta['method'])}, {meta['num_parts']} parts, seed {meta['seed']}"),
    ]
    quality = meta.get("quality")
    if isinstance(quality, dict):
        try:
            rows += _quality_rows(quality)
        except (LookupError, TypeError, ValueError):
            rows.append(("quality", "not recorded"))
    return "\n".join(f"  {name:<28}{text}" for name, text in rows)


def part_sizes(meta: dict[str, Any], num_nodes: int, num_edges: int) -> tuple[int, int]:
    """Bytes of the features and of the adjacency rows of a part."""
    dtype = meta["feature_dtype"]
    width = 0 if dtype is None else meta["num_features"] * FEATURE_DTYPES[dtype].itemsize
    ids = index_dtype(meta["num_nodes"]).itemsize
    return num_nodes * width, 8 * (num_nodes + 1) + ids * num_edges


def draw(metas: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the quality of partitions side by side. Raises UsageError."""
    if file.suffix not in _FORMATS:
        raise UsageError(f"expected a file named {', '.join(_FORMATS)}, got {file}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "--figure: expected the package matplotlib, got none; install it "
            "(pip install 'ringsage[report]')"
        ) from None
    names = [f"{meta['method']}, k={meta['num_parts']}" for meta in metas]
    figure = Figure(figsize=(2.6 * len(_DRAWN), 1.2 + 0.35 * len(metas)), layout="constrained")
    for axes, (key, title) in zip(
        figure.subplots(1, len(_DRAWN), sharey=True), _DRAWN.items(), strict=True
    ):
        values = [float(meta.get("quality", {}).get(key, 0.0)) for meta in metas]
        bars = axes.barh(range(len(values)), values, color="tab:blue")
        axes.bar_label(bars, fmt="%.3g", padding=2)
        axes.margins(x=0.35)
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()  # the first on top, in all that share the axis
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _held(meta: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(nodes, edges, training targets) of each part."""
    offsets, held = meta["offsets"], meta.get("held")
    nodes = [high - low for low, high in zip(offsets, offsets[1:], strict=False)]
    found = held if isinstance(held, dict) else {}
    columns = []
    for key in ("edges", "train"):
        column = found.get(key, [])
        is_whole = isinstance(column, list) and all(type(count) is int for count in column)
        columns.append(column if is_whole and len(column) == len(nodes) else [0] * len(nodes))
    return list(zip(nodes, *columns, strict=True))


def _quality_rows(quality: dict[str, Any]) -> list[tuple[str, str]]:
    sampled = quality["sampled"]
    fanouts = ",".join(map(str, sampled["fanouts"]))
    balance = [f"{quality[f'{name}_balance']:.3f} {name}" for name in ("node", "edge", "train")]
    remote, rows = quality["remote_rows_per_step"], quality["rows_per_step"]
    return [
        ("edges between parts", f"{100 * quality['cut']:.1f} %"),
        ("nodes and copies per node", f"{quality['halo']:.2f}"),
        ("largest part in mean parts", ", ".join(balance)),
        (
            "remote rows a rank and step",
            f"{remote:,.0f} of {rows:,.0f} ({100 * quality['remote_share']:.1f} %), "
            f"{sampled['targets']} targets, fan-outs {fanouts}",
        ),
        (
            "of these in a prefix cache",
            f"{100 * quality['prefix_hits']:.1f} % with {sampled['cache']:g} N/k rows",
        ),
    ]
