"""A prediction -> a figure: what was measured above, what is computed below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display

from gnn_core.report.figures.runs import WIDTH_INCHES, file_word, save_figures, title_lines
from gnn_core.report.prediction.outlook import ForecastPoint, Outlook
from gnn_core.report.prediction.work import efficiency_of


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
    beyond = max([one.num_ranks for one in view.measured], default=1)
    near = [point for point in view.points if point.predicted.num_ranks <= beyond]
    far = [point for point in view.points if point.predicted.num_ranks > beyond]
    _draw_measured(upper, view)
    for axes, points in ((upper, near), (lower, far)):
        _draw_predicted(axes, view, points)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("speed-up / ranks (%)")
    lower.set_xticks([point.predicted.num_ranks for point in far])
    lower.set_facecolor("#F4F4F4")
    lower.set_title("PREDICTED, not measured", loc="left", fontsize="medium")
    judged = ", and predicted beside it" if near else ""
    upper.set_title(f"measured{judged}", loc="left", fontsize="medium")
    lower.set_xlabel("ranks")
    upper.set_ylim(0, 105)
    upper.set_xticks(sorted({one.num_ranks for one in view.measured}))
    upper.minorticks_off()
    kind = "Weak" if view.weak else "Strong"
    title = f"{kind} scaling of {view.work.strategy} on {view.work.dataset}"
    figure.suptitle(title_lines(title), x=0.02, ha="left", fontsize="medium")
    keys = {
        text: handle
        for axes in (upper, lower)
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        keys.values(), keys.keys(), loc="outside lower center", frameon=False, fontsize="small"
    )
    return figure


def _draw_measured(axes: Any, view: Outlook) -> None:
    """One host and several are two lines; hollow where ranks share cores."""
    if not view.measured:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
        axes.set_xlim(1, 2)
        return
    base = view.work.base
    label = f"measured, `{base.strategy}`: T(1)"
    axes.plot(1, 100, "D", color="#777777", linestyle="", label=label)
    for several, marker in ((False, "o"), (True, "s")):
        runs = [one for one in view.work.runs if (one.num_hosts > 1) == several]
        if not runs:
            continue
        ranks = [one.num_ranks for one in runs]
        efficiencies = [100 * efficiency_of(view.work, one) for one in runs]
        axes.plot(
            ranks,
            efficiencies,
            color="black",
            linewidth=1.8,
            marker=marker,
            label=f"measured, {'several hosts' if several else 'one host'}",
        )
        for one, efficiency in zip(runs, efficiencies, strict=True):
            if one.crowded:
                axes.plot(
                    one.num_ranks,
                    efficiency,
                    marker,
                    color="black",
                    markerfacecolor="white",
                    label="measured, ranks share cores",
                )


def _draw_predicted(axes: Any, view: Outlook, points: Sequence[ForecastPoint]) -> None:
    ranks = [point.predicted.num_ranks for point in points]
    if not ranks:
        return
    axes.fill_between(
        ranks,
        [100 * point.low for point in points],
        [100 * point.high for point in points],
        color="#D55E00",
        alpha=0.15,
        linewidth=0,
        label="with the probe's quartiles",
    )
    axes.plot(
        ranks,
        [100 * point.predicted.efficiency for point in points],
        color="#D55E00",
        linestyle=(0, (5, 2)),
        marker="o",
        markerfacecolor="white",
        label=f"PREDICTED, {view.algorithm}",
    )
    axes.plot(
        ranks,
        [100 * point.other.efficiency for point in points],
        color="#777777",
        linestyle=(0, (1, 1.5)),
        label=f"PREDICTED, {view.other_algorithm}",
    )
