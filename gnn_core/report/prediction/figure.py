"""A prediction -> a figure: what was measured above, what is computed below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gnn_core.report.figures.style import (
    WIDTH_INCHES,
    add_key,
    add_title,
    file_word,
    plain,
    save_figures,
)
from gnn_core.report.prediction.outlook import ForecastPoint, Outlook
from gnn_core.report.prediction.work import efficiency_of

_RED, _GREY = "#D55E00", "#777777"


def draw_scaling(view: Outlook, directory: Path) -> Path:
    """Write scaling-<strategy>-<data set>.png, or weak-...; the file. Raises UsageError."""
    word = "weak" if view.weak else "scaling"
    name = f"{word}-{view.work.strategy}-{file_word(view.work.dataset)}.png"
    return save_figures({name: scaling_figure(view)}, directory)[0]


def scaling_figure(view: Outlook) -> Figure:
    """Return efficiency by ranks in two panels of one scale: measured, and PREDICTED below.

    The prediction is dashed, with the band of the probe's quartiles; above it is drawn again beside
    the measured points, where it can be judged.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharey=True)
    measured = {one.ranks for one in view.work.measured if not view.weak}
    beyond = max(measured, default=1)
    near = [point for point in view.points if point.predicted.num_ranks <= beyond]
    far = [point for point in view.points if point.predicted.num_ranks > beyond]
    if view.weak:
        upper.text(0.5, 0.5, "nothing measured", transform=upper.transAxes, ha="center")
        upper.set_xlim(1, 2)
    else:
        _draw_measured(upper, view)
    for axes, points in ((upper, near), (lower, far)):
        _draw_predicted(axes, points)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        plain(axes)
        axes.set_ylabel("speed-up / ranks (%)")
    lower.set_xticks([point.predicted.num_ranks for point in far])
    lower.set_facecolor("#F4F4F4")
    lower.set_title("PREDICTED, not measured", loc="left", fontsize="medium")
    judged = ", and predicted beside it" if near else ""
    upper.set_title(f"measured{judged}", loc="left", fontsize="medium")
    lower.set_xlabel("ranks")
    upper.set_ylim(0, 105)
    upper.set_xticks(sorted(measured))
    upper.minorticks_off()
    kind = "Weak" if view.weak else "Strong"
    add_title(figure, f"{kind} scaling of {view.work.strategy} on {view.work.dataset}")
    add_key(figure, [one for axes in (upper, lower) for one in axes.get_legend_handles_labels()[0]])
    return figure


def _draw_measured(axes: Any, view: Outlook) -> None:
    """One host and several are two lines; hollow where ranks share cores."""
    label = f"measured, `{view.work.base.strategy}`: T(1)"
    axes.plot(1, 100, "D", color=_GREY, linestyle="", label=label)
    for several, marker in ((False, "o"), (True, "s")):
        runs = [one for one in view.work.runs if (len(one.ranks_per_host) > 1) == several]
        points = [(one.ranks, 100 * efficiency_of(view.work, one)) for one in runs]
        look: dict[str, Any] = {"color": "black", "marker": marker}
        if runs:
            label = f"measured, {'several hosts' if several else 'one host'}"
            axes.plot(*zip(*points, strict=True), linewidth=1.8, **look, label=label)
        for one, point in zip(runs, points, strict=True):
            if one.crowded:
                look |= {"markerfacecolor": "white", "linestyle": ""}
                axes.plot(*point, **look, label="measured, ranks share cores")


def _draw_predicted(axes: Any, points: Sequence[ForecastPoint]) -> None:
    if not points:
        return
    ranks = [point.predicted.num_ranks for point in points]
    band = ([100 * point.low for point in points], [100 * point.high for point in points])
    look: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "label": "with the probe's quartiles"}
    axes.fill_between(ranks, *band, color=_RED, **look)
    efficiencies = [100 * point.predicted.efficiency for point in points]
    look = {"linestyle": (0, (5, 2)), "marker": "o", "markerfacecolor": "white"}
    axes.plot(ranks, efficiencies, color=_RED, **look, label="PREDICTED")
