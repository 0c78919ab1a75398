"""Records -> figures of what ranks used over time: cores, memory, network and files.

A run has a figure of its own, with a line for each rank, so that one that waits, grows or is held
back is seen beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.figures.runs import WIDTH_INCHES, title_lines
from gnn_core.report.tables.footprint import GIB
from gnn_core.report.tables.resources import MB
from gnn_core.strategies import STRATEGIES

_PANELS = (
    ("cpu_cores", "CPU cores\nof the process", 1),
    ("rss_bytes", "memory (RSS),\nGiB", GIB),
    ("network_bytes_per_second", "network of host\nor pod, MB/s", MB),
    ("file_bytes_per_second", "files, MB/s", MB),
)
_DARKEST, _PALEST = 0.0, 0.85  # of viridis, which is pale yellow at its end
_MOST_NAMES = 8  # ranks, before only the first and the last are named
_UNKNOWN = "not reported by this system"


def drawn_runs(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return of each strategy the newest of its largest runs that ended well and were sampled."""
    found: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda one: (one.world_size, one.started_at)):
        if run.status == "ok" and any(rank and rank.series.seconds for rank in run.resources):
            found[run.strategy] = run
    return [found[strategy] for strategy in STRATEGIES if strategy in found]


def resource_lines(run: RunRecord, name: str | None = None) -> Figure:
    """Return cores, memory, network and files of each rank over the seconds since it began.

    `name` stands in the title; None: the data set's.

    The network is that of a host or pod, with one line for all ranks of it, dashed over loopback.
    """
    ranks = [(rank, one) for rank, one in enumerate(run.resources) if one and one.series.seconds]
    colours = _colours(len(run.resources))
    figure = Figure(figsize=(WIDTH_INCHES, 7.4), layout="constrained")
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    for axes, (name, label, unit) in zip(panels, _PANELS, strict=True):
        of_network = name.startswith("network")
        shown = _one_of_each_network(ranks) if of_network else ranks
        known = [
            _line(axes, one, name, unit, colours[rank], (rank + 1) / len(colours))
            for rank, one in shown
        ]
        if of_network:
            loopback = "loopback_bytes_per_second"
            known += [
                _line(axes, one, loopback, unit, colours[rank], linestyle="--")
                for rank, one in shown
            ]
        if not any(known):
            axes.annotate(_UNKNOWN, (0.5, 0.5), xycoords="axes fraction", ha="center")
        axes.set_ylabel(label, fontsize="small")
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1] if any(known) else 1)
        axes.locator_params(axis="y", nbins=4)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlim(0, max(one.series.seconds[-1] for _, one in ranks))
    panels[-1].set_xlabel("seconds since the first epoch began", fontsize="small")
    size = "" if run.strategy == "single" else f", {counted(run.world_size, 'rank')}"
    title = title_lines(f"Resources of {run.strategy}{size}\non {name or run.dataset.name}")
    figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
    _add_key(figure, run, colours)
    return figure


def _line(
    axes: Any,
    one: ProcessResources,
    name: str,
    unit: float,
    colour: Any,
    layer: float = 1.0,
    **look: Any,
) -> bool:
    """Draw the means of the intervals as steps; False where none of them is known.

    Ranks that do the same lie on each other: earlier ones are wider, so that all are seen.
    """
    values = [math.nan if value is None else value / unit for value in getattr(one.series, name)]
    if all(map(math.isnan, values)):
        return False
    axes.stairs(
        values,
        [0.0, *one.series.seconds],
        baseline=None,
        color=colour,
        linewidth=1.2 + 1.6 * (1 - layer),
        **look,
    )
    return True


def _one_of_each_network(
    ranks: Sequence[tuple[int, ProcessResources]],
) -> list[tuple[int, ProcessResources]]:
    """Return the first rank of each network: the others of it read the same counters."""
    found: dict[object, tuple[int, ProcessResources]] = {}
    for rank, one in ranks:
        found.setdefault(rank if one.network_mark is None else one.network_mark, (rank, one))
    return list(found.values())


def _colours(count: int) -> list[Any]:
    step = (_PALEST - _DARKEST) / max(1, count - 1)
    return [colormaps["viridis"](_DARKEST + rank * step) for rank in range(count)]


def _add_key(figure: Figure, run: RunRecord, colours: Sequence[Any]) -> None:
    names = [f"rank {rank}" for rank in range(len(colours))]
    if len(names) == 1:
        names = ["one process" + f", {run.world_size} replicas" * (run.world_size > 1)]
    chosen = range(len(names)) if len(names) <= _MOST_NAMES else (0, len(names) - 1)
    axes = figure.axes[0]
    handles = [axes.plot([], [], color=colours[rank], label=names[rank])[0] for rank in chosen]
    handles += axes.plot([], [], "--", color="#555555", label="over loopback")
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
