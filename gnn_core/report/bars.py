"""Comparisons -> pictures: seconds per epoch by strategy and ranks, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gnn_core.report.cells import counted, three_digits
from gnn_core.report.figures import STRATEGY_COLOURS, file_word, save_figures
from gnn_core.report.rounds import Comparison, comparisons
from gnn_core.report.schema import RunRecord

_WIDTH = 0.8
_LEVEL: dict[str, Any] = {"color": "#777777", "linestyle": (0, (5, 3)), "linewidth": 1}


def draw_bars(records: Sequence[RunRecord], directory: Path) -> list[Path]:
    """Write seconds-<dataset>.png for each comparison to `directory`; return the files written.

    Raises UsageError when the folder cannot be written.
    """
    drawn: dict[str, Figure] = {}
    for comparison in comparisons(records):
        if comparison.timed:
            name = f"seconds-{file_word(comparison.dataset)}"
            number = sum(other.startswith(name) for other in drawn)
            drawn[f"{name}{f'-{number + 1}' if number else ''}.png"] = second_bars(comparison)
    return save_figures(drawn, directory)


def second_bars(comparison: Comparison) -> Figure:
    """Return a group of bars for each number of ranks: the median over rounds, least to most.

    A dashed line stands at the fastest run of one rank, which more ranks have to get below.
    """
    counts = sorted({one.row.ranks for one in comparison.timed})
    groups = [[one for one in comparison.timed if one.row.ranks == ranks] for ranks in counts]
    bars = sum(map(len, groups))
    figure = Figure(figsize=(max(5.0, 1.6 + 0.8 * bars), 4.2), layout="constrained")
    axes = figure.subplots()
    place, ticks, labels = 0.0, [], []
    for group in groups:
        first = place
        for one in group:
            seconds = one.row.seconds
            assert seconds is not None  # timed
            axes.bar(
                place, seconds.middle, _WIDTH, color=STRATEGY_COLOURS[one.row.strategy],
                hatch="//" if one.row.crowded else None, edgecolor="white",
            )  # fmt: skip
            if seconds.count > 1:
                reach = [[seconds.middle - seconds.low], [seconds.high - seconds.middle]]
                axes.errorbar(
                    place, seconds.middle, reach, color="#777777", capsize=4, linewidth=1.4
                )
            axes.annotate(
                three_digits(seconds.middle), (place, seconds.high), (0, 4),
                textcoords="offset points", ha="center", va="bottom", fontsize="small",
            )  # fmt: skip
            place += 1.0
        ticks.append((first + place - 1) / 2)
        labels.append(counted(group[0].row.ranks, "rank"))
        place += 0.6
    if comparison.fastest_single is not None and comparison.fastest_single.row.seconds is not None:
        level = comparison.fastest_single.row.seconds.middle
        axes.axhline(level, **_LEVEL)
    _finish(figure, comparison, ticks, labels)
    return figure


def _finish(
    figure: Figure, comparison: Comparison, ticks: Sequence[float], labels: Sequence[str]
) -> None:
    (axes,) = figure.axes
    axes.set_xticks(ticks, labels)
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("seconds per epoch (less is faster)")
    axes.set_title(f"Side by side on {comparison.dataset}", loc="left")
    present = dict.fromkeys(one.row.strategy for one in comparison.timed)
    keys: list[Any] = [Patch(color=STRATEGY_COLOURS[name], label=name) for name in present]
    if any(one.row.crowded for one in comparison.timed):
        keys.append(
            Patch(facecolor="#DDDDDD", edgecolor="white", hatch="//", label="ranks share cores")
        )
    if comparison.fastest_single is not None:
        keys.append(Line2D([], [], **_LEVEL, label="fastest of 1 rank"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
