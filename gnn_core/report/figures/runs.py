"""Records -> figures of single runs: loss curves laid over each other, and what ranks used.

The loss of all runs of a data set is one figure. What ranks used is one for each run, with a line
for each rank, so that one that waits, grows or is held back is seen beside the others.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.figures.bars import row_labels
from gnn_core.report.figures.style import (
    DASHES,
    WIDTH_INCHES,
    add_key,
    add_title,
    plain,
    sign,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rows import losses_by_step, row_of, steps_per_epoch
from gnn_core.report.table import GIB, MB
from gnn_core.strategies import STRATEGIES, order_of

_MOST_CURVES = 12  # in a key, before seeds are no longer named
_MOST_RANKS = 8  # in a key, before only the first and the last are named
_PANELS = (
    ("cpu_cores", "CPU cores\nof the process", 1),
    ("rss_bytes", "memory (RSS),\nGiB", GIB),
    ("network_bytes_per_second", "network of host\nor pod, MB/s", MB),
    ("file_bytes_per_second", "files, MB/s", MB),
)
_PALEST = 0.85  # of viridis, which is pale yellow at its end


def loss_curves(runs: Sequence[RunRecord], name: str | None = None) -> Figure:
    """Return the training loss of runs on one data set, and how far each is from one process.

    `name` stands in the title; None: the data set's.

    Curves that should be equal lie on each other: earlier ones are wide and pale, later ones
    narrow, so that all are seen. Below, the distance to the `single` run of the same settings.
    """
    ordered = sorted(runs, key=lambda run: (order_of(run.strategy), run.world_size))
    distances = [_distance_to_single(run, ordered) for run in ordered]
    compared = any(losses for _, losses in distances)
    labels = _curve_labels(ordered)
    names = list(dict.fromkeys(labels))
    height = (5.8 if compared else 4.2) + 0.17 * len(names)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    above, *below = figure.subplots(
        1 + compared, 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + compared]
    )[:, 0]
    ranks = sorted({run.world_size for run in ordered})
    for run, distance, label in zip(ordered, distances, labels, strict=True):
        layer = names.index(label) / max(1, len(names) - 1)
        dashes = DASHES[ranks.index(run.world_size) % len(DASHES)]
        look: dict[str, Any] = {"color": strategy_colour(run.strategy), "linestyle": dashes}
        look |= {"alpha": 0.45 + 0.5 * layer, "label": label}
        above.plot(*loss_points(run), **look, linewidth=4 - 2.8 * layer)
        for axes in below:
            axes.plot(*distance, **look, linewidth=1.2)
    add_key(figure, above.lines)
    for text in figure.legends[0].texts:
        text.set_text(textwrap.fill(text.get_text(), 60))
    above.set_ylabel("training loss\n(mean per target, nats)", fontsize="small")
    title = title_lines(f"Training loss on {name or runs[0].dataset.name}")
    above.set_title(title, loc="left", fontsize="medium")
    for axes in below:
        axes.set_yscale("log")
        axes.set_ylabel("|loss - loss of single|\n(nats; equal where no line)", fontsize="small")
    for axes in (above, *below):
        plain(axes)
    figure.axes[-1].set_xlabel("epoch")
    return figure


def _curve_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return what tells the curves apart, with their seeds where there are several."""
    labels = row_labels([row_of([run]) for run in runs], starred=False)
    pairs = list(zip(labels, runs, strict=True))
    if len({run.config.get("seed") for run in runs}) > 1:
        seeds: dict[str, set[Any]] = {}
        for label, run in pairs:
            seeds.setdefault(label, set()).add(run.config.get("seed"))
        many = sum(map(len, seeds.values())) > _MOST_CURVES
        labels = [
            f"{label}, {counted(len(seeds[label]), 'seed')}"
            if many
            else f"{label}, seed {run.config.get('seed')}"
            for label, run in pairs
        ]
    ended = zip(labels, (run.status for run in runs), strict=True)
    return [label if status == "ok" else f"{label} ({status})" for label, status in ended]


def loss_points(run: RunRecord) -> tuple[list[float], list[float]]:
    """Return (epochs passed, loss): of each step where steps were kept, else of each epoch."""
    steps = steps_per_epoch(run)
    if run.step_losses and steps:
        points = [((step + 0.5) / steps, loss) for step, loss in losses_by_step(run).items()]
    else:
        losses = [(epoch.epoch + 0.5, epoch.train_loss) for epoch in run.epochs]
        points = [(where, loss) for where, loss in losses if loss is not None]
    return [where for where, _ in points], [loss for _, loss in points]


def _distance_to_single(
    run: RunRecord, among: Sequence[RunRecord]
) -> tuple[list[float], list[float]]:
    """Return (epochs passed, distance > 0) to the first single run with an equal loss curve due."""
    for other in among if run.same_curve else ():
        if other.strategy == "single" and other is not run and _same_curve(run, other):
            other_loss = dict(zip(*loss_points(other), strict=True))
            points = zip(*loss_points(run), strict=True)
            apart = [(at, abs(loss - other_loss[at])) for at, loss in points if at in other_loss]
            shown = [(at, distance) for at, distance in apart if distance > 0]  # the axis is a log
            return [at for at, _ in shown], [distance for _, distance in shown]
    return [], []


def _same_curve(run: RunRecord, other: RunRecord) -> bool:
    same_graph = run.dataset.fingerprint == other.dataset.fingerprint
    return run.config_digest == other.config_digest and same_graph


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
    count = len(run.resources)
    colours = [colormaps["viridis"](_PALEST * rank / max(1, count - 1)) for rank in range(count)]
    figure = Figure(figsize=(WIDTH_INCHES, 7.4), layout="constrained")
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    for axes, (what, label, unit) in zip(panels, _PANELS, strict=True):
        shown = ranks
        if what.startswith("network"):  # ranks of one host or pod read the same counters
            marks = [rank if one.network_mark is None else one.network_mark for rank, one in ranks]
            shown = [pair for at, pair in enumerate(ranks) if marks[at] not in marks[:at]]
        for rank, one in shown:
            # Ranks that do the same lie on each other: earlier ones are wider, so all are seen.
            width = 1.2 + 1.6 * (1 - (rank + 1) / count)
            _steps(axes, one, what, unit, color=colours[rank], linewidth=width)
        for rank, one in shown if what.startswith("network") else ():
            look: dict[str, Any] = {"color": colours[rank], "linewidth": 1.2, "linestyle": "--"}
            _steps(axes, one, "loopback_bytes_per_second", unit, **look)
        if not axes.patches:
            axes.annotate(
                "not reported by this system", (0.5, 0.5), xycoords="axes fraction", ha="center"
            )
        axes.set_ylabel(label, fontsize="small")
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1] if axes.patches else 1)
        axes.locator_params(axis="y", nbins=4)
        plain(axes)
    panels[-1].set_xlim(0, max(one.series.seconds[-1] for _, one in ranks))
    panels[-1].set_xlabel("seconds since the first epoch began", fontsize="small")
    size = "" if run.strategy == "single" else f", {counted(run.world_size, 'rank')}"
    add_title(figure, f"Resources of {run.strategy}{size}\non {name or run.dataset.name}")
    names = [f"rank {rank}" for rank in range(count)]
    if count == 1:
        names = ["one process" + f", {run.world_size} replicas" * (run.world_size > 1)]
    chosen = range(count) if count <= _MOST_RANKS else (0, count - 1)
    handles = [sign(names[rank], color=colours[rank], linestyle="-") for rank in chosen]
    add_key(figure, [*handles, sign("over loopback", color="#555555", linestyle="--")], 3)
    return figure


def _steps(axes: Any, one: ProcessResources, name: str, unit: float, **look: Any) -> None:
    """Draw the means of the intervals as steps, where any of them is known."""
    values = [math.nan if value is None else value / unit for value in getattr(one.series, name)]
    if not all(map(math.isnan, values)):
        axes.stairs(values, [0.0, *one.series.seconds], baseline=None, **look)
