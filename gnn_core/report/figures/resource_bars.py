"""Rows -> figures of what a run took: time to the target, memory per process, cost.

Bars lie, so that a name of any length stands beside its bar on a telephone too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted, three_digits
from gnn_core.report.figures.runs import (
    WIDTH_INCHES,
    bar_names,
    distinguishing_texts,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.summary import Row, over_runs
from gnn_core.report.tables.cost import CostRow
from gnn_core.report.tables.footprint import GIB
from gnn_core.report.tables.target import TargetRow, score_of

_PALE = 0.4


@dataclass(frozen=True)
class Bar:
    """One bar of a row: its value, or the words that stand where there is none."""

    value: Spread | None
    words: str = ""


def target_bars(lines: Sequence[TargetRow], title: str) -> Figure | None:
    """Return the seconds of training until the target, by row; None when nothing is known."""
    known = [line for line in lines if line.target is not None and line.judged]
    if not known:
        return None
    bars = [[Bar(line.seconds, _not_reached(line))] for line in known]
    target = score_of(known[0].row, known[0].target)
    what = "MRR" if known[0].row.score_name == "mrr" else "accuracy, %"
    unit = f"seconds of training until validation {what}\nreaches {target} (warm-up counted)"
    return _bars([line.row for line in known], bars, (), unit, title)


def memory_bars(pairs: Sequence[tuple[Row, Sequence[RunRecord]]], title: str) -> Figure | None:
    """Return the peak RSS of the largest process and the mean PSS of all, by row.

    `pairs`: rows, each with its runs. None when no run that ended well has its memory.
    """
    measured = []
    for row, runs in pairs:
        good = [run for run in runs if run.status == "ok"]
        peak, pss = over_runs(good, _largest_peak_gib), over_runs(good, _mean_pss_gib)
        if peak is not None or pss is not None:
            measured.append((row, [Bar(peak, "unknown"), Bar(pss, "unknown")]))
    if not measured:
        return None
    keys = ("peak RSS of the largest process", "PSS at the end, mean of the processes")
    unit = "GiB per process (a rank; replicas of mirrored share one)"
    return _bars([row for row, _ in measured], [bars for _, bars in measured], keys, unit, title)


def cost_bars(lines: Sequence[CostRow], currency: str, title: str) -> Figure | None:
    """Return the cost of a run, and paler that to the target, by row; None when none is known."""
    known = [line for line in lines if line.cost is not None]
    if not known:
        return None
    bars = [[Bar(line.cost), Bar(line.to_target, _cost_not_reached(line))] for line in known]
    keys = ("of the run: training and evaluation", "until the target: training")
    unit = f"cost of hosts{f', {currency}' if currency else ''}"
    return _bars([line.row for line in known], bars, keys, unit, title)


def _bars(
    rows: Sequence[Row], bars: Sequence[Sequence[Bar]], keys: Sequence[str], unit: str, title: str
) -> Figure:
    """Return a bar, or one for each of `keys` below each other, for each row."""
    many, names, title = len(bars[0]), _names(rows), title_lines(title)
    thick = 0.7 / many
    lines = max(many, *(1 + name.count("\n") for name in names))
    height = 1.3 + 0.2 * title.count("\n") + 0.22 * len(keys) + (0.1 + 0.18 * lines) * len(rows)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    for line, (row, parts) in enumerate(zip(rows, bars, strict=True)):
        for place, bar in enumerate(parts):
            _bar(axes, line + (place - (many - 1) / 2) * thick, bar, row, thick, pale=place > 0)
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.35 * _longest(bars))  # room for the number at the end of the longest bar
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(unit, fontsize="small")
    figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Patch(facecolor="#555555", alpha=_PALE if place else 1, label=key)
        for place, key in enumerate(keys)
    ]
    if any(row.crowded for row in rows):
        look: dict[str, Any] = {"facecolor": "#BBBBBB", "edgecolor": "white", "hatch": "//"}
        handles.append(Patch(**look, label="* more threads than cores"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize="small")
    return figure


def _bar(axes: Any, place: float, bar: Bar, row: Row, thick: float, *, pale: bool) -> None:
    spread = bar.value
    end = 0.0
    if spread is not None:
        axes.barh(
            place,
            spread.middle,
            thick,
            color=strategy_colour(row.strategy),
            alpha=_PALE if pale else 1,
            hatch="//" if row.crowded else None,
            edgecolor="white",
        )
        end = spread.middle
        if spread.count > 1 and math.isfinite(spread.high):
            reach = [[spread.middle - spread.low], [spread.high - spread.middle]]
            axes.errorbar(
                spread.middle, place, xerr=reach, color="#777777", capsize=3, linewidth=1.2
            )
            end = spread.high
    said = three_digits(spread.middle) if spread is not None else bar.words
    axes.annotate(
        said, (end, place), (4, 0), textcoords="offset points", va="center", fontsize="small"
    )


def _longest(bars: Sequence[Sequence[Bar]]) -> float:
    ends = [
        bar.value.high if math.isfinite(bar.value.high) else bar.value.middle
        for parts in bars
        for bar in parts
        if bar.value is not None
    ]
    return max(ends, default=0.0) or 1.0


def _names(rows: Sequence[Row]) -> list[str]:
    """Return strategy and ranks, and what tells rows of one strategy apart, in short lines."""
    differing = distinguishing_texts([row.settings for row in rows], [row.strategy for row in rows])
    names = []
    for row, text in zip(rows, differing, strict=True):
        hosts = f" on {len(row.ranks_per_host)} hosts" if len(row.ranks_per_host) > 1 else ""
        name = f"{row.strategy}, {counted(row.ranks, 'rank')}{hosts}{'*' * row.crowded}"
        name = row.strategy if name == "single, 1 rank" else name
        names.append(f"{name}{', ' * bool(text)}{text}")
    return bar_names(names)


def _not_reached(line: TargetRow) -> str:
    return f"not reached (best {score_of(line.row, line.best)})"


def _cost_not_reached(line: CostRow) -> str:
    target = line.target
    known = target is not None and target.target is not None and target.judged
    return "target not reached" if known else "no target known"


def _largest_peak_gib(run: RunRecord) -> float | None:
    peaks = [one.peak_rss_bytes for one in run.memory if one.peak_rss_bytes is not None]
    return max(peaks) / GIB if peaks else None


def _mean_pss_gib(run: RunRecord) -> float | None:
    parts = [one.pss_bytes for one in run.memory if one.pss_bytes is not None]
    whole = parts and len(parts) == len(run.memory)
    return statistics.fmean(parts) / GIB if whole else None
