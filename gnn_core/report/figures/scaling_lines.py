"""Series of growing ranks -> figures: speed-up, efficiency, communication, score, weak scaling.

A figure holds one work on one machine, and never both strong and weak scaling. Points of crowded
ranks are hollow; what a table marks has its mark beside the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gnn_core.report.figures.runs import (
    WIDTH_INCHES,
    distinguishing_texts,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.series import Series
from gnn_core.report.rows.summary import Row
from gnn_core.report.tables.speed import score_heading
from gnn_core.report.tables.weak import weak_points

_IDEAL: dict[str, Any] = {"color": "#777777", "linestyle": (0, (5, 3)), "linewidth": 1}
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_APART = 0.03  # octaves between the points of two lines at one number of ranks


@dataclass(frozen=True)
class ScalingPoint:
    """One number of ranks: the median over repeats, and least and most of them."""

    ranks: int
    value: Spread
    crowded: bool
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """One strategy with one set of settings, at ascending ranks."""

    label: str
    strategy: str
    rows: tuple[Row, ...]


Measure = Callable[[Row], tuple[Spread | None, str]]
"""What is drawn of a row, and its mark."""


def labelled(groups: Sequence[Sequence[Row]], apart: Sequence[str] = ()) -> list[Line]:
    """Return the lines of rows, named by what tells them apart but for the settings `apart`."""
    lasts = [rows[-1] for rows in groups]  # a first one may be the base of lines with more hosts
    settings = [
        {name: value for name, value in row.settings.items() if name not in apart} for row in lasts
    ]
    differing = distinguishing_texts(settings, [row.strategy for row in lasts])
    spread_out = [len(row.ranks_per_host) > 1 for row in lasts]
    lines = []
    for rows, text, many_hosts in zip(groups, differing, spread_out, strict=True):
        hosts = "several hosts" if many_hosts else "1 host" if any(spread_out) else ""
        label = ", ".join(filter(None, (rows[-1].strategy, hosts, text)))
        lines.append(Line(label, rows[-1].strategy, tuple(rows)))
    return lines


def speedup_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the speed-up over `single` against ranks beside the ideal; None without one."""
    points = _points(lines, _speedup)
    if not _scales(points):
        return None
    figure, (axes,) = _panels(1, title)
    counts = _plot(axes, lines, points)
    _ideal_speedup(axes, counts)
    axes.set_ylabel("speed-up over single")
    _finish(figure, lines, points, counts, [Line2D([], [], **_IDEAL, label="ideal")])
    return figure


def efficiency_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the parallel efficiency against ranks: speed-up over `single` / ranks, in percent."""

    def efficiency(row: Row) -> tuple[Spread | None, str]:
        spread, mark = _speedup(row)
        return _scaled(spread, 100 / row.ranks), mark

    return _percent_lines(lines, efficiency, "speed-up / ranks (%)", title, 100.0)


def communication_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the share of an epoch spent communicating against ranks, in percent."""

    def share(row: Row) -> tuple[Spread | None, str]:
        return _scaled(row.communicate, 100), ""

    return _percent_lines(lines, share, "share of an epoch (%)", title)


def score_panels(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the speed-up, and below it over the same ranks the test score that came with it."""
    fast, good = _points(lines, _speedup), _points(lines, _score)
    if not _scales(fast) or not any(good):
        return None
    figure, (above, below) = _panels(2, title)
    counts = _plot(above, lines, fast)
    _ideal_speedup(above, counts)
    _plot(below, lines, good)
    name = lines[0].rows[0].score_name
    above.set_ylabel("speed-up over single")
    repeated = any(point.value.count > 1 for line in good for point in line)
    unit = " (%)" * (name == "accuracy") + "\nmean ± deviation over seeds" * repeated
    below.set_ylabel(score_heading([name]) + unit)
    values = [edge for line in good for one in line for edge in (one.value.low, one.value.high)]
    room = max(1.0 if name == "accuracy" else 0.01, 0.15 * (max(values) - min(values)))
    below.set_ylim(min(values) - room, max(values) + room)  # a point at least: no false drama
    _finish(figure, lines, fast, counts, [Line2D([], [], **_IDEAL, label="ideal")])
    return figure


def weak_lines(found: Sequence[Series], title: str) -> Figure | None:
    """Return the weak efficiency against ranks, in percent; 100 is ideal."""
    points_of: dict[int, tuple[Spread | None, str]] = {}
    for series in found:
        points_of |= {
            id(one.row): (_scaled(one.efficiency, 100), one.mark) for one in weak_points(series)
        }
    # A base of another strategy is ideal by definition and would only repeat that line.
    lines = labelled(
        [series.line for series in found if series.base is not None], ("global_batch_size",)
    )
    label = "weak efficiency (%)"
    return _percent_lines(lines, lambda row: points_of[id(row)], label, title, 100.0)


def _percent_lines(
    lines: Sequence[Line], measure: Measure, label: str, title: str, ideal: float | None = None
) -> Figure | None:
    points = _points(lines, measure)
    if not _scales(points):
        return None
    figure, (axes,) = _panels(1, title)
    counts = _plot(axes, lines, points)
    more = []
    if ideal is not None:
        axes.axhline(ideal, **_IDEAL)
        more = [Line2D([], [], **_IDEAL, label="ideal")]
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    _finish(figure, lines, points, counts, more)
    return figure


def _speedup(row: Row) -> tuple[Spread | None, str]:
    return row.over_single, row.speedup_mark


def _score(row: Row) -> tuple[Spread | None, str]:
    return _scaled(row.accuracy, 100 if row.score_name == "accuracy" else 1), ""


def _scaled(spread: Spread | None, factor: float) -> Spread | None:
    if spread is None:
        return None
    middle, low, high = (factor * value for value in (spread.middle, spread.low, spread.high))
    return Spread(middle, low, high, spread.count)


def _points(lines: Iterable[Line], measure: Measure) -> list[list[ScalingPoint]]:
    found = []
    for line in lines:
        measured = [(row, *measure(row)) for row in line.rows]
        found.append(
            [
                ScalingPoint(row.ranks, value, row.crowded, mark)
                for row, value, mark in measured
                if value
            ]
        )
    return found


def _scales(points: Sequence[Sequence[ScalingPoint]]) -> bool:
    """Whether there is anything to see: a point of more than one rank."""
    return any(point.ranks > 1 for line in points for point in line)


def _panels(number: int, title: str) -> tuple[Figure, list[Any]]:
    figure = Figure(layout="constrained")  # `_finish` gives it its size
    panels = figure.subplots(number, 1, sharex=True, squeeze=False)[:, 0]
    panels[0].set_title(title_lines(title), loc="left", fontsize="medium")
    return figure, list(panels)


def _plot(axes: Any, lines: Sequence[Line], points: Sequence[Sequence[ScalingPoint]]) -> list[int]:
    """Draw the points of each line a little beside those of others; return the ranks in it."""
    counts = sorted({1, *(point.ranks for line in points for point in line)})
    styles: dict[str, int] = {}
    drawn = [(line, some) for line, some in zip(lines, points, strict=True) if some]
    for place, (line, some) in enumerate(drawn):
        shift = 2 ** (_APART * (place - (len(drawn) - 1) / 2)) if len(drawn) > 1 else 1.0
        colour = strategy_colour(line.strategy)
        number = styles.setdefault(line.strategy, 0)
        styles[line.strategy] += 1
        at = [point.ranks * shift for point in some]
        style = _STYLES[number % len(_STYLES)]
        axes.plot(
            at, [one.value.middle for one in some], color=colour, linestyle=style, linewidth=1.4
        )
        for where, one in zip(at, some, strict=True):
            spread = one.value
            reach = [[spread.middle - spread.low], [spread.high - spread.middle]]
            axes.errorbar(
                where,
                spread.middle,
                reach if spread.count > 1 else None,
                marker="o",
                markersize=6,
                markerfacecolor="white" if one.crowded else colour,
                color=colour,
                capsize=3,
                linewidth=1.2,
                clip_on=False,
            )
            if one.mark:
                axes.annotate(
                    one.mark,
                    (where, spread.high),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    weight="bold",
                    color=colour,
                )
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return counts


def _ideal_speedup(axes: Any, counts: Sequence[int]) -> None:
    """Draw n at n ranks; both axes in octaves, so that it is straight and losses are seen."""
    axes.plot([1, max(counts)], [1, max(counts)], **_IDEAL)
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    ticks = [2.0**power for power in range(-8, 12) if low <= 2.0**power <= high]
    if len(ticks) < 3:
        ticks = [tick * part for tick in (0.25, 0.5, 1, 2, 4) for part in (1, 1.25, 1.5, 1.75)]
        ticks = [tick for tick in ticks if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finish(
    figure: Figure,
    lines: Sequence[Line],
    points: Sequence[Sequence[ScalingPoint]],
    counts: Sequence[int],
    more: list[Line2D],
) -> None:
    axes = figure.axes[-1]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(counts) / 1.25, max(counts) * 1.25)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ranks")
    every = [point for line in points for point in line]
    handles = [*_keys(lines, points), *more]
    if any(point.value.count > 1 for point in every):
        handles.append(
            Line2D(
                [],
                [],
                color="#777777",
                marker="|",
                markersize=9,
                linestyle="",
                label="least..most of repeats",
            )
        )
    if any(point.crowded for point in every):
        handles.append(
            Line2D(
                [],
                [],
                color="#777777",
                marker="o",
                markerfacecolor="white",
                linestyle="",
                label="more threads than cores",
            )
        )
    marks = {"!": "test score unknown or lost", "?": "base on another machine"}
    for mark, meaning in marks.items():
        if any(mark in point.mark for point in every):
            handles.append(
                Line2D([], [], color="#444444", marker=f"${mark}$", linestyle="", label=meaning)
            )
    columns = 1 if max(len(str(handle.get_label())) for handle in handles) > 28 else 2
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small"
    )
    keys_inches = 0.2 * math.ceil(len(handles) / columns)
    figure.set_size_inches(WIDTH_INCHES, 0.9 + 2.3 * len(figure.axes) + keys_inches)


def _keys(lines: Sequence[Line], points: Sequence[Sequence[ScalingPoint]]) -> list[Line2D]:
    styles: dict[str, int] = {}
    keys = []
    for line, some in zip(lines, points, strict=True):
        if some:
            number = styles.setdefault(line.strategy, 0)
            styles[line.strategy] += 1
            keys.append(
                Line2D(
                    [],
                    [],
                    color=strategy_colour(line.strategy),
                    marker="o",
                    linestyle=_STYLES[number % len(_STYLES)],
                    label=line.label,
                )
            )
    return keys
