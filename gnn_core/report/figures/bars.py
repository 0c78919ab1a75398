"""Figures of lying bars, so that a name of any length stands beside its bar on a telephone too.

Seconds of an epoch side by side, and by section; time to the target, memory per process, cost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.number_text import counted, three_digits
from gnn_core.report.figures.style import (
    LEVEL,
    WIDTH_INCHES,
    add_key,
    add_title,
    bar_names,
    distinguishing_texts,
    file_word,
    plain,
    save_figures,
    sign,
    strategy_colour,
    title_lines,
)
from gnn_core.report.rounds import Comparison, comparisons
from gnn_core.report.rows import Row, Spread, by_task, grouped, row_key, row_of
from gnn_core.report.sentences import distinguishing_settings
from gnn_core.report.table import GIB, graph_mark
from gnn_core.report.tables.target import CostRow, TargetRow, score_of
from gnn_core.strategies import order_of

_PALE = 0.4
_SECTION_COLOURS = {
    "sample": "#E69F00",
    "fetch": "#56B4E9",
    "compute": "#0072B2",
    "communicate": "#D55E00",
    "wait": "#F0E442",
    "other": "#BBBBBB",
}


@dataclass(frozen=True)
class Bar:
    """One bar of a row: its value, or the words that stand where there is none."""

    value: Spread | None
    words: str = ""


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
    rows = sorted((one.row for one in comparison.timed), key=lambda row: row.ranks)
    names = [f"{row.strategy}, {counted(row.ranks, 'rank')}" for row in rows]
    counts = sorted({row.ranks for row in rows})
    gaps = [0.6 * counts.index(row.ranks) for row in rows]
    title = f"Side by side on {comparison.dataset}\n{subtitle}".rstrip()
    unit = "seconds per epoch (less is faster)"
    base = comparison.fastest_single
    level = base.row.seconds.middle if base and base.row.seconds else None
    return _bars(rows, [[Bar(row.seconds)] for row in rows], (), unit, title, names, gaps, level)


def target_bars(lines: Sequence[TargetRow], title: str) -> Figure | None:
    """Return the seconds of training until the target, by row; None when nothing is known."""
    known = [line for line in lines if line.is_known]
    if not known:
        return None
    bars = [
        [Bar(line.seconds, f"not reached (best {score_of(line.row, line.best)})")] for line in known
    ]
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
        peak, pss = Spread.of(map(_peak_gib, good)), Spread.of(map(_mean_pss_gib, good))
        if peak is not None or pss is not None:
            measured.append((row, [Bar(peak, "unknown"), Bar(pss, "unknown")]))
    if not measured:
        return None
    keys = ("peak RSS of the largest process", "PSS at the end, mean of the processes")
    unit = "GiB per process (a rank; replicas of mirrored share one)"
    return _bars([row for row, _ in measured], [bars for _, bars in measured], keys, unit, title)


def _peak_gib(run: RunRecord) -> float | None:
    peaks = [one.peak_rss_bytes for one in run.memory if one.peak_rss_bytes is not None]
    return max(peaks) / GIB if peaks else None


def _mean_pss_gib(run: RunRecord) -> float | None:
    parts = [one.pss_bytes for one in run.memory if one.pss_bytes is not None]
    whole = parts and len(parts) == len(run.memory)
    return statistics.fmean(parts) / GIB if whole else None


def cost_bars(lines: Sequence[CostRow], currency: str, title: str) -> Figure | None:
    """Return the cost of a run, and paler that to the target, by row; None when none is known."""
    known = [line for line in lines if line.cost is not None]
    if not known:
        return None
    words = [
        "target not reached" if line.target and line.target.is_known else "no target known"
        for line in known
    ]
    bars = [
        [Bar(line.cost), Bar(line.to_target, word)] for line, word in zip(known, words, strict=True)
    ]
    keys = ("of the run: training and evaluation", "until the target: training")
    unit = f"cost of hosts{f', {currency}' if currency else ''}"
    return _bars([line.row for line in known], bars, keys, unit, title)


def _bars(
    rows: Sequence[Row],
    bars: Sequence[Sequence[Bar]],
    keys: Sequence[str],
    unit: str,
    title: str,
    names: Sequence[str] = (),
    gaps: Sequence[float] = (),
    level: float | None = None,
) -> Figure:
    """Return a bar, or one for each of `keys` below each other, for each row.

    Args:
        rows: from top to bottom; their names and settings stand beside the bars.
        bars: those of each row.
        keys: what the bars of a row are, where there are several.
        unit: what stands below the axis.
        title: above the figure.
        names: of the rows; empty: made from them.
        gaps: room above each row, beside the one of every row; empty: none.
        level: where a dashed line stands.
    """
    many = len(bars[0])
    thick = 0.7 / many
    places = [at + gap for at, gap in enumerate(gaps or [0.0] * len(rows))]
    figure, axes = _frame(
        names or bar_names(row_labels(rows)), places, unit, title, many, 0.22 * len(keys)
    )
    ends = []
    for place, row, parts in zip(places, rows, bars, strict=True):
        for at, bar in enumerate(parts):
            where = place + (at - (many - 1) / 2) * thick
            ends.append(_bar(axes, where, bar, row, thick, _PALE if at else 1))
    axes.set_xlim(0, 1.35 * (max(ends) or 1.0))  # room for the number at the end of the longest
    handles: list[Any] = [
        Patch(facecolor="#555555", alpha=_PALE if place else 1, label=key)
        for place, key in enumerate(keys)
    ]
    if level is not None:
        axes.axvline(level, **LEVEL)
        handles.append(sign("fastest of 1 rank", **LEVEL))
    if any(row.crowded for row in rows):
        look: dict[str, Any] = {"facecolor": "#BBBBBB", "edgecolor": "white", "hatch": "//"}
        handles.append(Patch(**look, label="* more threads than cores"))
    add_key(figure, handles)
    return figure


def _bar(axes: Any, place: float, bar: Bar, row: Row, thick: float, alpha: float) -> float:
    """Draw one bar, its range and its number; where it ends."""
    spread, end = bar.value, 0.0
    if spread is not None:
        hatch = "//" if row.crowded else None
        look: dict[str, Any] = {"alpha": alpha, "hatch": hatch, "edgecolor": "white"}
        axes.barh(place, spread.middle, thick, color=strategy_colour(row.strategy), **look)
        end = spread.middle
        if spread.count > 1 and math.isfinite(spread.high):
            reach = [[spread.middle - spread.low], [spread.high - spread.middle]]
            axes.errorbar(end, place, xerr=reach, color="#777777", capsize=3, linewidth=1.2)
            end = spread.high
    _say(axes, three_digits(spread.middle) if spread is not None else bar.words, end, place)
    return end


def _say(axes: Any, text: str, end: float, place: float) -> None:
    where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (end, place), **where, fontsize="small")


def _frame(
    names: Sequence[str], places: Sequence[float], unit: str, title: str, many: int, more: float
) -> tuple[Figure, Any]:
    """Return a figure as high as its names, `many` bars a row and `more` inches need; its axes."""
    lines = max(many, *(1 + name.count("\n") for name in names))
    height = 1.3 + 0.2 * title_lines(title).count("\n") + more
    height += (0.1 + 0.18 * lines) * (places[-1] + 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(places, names, fontsize="small")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(unit, fontsize="small")
    plain(axes, "x")
    add_title(figure, title)
    return figure, axes


def row_labels(rows: Sequence[Row], *, starred: bool = True) -> list[str]:
    """Return strategy, ranks and whatever else tells the rows of a figure apart.

    `starred`: mark those of more threads than cores.
    """
    settings = [{**row.settings, "graph": graph_mark(row.fingerprint)} for row in rows]
    differing = distinguishing_texts(settings, [row.strategy for row in rows])
    labels = []
    for row, text in zip(rows, differing, strict=True):
        hosts = f" on {len(row.ranks_per_host)} hosts" if len(row.ranks_per_host) > 1 else ""
        star = "*" * (row.crowded and starred)
        name = f"{row.strategy}, {counted(row.ranks, 'rank')}{hosts}{star}"
        parts = [row.strategy if name == "single, 1 rank" else name]
        parts += [row.precision] if len({one.precision for one in rows}) > 1 else []
        parts += [text] if text else []
        parts += [row.machine] if len({one.machine for one in rows}) > 1 else []
        labels.append(", ".join(parts))
    return labels


def time_bars(runs: Sequence[RunRecord], name: str | None = None) -> Figure:
    """Return one bar per strategy, ranks and settings: the mean seconds of an epoch by section.

    `name` stands in the title; None: the data set's.
    """
    groups = grouped(runs, row_key)
    groups.sort(key=lambda some: (order_of(some[0].strategy), some[0].world_size))
    labels = bar_names(row_labels([row_of(some) for some in groups], starred=False))
    places = range(len(groups))
    unit = "seconds per epoch of the slowest rank\n(mean after warm-up)"
    title = f"Where time goes on {name or runs[0].dataset.name}"
    figure, axes = _frame(labels, places, unit, title, 1, 0.3)
    seconds = [_section_seconds(some) for some in groups]
    left = [0.0] * len(groups)
    for section, colour in _SECTION_COLOURS.items():
        widths = [parts[section] for parts in seconds]
        if any(widths):
            look: dict[str, Any] = {"color": colour, "edgecolor": "white", "label": section}
            axes.barh(places, widths, 0.65, left, **look)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        _say(axes, f"{total:.3g} s", total, place)
    axes.set_xlim(0, 1.25 * max(left) or 1.0)
    add_key(figure, axes.containers, 3)
    return figure


def _section_seconds(runs: Sequence[RunRecord]) -> dict[str, float]:
    """Return the mean seconds per epoch of each section; what no section claims is "other"."""
    epochs = [epoch for run in runs for epoch in measured_epochs(run)]
    parts = {
        name: statistics.fmean(epoch.sections.get(name, 0.0) for epoch in epochs)
        for name in _SECTION_COLOURS
    }
    total = statistics.fmean(epoch.seconds for epoch in epochs)
    named = sum(value for name, value in parts.items() if name != "other")
    return {**parts, "other": max(0.0, total - named)}
