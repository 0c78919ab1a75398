"""Everything that `--figures` draws: which figures the records can fill, and which they cannot."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.report.figures.bars import cost_bars, memory_bars, target_bars, time_bars
from gnn_core.report.figures.runs import drawn_runs, loss_curves, loss_points, resource_lines
from gnn_core.report.figures.scaling_lines import (
    Line,
    communication_lines,
    efficiency_lines,
    labelled,
    score_panels,
    speedup_lines,
    weak_lines,
)
from gnn_core.report.figures.style import file_word, save_figures
from gnn_core.report.rows import (
    ReportOptions,
    Row,
    by_task,
    grouped,
    rows_with_runs,
    settings_text,
    summarize,
    work_settings,
)
from gnn_core.report.series import Scaling, Series, local_batch_size, scaling_series
from gnn_core.report.table import differing_settings, graph_mark
from gnn_core.report.tables.target import cost_rows, target_rows

_STRONG = "no runs of several ranks, beside one of 1 rank with equal settings"
_WITHOUT = {
    "loss": "no losses recorded",
    "time": "no run with an epoch after the warm-up",
    "speedup": f"{_STRONG} by `single`",
    "efficiency": f"{_STRONG} by `single`",
    "score": f"{_STRONG} by `single`",
    "communication": _STRONG,
    "weak": "no runs of 1 and of several ranks with equal global batch / ranks",
    "target": "no epoch evaluated, or no `single` run that says what the target is (--target X)",
    "memory": "no memory recorded",
    "resources": "no resources sampled (--sample-seconds)",
    "cost": "no seconds of training and evaluation recorded",
}
Drawn = Iterable[tuple[str, str, Figure | None]]
"""Kind of the figure, data set (and task, where it has both), and the figure; None where there is
nothing to draw."""
Made = Iterator[tuple[str, Figure | None]]
_OVER_RANKS = (
    ("speedup", speedup_lines, "Speed-up on"),
    ("efficiency", efficiency_lines, "Parallel efficiency on"),
    ("communication", communication_lines, "Communication on"),
    ("score", score_panels, "Speed-up and what it costs on"),
)


def draw_figures(
    records: Sequence[RunRecord], directory: Path, options: ReportOptions, kind: str = "png"
) -> tuple[list[Path], list[str]]:
    """Write `<what>-<dataset>[-number].<kind>` to `directory` for all that the records can fill.

    `kind`: png or svg. A number tells the works of one data set apart. Returns the files, and one
    line for each kind of figure that a data set could not fill. Raises UsageError when the folder
    cannot be written.
    """
    drawn: dict[str, Figure] = {}
    filled: dict[tuple[str, str], int] = {}
    for what, dataset, figure in figures(records, options):
        number = filled.setdefault((what, dataset), 0)
        if figure is not None:
            filled[what, dataset] = number = number + 1
            drawn[f"{what}-{file_word(dataset)}{f'-{number}' * (number > 1)}.{kind}"] = figure
    empty: dict[str, list[str]] = {}
    for (what, dataset), number in filled.items():
        if not number:
            empty.setdefault(what, []).append(dataset)
    missing = [f"{what} of {', '.join(names)}: {_WITHOUT[what]}" for what, names in empty.items()]
    return save_figures(drawn, directory), missing


def figures(records: Sequence[RunRecord], options: ReportOptions) -> Drawn:
    """Yield all kinds of figures, data set by data set, each of one task."""
    for of_dataset in grouped(records, lambda record: record.dataset.name):
        for task, runs in by_task(of_dataset):
            parts = list(filter(None, (runs[0].dataset.name, task)))
            for what, figure in _of_task(",\n".join(parts), runs, options):
                yield what, ", ".join(parts), figure


def _of_task(name: str, runs: Sequence[RunRecord], options: ReportOptions) -> Made:
    """Draw what runs of one data set and task have; `name` stands in titles."""
    known = any(loss_points(run)[0] for run in runs)
    yield "loss", loss_curves(runs, name) if known else None
    timed = [run for run in runs if run.status == "ok" and measured_epochs(run)]
    yield "time", time_bars(timed, name) if timed else None
    yield from _of_ranks(name, runs, options)
    yield from _of_works(name, runs, options)
    yield "resources", None  # so that it is missed where there is none
    for run in drawn_runs(runs):
        yield "resources", resource_lines(run, name)


def _of_ranks(name: str, runs: Sequence[RunRecord], options: ReportOptions) -> Made:
    """Draw against ranks: a figure for each work, strong scaling apart from weak."""
    rows, _ = summarize(runs, force=options.force)
    scaling = scaling_series(rows, force=options.force)
    works = _strong_lines(rows, scaling)
    titles = _titles(name, [lines[0].rows[0] for lines in works])
    for what, draw, title in _OVER_RANKS:
        yield what, None
        for lines, work in zip(works, titles, strict=True):
            yield what, draw(lines, f"{title} {work}")
    yield "weak", None
    weak = _weak_groups(scaling)
    apart = _titles(name, [group[0].rows[0] for group in weak], ("global_batch_size",))
    for group, work in zip(weak, apart, strict=True):
        each = float(local_batch_size(group[0].rows[0]) or 0)
        title = f"Weak scaling, {each:g} targets per rank and step, on {work}"
        yield "weak", weak_lines(group, title)


def _of_works(name: str, runs: Sequence[RunRecord], options: ReportOptions) -> Made:
    """Draw bars: a figure for each work, since targets of different works are not the same."""
    pairs = rows_with_runs(runs)
    firsts = {_work(row): row for row, _ in reversed(pairs)}
    keys = list(dict.fromkeys(_work(row) for row, _ in pairs))
    targets = target_rows(runs, options.target)
    costs = cost_rows(runs, options.price, options.target) if options.price is not None else []
    titles = _titles(name, [firsts[key] for key in keys])
    for key, work in zip(keys, titles, strict=True):
        mine = [line for line in targets if _work(line.row) == key]
        yield "target", target_bars(mine, f"Time to target on {work}")
        here = [(row, some) for row, some in pairs if _work(row) == key]
        yield "memory", memory_bars(here, f"Memory on {work}")
        if options.price is not None:
            dear = [line for line in costs if _work(line.row) == key]
            yield "cost", cost_bars(dear, options.currency, f"Cost on {work}")


def _strong_lines(rows: Sequence[Row], scaling: Scaling) -> list[list[Line]]:
    """Return by work the lines of its strong series, and its other runs of one rank beside them."""
    series: dict[Hashable, list[Series]] = {}
    for one in scaling.strong:
        series.setdefault(_work(one.rows[0]), []).append(one)
    works = []
    for work, some in series.items():
        groups = [one.line for one in some]
        taken = {id(row) for group in groups for row in group}
        groups += [
            (row,)
            for row in rows
            if _work(row) == work and row.ranks == 1 and id(row) not in taken and row.seconds
        ]
        places = {id(row): place for place, row in enumerate(rows)}
        groups.sort(key=lambda group: places[id(group[-1])])
        works.append(labelled(groups))
    return works


def _weak_groups(scaling: Scaling) -> list[list[Series]]:
    """Return the weak series by machine, graph, work of a rank, and settings but for the batch."""
    groups: dict[Hashable, list[Series]] = {}
    for one in scaling.weak:
        row = one.rows[0]
        alike = settings_text(_distinguishing_settings(row, ("global_batch_size",)))
        key = (row.machine, row.precision, alike, local_batch_size(row))
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _work(row: Row) -> Hashable:
    return row.work, row.machine


def _distinguishing_settings(row: Row, apart: Sequence[str] = ()) -> dict[str, Any]:
    """Return what tells works apart, without what has its own place or goes with a strategy."""
    settings = {**work_settings(row.settings), "graph": graph_mark(row.fingerprint)}
    return {name: value for name, value in settings.items() if name not in ("controller", *apart)}


def _titles(dataset: str, firsts: Sequence[Row], apart: Sequence[str] = ()) -> list[str]:
    """Return the end of the title of each work: the data set, and below it what only this has."""
    settings = [_distinguishing_settings(row, apart) for row in firsts]
    differing = differing_settings(settings, [""] * len(firsts))
    titles = []
    for row, text in zip(firsts, differing, strict=True):
        parts = [row.precision] if len({one.precision for one in firsts}) > 1 else []
        parts += [text] if text else []
        parts += [row.machine] if len({one.machine for one in firsts}) > 1 else []
        below = ", ".join(parts)
        titles.append(f"{dataset}\n{below}" if below else dataset)
    return titles
