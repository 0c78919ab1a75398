"""Comparisons -> figures: seconds per epoch by strategy and ranks, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted, three_digits
from gnn_core.report.figures.runs import (
    WIDTH_INCHES,
    file_word,
    save_figures,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rows.rounds import Comparison, Contender, comparisons
from gnn_core.report.rows.scores import by_task
from gnn_core.report.tables.side_by_side import distinguishing_settings

_THICK = 0.75
_LEVEL: dict[str, Any] = {"color": "#777777", "linestyle": (0, (5, 3)), "linewidth": 1}


def draw_bars(records: Sequence[RunRecord], directory: Path) -> list[Path]:
    """Write seconds-<dataset>.png for each comparison to `directory`; return the files written.

    Raises UsageError when the folder cannot be written.
    """
    drawn: dict[str, Figure] = {}
    for dataset, figure in all_bars(records):
        name = f"seconds-{file_word(dataset)}"
        number = sum(other.startswith(name) for other in drawn)
        drawn[f"{name}{f'-{number + 1}' if number else ''}.png"] = figure
    return save_figures(drawn, directory)


def all_bars(records: Sequence[RunRecord]) -> list[tuple[str, Figure]]:
    """Return the bars of each comparison beside its data set; titles say how they differ."""
    made = []
    for task, runs in by_task(records):
        found = [comparison for comparison in comparisons(runs) if comparison.timed]
        for comparison, settings in zip(found, distinguishing_settings(found), strict=True):
            title = "\n".join(filter(None, (task, settings)))
            made.append((comparison.dataset, second_bars(comparison, title)))
    return made


def second_bars(comparison: Comparison, subtitle: str = "") -> Figure:
    """Return a bar for each contender, in groups of equal ranks: the median over rounds.

    A line in each bar goes from the least to the most. A dashed one stands at the fastest run of
    one rank, whose seconds more ranks have to stay below. `subtitle` stands below the data set.
    """
    counts = sorted({one.row.ranks for one in comparison.timed})
    groups = [[one for one in comparison.timed if one.row.ranks == ranks] for ranks in counts]
    num_lines = sum(map(len, groups)) + 0.6 * len(groups)
    figure = Figure(figsize=(WIDTH_INCHES, 1.3 + 0.27 * num_lines), layout="constrained")
    axes = figure.subplots()
    place, ticks, names = 0.0, [], []
    for group in groups:
        for one in group:
            _bar(axes, place, one)
            ticks.append(place)
            names.append(f"{one.row.strategy}, {counted(one.row.ranks, 'rank')}")
            place += 1.0
        place += 0.6
    axes.set_yticks(ticks, names, fontsize="small")
    axes.set_ylim(place - 1.0, -0.7)
    base = comparison.fastest_single
    if base is not None and base.row.seconds is not None:
        axes.axvline(base.row.seconds.middle, **_LEVEL)
    title = title_lines(f"Side by side on {comparison.dataset}\n{subtitle}".rstrip())
    figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
    figure.set_figheight(figure.get_figheight() + 0.2 * title.count("\n"))
    _finish(figure, comparison)
    return figure


def _bar(axes: Any, place: float, one: Contender) -> None:
    seconds = one.row.seconds
    assert seconds is not None  # timed
    axes.barh(
        place,
        seconds.middle,
        _THICK,
        color=strategy_colour(one.row.strategy),
        hatch="//" if one.row.crowded else None,
        edgecolor="white",
    )
    if seconds.count > 1:
        reach = [[seconds.middle - seconds.low], [seconds.high - seconds.middle]]
        axes.errorbar(seconds.middle, place, xerr=reach, color="#777777", capsize=3, linewidth=1.4)
    axes.annotate(
        three_digits(seconds.middle),
        (seconds.high, place),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
    )


def _finish(figure: Figure, comparison: Comparison) -> None:
    (axes,) = figure.axes
    longest = max(one.row.seconds.high for one in comparison.timed if one.row.seconds is not None)
    axes.set_xlim(0, 1.2 * longest)  # room for the number at the end of the longest bar
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds per epoch (less is faster)", fontsize="small")
    keys: list[Any] = []
    if comparison.fastest_single is not None:
        keys.append(Line2D([], [], **_LEVEL, label="fastest of 1 rank"))
    if any(one.row.crowded for one in comparison.timed):
        keys.append(
            Patch(facecolor="#DDDDDD", edgecolor="white", hatch="//", label="ranks share cores")
        )
    if keys:
        figure.legend(
            handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize="small"
        )
