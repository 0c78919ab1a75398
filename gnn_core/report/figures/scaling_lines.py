"""Series of growing ranks -> figures: speed-up, efficiency, communication, score, weak scaling.

A figure holds one work on one machine, and never both strong and weak scaling. Points of crowded
ranks are hollow; what a table marks has its mark beside the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gnn_core.report.figures.style import (
    DASHES,
    LEVEL,
    WIDTH_INCHES,
    add_key,
    distinguishing_texts,
    plain,
    sign,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rows import Row, Spread
from gnn_core.report.series import Series
from gnn_core.report.table import score_heading
from gnn_core.report.tables.speed import weak_points

_APART = 0.03  # octaves between the points of two lines at one number of ranks
_MARKS = {"!": "test score unknown or lost", "?": "base on another machine"}


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
    dashes: Any  # its own among the lines of the strategy


@dataclass(frozen=True)
class Panel:
    """What is drawn of rows against their ranks."""

    label: str
    measure: Callable[[Row], tuple[Spread | None, str]]  # and its mark
    finish: Callable[[Any, Sequence[ScalingPoint]], None]  # scale of the axes, and what is ideal
    has_ideal: bool = False


def labelled(groups: Sequence[Sequence[Row]], apart: Sequence[str] = ()) -> list[Line]:
    """Return the lines of rows, named by what tells them apart but for the settings `apart`."""
    lasts = [rows[-1] for rows in groups]  # a first one may be the base of lines with more hosts
    settings = [
        {name: value for name, value in row.settings.items() if name not in apart} for row in lasts
    ]
    differing = distinguishing_texts(settings, [row.strategy for row in lasts])
    spread_out = [len(row.ranks_per_host) > 1 for row in lasts]
    lines: list[Line] = []
    for rows, text, many_hosts in zip(groups, differing, spread_out, strict=True):
        strategy = rows[-1].strategy
        hosts = "several hosts" if many_hosts else "1 host" if any(spread_out) else ""
        label = ", ".join(filter(None, (strategy, hosts, text)))
        dashes = DASHES[sum(line.strategy == strategy for line in lines) % len(DASHES)]
        lines.append(Line(label, strategy, tuple(rows), dashes))
    return lines


def speedup_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the speed-up over `single` against ranks beside the ideal; None without one."""
    return _figure(lines, title, _SPEEDUP)


def efficiency_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the parallel efficiency against ranks: speed-up over `single` / ranks, in percent."""

    def efficiency(row: Row) -> tuple[Spread | None, str]:
        return row.over_single and row.over_single.scaled(100, row.ranks), row.speedup_mark

    return _figure(lines, title, Panel("speed-up / ranks (%)", efficiency, _of_100, True))


def communication_lines(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the share of an epoch spent communicating against ranks, in percent."""

    def share(row: Row) -> tuple[Spread | None, str]:
        return row.communicate and row.communicate.scaled(100), ""

    return _figure(lines, title, Panel("share of an epoch (%)", share, _from_zero))


def score_panels(lines: Sequence[Line], title: str) -> Figure | None:
    """Return the speed-up, and below it over the same ranks the test score that came with it."""
    rows = [row for line in lines for row in line.rows]
    name = rows[0].score_name if rows else "accuracy"
    repeated = any(row.accuracy and row.accuracy.count > 1 for row in rows)
    unit = " (%)" * (name == "accuracy") + "\nmean ± deviation over seeds" * repeated

    def score(row: Row) -> tuple[Spread | None, str]:
        return row.accuracy and row.accuracy.scaled(100 if name == "accuracy" else 1), ""

    def finish(axes: Any, points: Sequence[ScalingPoint]) -> None:
        values = [edge for one in points for edge in (one.value.low, one.value.high)]
        room = max(1.0 if name == "accuracy" else 0.01, 0.15 * (max(values) - min(values)))
        axes.set_ylim(min(values) - room, max(values) + room)  # a point at least: no false drama

    return _figure(lines, title, _SPEEDUP, Panel(score_heading([name]) + unit, score, finish))


def weak_lines(found: Sequence[Series], title: str) -> Figure | None:
    """Return the weak efficiency against ranks, in percent; 100 is ideal."""
    points = {id(one.row): one for series in found for one in weak_points(series)}

    def efficiency(row: Row) -> tuple[Spread | None, str]:
        one = points[id(row)]
        return one.efficiency and one.efficiency.scaled(100), one.mark

    # A base of another strategy is ideal by definition and would only repeat that line.
    lines = labelled(
        [series.line for series in found if series.base is not None], ("global_batch_size",)
    )
    return _figure(lines, title, Panel("weak efficiency (%)", efficiency, _of_100, True))


def _from_zero(axes: Any, points: Sequence[ScalingPoint]) -> None:
    axes.set_ylim(bottom=0)


def _of_100(axes: Any, points: Sequence[ScalingPoint]) -> None:
    axes.axhline(100.0, **LEVEL)
    axes.set_ylim(bottom=0)


def _octaves(axes: Any, points: Sequence[ScalingPoint]) -> None:
    """Draw n at n ranks; both axes in octaves, so that it is straight and losses are seen."""
    most = max(point.ranks for point in points)
    axes.plot([1, most], [1, most], **LEVEL)
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    ticks = [2.0**power for power in range(-8, 12) if low <= 2.0**power <= high]
    if len(ticks) < 3:
        ticks = [tick * part for tick in (0.25, 0.5, 1, 2, 4) for part in (1, 1.25, 1.5, 1.75)]
        ticks = [tick for tick in ticks if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


_SPEEDUP = Panel(
    "speed-up over single", lambda row: (row.over_single, row.speedup_mark), _octaves, True
)


def _figure(lines: Sequence[Line], title: str, *panels: Panel) -> Figure | None:
    """Return a figure of panels over the same ranks; None where one has nothing to show."""
    points = [[_points(line, panel) for line in lines] for panel in panels]
    # The first panel has to have a point of more than one rank, any other one a point.
    if not any(one.ranks > 1 for some in points[0] for one in some) or not all(map(any, points)):
        return None
    figure = Figure(layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    axes[0].set_title(title_lines(title), loc="left", fontsize="medium")
    for one, panel, some in zip(axes, panels, points, strict=True):
        _plot(one, lines, some)
        panel.finish(one, [point for line in some for point in line])
        one.set_ylabel(panel.label)
        plain(one)
    _finish(figure, lines, points[0], panels[0].has_ideal)
    return figure


def _points(line: Line, panel: Panel) -> list[ScalingPoint]:
    measured = [(row, *panel.measure(row)) for row in line.rows]
    return [
        ScalingPoint(row.ranks, value, row.crowded, mark) for row, value, mark in measured if value
    ]


def _plot(axes: Any, lines: Sequence[Line], points: Sequence[Sequence[ScalingPoint]]) -> None:
    """Draw the points of each line a little beside those of others."""
    drawn = [(line, some) for line, some in zip(lines, points, strict=True) if some]
    for place, (line, some) in enumerate(drawn):
        shift = 2 ** (_APART * (place - (len(drawn) - 1) / 2))
        colour = strategy_colour(line.strategy)
        at = [point.ranks * shift for point in some]
        look: dict[str, Any] = {"color": colour, "linestyle": line.dashes, "linewidth": 1.4}
        axes.plot(at, [one.value.middle for one in some], **look)
        for where, one in zip(at, some, strict=True):
            value = one.value
            reach = [[value.middle - value.low], [value.high - value.middle]]
            axes.errorbar(
                where,
                value.middle,
                reach if value.count > 1 else None,
                marker="o",
                markersize=6,
                markerfacecolor="white" if one.crowded else colour,
                color=colour,
                capsize=3,
                linewidth=1.2,
                clip_on=False,
            )
            place_above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
            if one.mark:
                look = {**place_above, "va": "bottom", "weight": "bold", "color": colour}
                axes.annotate(one.mark, (where, value.high), **look)


def _finish(
    figure: Figure, lines: Sequence[Line], points: Sequence[Sequence[ScalingPoint]], ideal: bool
) -> None:
    every = [point for line in points for point in line]
    counts = sorted({1, *(point.ranks for point in every)})
    axes = figure.axes[-1]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(counts) / 1.25, max(counts) * 1.25)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ranks")
    handles = [
        sign(line.label, color=strategy_colour(line.strategy), marker="o", linestyle=line.dashes)
        for line, some in zip(lines, points, strict=True)
        if some
    ]
    handles += [sign("ideal", **LEVEL)] * ideal
    if any(point.value.count > 1 for point in every):
        handles.append(sign("least..most of repeats", marker="|", markersize=9))
    if any(point.crowded for point in every):
        handles.append(sign("more threads than cores", marker="o", markerfacecolor="white"))
    for mark, meaning in _MARKS.items():
        if any(mark in point.mark for point in every):
            handles.append(sign(meaning, color="#444444", marker=f"${mark}$"))
    columns = 1 if max(len(str(handle.get_label())) for handle in handles) > 28 else 2
    add_key(figure, handles, columns)
    keys_inches = 0.2 * math.ceil(len(handles) / columns)
    figure.set_size_inches(WIDTH_INCHES, 0.9 + 2.3 * len(figure.axes) + keys_inches)
