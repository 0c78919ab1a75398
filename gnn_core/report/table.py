"""What a table is: columns that say how a line is shown and which numbers of it go into a CSV file.

Beside it, how a setting, a spread, a score or a rank is written in a cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import pandas as pd

from gnn_core.config import OPTIONS
from gnn_core.markup import markdown_cell, markdown_text
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted, percent, three_digits
from gnn_core.report.rows import Row, Spread, settings_text
from gnn_core.usage import printable

GIB, MIB, MB = 2**30, 2**20, 10**6
_SHORT_NAMES = {
    "global_batch_size": "batch",
    "weight_decay": "decay",
    "lr_schedule": "schedule",
    "lr_step_epochs": "lr step",
    "lr_gamma": "lr factor",
    "warmup_epochs": "warm-up",
    "scale_lr": "scaled lr",
}
_SCORES = {"accuracy": "test accuracy", "mrr": "test MRR"}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # these three are other signs in LaTeX's default encoding
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",  # after the end of a line [ would be an argument, * a variant of the line's end
    "*": "{*}",
}
CROWDED = "`*` more threads than cores: ranks share a core, and the time says little"
LEGEND = {
    "*": CROWDED,
    "!": "`!` test score unknown, or more than 1 point below that of the run compared with",
    "?": "`?` compared with a run on another machine",
}
Line = TypeVar("Line")  # of a table: a row, or what has one


@dataclass(frozen=True)
class Column(Generic[Line]):
    """A column of a table, of its CSV file, or of both."""

    heading: str | None  # None: in the CSV file alone
    name: str | None  # in the CSV file; None: not there
    value: Callable[[Line], Any]
    form: Callable[[Any], str] = str  # the value as text
    spread: bool = False  # the value is one, or None: the file has its middle, least and most

    def numbers(self, line: Line) -> Iterator[tuple[str, Any]]:
        """Yield the columns of the CSV file, each with its value; None where it is not known."""
        if self.name is None:
            return
        value = self.value(line)
        yield self.name, value.middle if isinstance(value, Spread) else value
        if self.spread:
            yield f"{self.name}_min", value and value.low
            yield f"{self.name}_max", value.high if value and math.isfinite(value.high) else None


@dataclass(frozen=True)
class Table:
    """Cells as text, what has to be said below them, and the same as numbers for a program."""

    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    numbers: pd.DataFrame  # one line per line of cells; fractions, seconds and bytes, unrounded

    @classmethod
    def of(
        cls, lines: Iterable[Line], columns: Sequence[Column[Line]], notes: Iterable[str] = ()
    ) -> Table:
        """Return the table of lines, one cell for each column with a heading."""
        lines = list(lines)
        shown = [column for column in columns if column.heading is not None]
        return cls(
            tuple(str(column.heading) for column in shown),
            tuple(tuple(one.form(one.value(line)) for one in shown) for line in lines),
            tuple(notes),
            pd.DataFrame(
                [dict(pair for c in columns for pair in c.numbers(line)) for line in lines]
            ),
        )

    def text(self) -> str:
        """Return the table with aligned columns, for a terminal."""
        return self._aligned(printable)

    def markdown(self) -> str:
        """Return the table with aligned columns, readable as text and as Markdown."""
        return self._aligned(markdown_cell)

    def with_notes(self) -> str:
        """Return the table as Markdown, and its notes as a list below it."""
        return "\n".join([self.markdown(), "", *(f"- {markdown_text(one)}" for one in self.notes)])

    def _aligned(self, shown: Callable[[str], str]) -> str:
        rows = [[shown(cell) for cell in line] for line in (self.headings, *self.cells)]
        widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
        lines: list[list[str]] = [[] for _ in rows]
        rule: list[str] = []
        for at, (width, right) in enumerate(zip(widths, is_number_column(self), strict=True)):
            rule.append("-" * (width - right) + ":" * right)
            for line, row in zip(lines, rows, strict=True):
                line.append(row[at].rjust(width) if right else row[at].ljust(width))
        lines.insert(1, rule)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def is_number_column(table: Table) -> list[bool]:
    """Return for each column whether it holds numbers, which stand to the right."""
    columns = zip(table.headings, *table.cells, strict=True)
    return [any(cell.lstrip("+-")[:1].isdigit() for cell in column[1:]) for column in columns]


def latex_table(table: Table, notes: tuple[str, ...], caption: str = "") -> str:
    """Return the tabular, its caption above and the notes below it: text, never LaTeX."""
    sides = "".join("r" if one else "l" for one in is_number_column(table))
    lines = [" & ".join(map(latex_text, line)) + r" \\" for line in (table.headings, *table.cells)]
    return "\n".join(
        [
            *([rf"\par\noindent\textbf{{{latex_text(caption)}}}\par"] if caption else []),
            rf"\begin{{tabular}}{{{sides}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            "",
            r"\par\noindent\footnotesize",
            *(latex_text(note) + r"\par" for note in notes),
            r"\normalsize",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Return text with every sign that LaTeX reads otherwise escaped; `code` in typewriter."""
    escaped = "".join(_ESCAPES.get(sign, sign) for sign in printable(text))
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)


def settings_beside_ranks(table: Table) -> Table:
    """Return the table with the columns that tell rows apart next to the strategy and ranks.

    At the end of a wide table they would be out of sight.
    """
    names = list(table.headings)
    last = max((names.index(name) for name in names if name in ("ranks", "workers")), default=-1)
    distinguishing = [at for at, name in enumerate(names) if name in ("settings", "machine")]
    order = [at for at in range(len(names)) if at not in distinguishing]
    order[last + 1 : last + 1] = distinguishing
    headings, *cells = (tuple(line[at] for at in order) for line in (table.headings, *table.cells))
    return replace(table, headings=headings, cells=tuple(cells))


def differing_settings(
    settings: Sequence[Mapping[str, Any]], datasets: Sequence[str], *, precision: bool = False
) -> list[str]:
    """Return for each row the settings in which the rows of its data set are not all alike.

    Rows of different data sets have different recipes, which would drown what was chosen. Seeds
    and paths never tell rows apart, the precision only where it has no column (`precision`). The
    aggregator goes first: without neighbours, all else is another experiment. Models other than the
    default are named beside their data set.
    """
    defaults = {name: o.default for name, o in OPTIONS.items() if o.newer and name != "model"}
    settings = [{**defaults, **chosen} for chosen in settings]
    never = {"seed", "dataset", *([] if precision else ["precision"])}
    values: dict[tuple[str, str], set[str]] = {}
    for dataset, chosen in zip(datasets, settings, strict=True):
        for name, value in chosen.items():
            values.setdefault((dataset, name), set()).add(setting_text(value))
    return [
        ", ".join(
            f"{setting_name(name)}={setting_text(value)}"
            for name, value in sorted(chosen.items(), key=lambda item: item[0] != "aggregator")
            if len(values[dataset, name]) > 1 and value is not None
            if name not in never and not _is_path(name)
        )
        for dataset, chosen in zip(datasets, settings, strict=True)
    ]


def settings_column(
    lines: Sequence[Line],
    settings: Callable[[Line], Mapping[str, Any]],
    dataset: Callable[[Line], str],
    *,
    precision: bool = False,
) -> list[Column[Line]]:
    """Return the column of the settings in which lines of a data set differ; none without any."""
    texts = differing_settings(
        [settings(line) for line in lines], [dataset(line) for line in lines], precision=precision
    )
    by_line = {id(line): text or NOTHING for line, text in zip(lines, texts, strict=True)}
    return [Column("settings", None, lambda line: by_line[id(line)])] if any(texts) else []


def distinguishing_columns(
    lines: Sequence[Line],
    row_of: Callable[[Line], Row],
    but: str | None = None,
    *,
    precision: bool = False,
) -> tuple[list[Column[Line]], list[str]]:
    """Return the columns that tell lines apart, where they are needed, and notes on the machines.

    Settings, and the graph, stand in one where they differ, except the one (`but`) that has a
    column already, and the precision unless it has none (`precision`); machines in the other, by
    numbers.
    """

    def settings(line: Line) -> dict[str, Any]:
        row = row_of(line)
        chosen = {name: value for name, value in row.settings.items() if name != but}
        return chosen | {"graph": graph_mark(row.fingerprint)}

    columns = settings_column(
        lines, settings, lambda line: row_of(line).dataset, precision=precision
    )
    machines = list(dict.fromkeys(row_of(line).machine for line in lines))
    if len(machines) == 1:
        return columns, [f"machine: {machines[0]}"]
    numbers = {kind: f"M{number}" for number, kind in enumerate(machines, start=1)}
    columns += [Column("machine", None, lambda line: numbers[row_of(line).machine])] * bool(
        machines
    )
    return columns, [f"machine {number}: {kind}" for kind, number in numbers.items()]


def row_columns(row_of: Callable[[Line], Row], names: str = "who") -> list[Column[Line]]:
    """Return the columns that `names` name, keys of ROW_COLUMNS with a space between them."""
    chosen = [one for name in names.split() for one in ROW_COLUMNS[name]]
    return [_of_row(one, row_of) for one in chosen]


def _of_row(column: Column[Row], row_of: Callable[[Line], Row]) -> Column[Line]:
    """Return the column of a row as that of what has one."""

    def value(line: Line) -> Any:
        return column.value(row_of(line))

    return Column(column.heading, column.name, value, column.form, column.spread)


def precision_order(precision: object) -> int:
    """Return where a precision stands in a table: the usual one first, unknown ones last."""
    known = OPTIONS["precision"].choices
    return {name: place for place, name in enumerate(known)}.get(str(precision), len(known))


def graph_mark(fingerprint: str | None) -> str:
    """Return what tells graphs of one name apart in a table."""
    return (fingerprint or "unknown")[:8]


def left_out(records: Iterable[RunRecord]) -> list[str]:
    """Return the note on runs that did not end well, for a table that has no column for them."""
    count = sum(run.status != "ok" for run in records)
    return [f"left out, not ended well: {counted(count, 'run')}"] if count else []


def legend(rows: Iterable[Row], scaled: bool = False) -> list[str]:
    """Return what the marks in a table mean, of those that are in it."""
    marks = "".join(row.speedup_mark + row.own_mark * scaled + "*" * row.crowded for row in rows)
    return [text for mark, text in LEGEND.items() if mark in marks]


def crowded_note(rows: Iterable[Row]) -> list[str]:
    """Return what a star means, where there is one."""
    return [CROWDED] if any(row.crowded for row in rows) else []


def ranks_text(row: Row) -> str:
    """Return the ranks, by host where there are several, starred where they share cores."""
    hosts = f" ({'+'.join(map(str, row.ranks_per_host))})" if len(row.ranks_per_host) > 1 else ""
    return f"{row.ranks}{hosts}{'*' if row.crowded else ''}"


def middle(spread: Spread | None) -> float | None:
    """Return the middle value; None where nothing is known."""
    return None if spread is None else spread.middle


def middle_text(spread: Spread | None) -> str:
    """Return the middle value in three digits."""
    return three_digits(middle(spread))


def range_text(spread: Spread | None) -> str:
    """Return the least and most of several; of one run there is no range."""
    if spread is None or spread.count < 2:
        return NOTHING
    return f"{three_digits(spread.low)}..{three_digits(spread.high)}"


def spread_text(spread: Spread | None, show: Callable[[float], str] = three_digits) -> str:
    """Return `12.3 (11.0..14.1)`; of one run there is no range."""
    if spread is None:
        return NOTHING
    value, low, high = (show(value) for value in (spread.middle, spread.low, spread.high))
    return value if spread.count < 2 else f"{value} ({low}..{high})"


def ratio_text(ratio: Spread | None, mark: str = "") -> str:
    """Return `1.55 (1.50..1.61)` and the mark; a single round has no spread."""
    return NOTHING if ratio is None else spread_text(ratio, "{:.2f}".format) + mark


def gib_text(value: float | None) -> str:
    """Return bytes in GiB."""
    return three_digits(None if value is None else value / GIB)


def score_heading(names: Iterable[str]) -> str:
    """Return the heading of a column of scores: of what its rows have."""
    found = set(names)
    return ", ".join(title for name, title in _SCORES.items() if name in found) or "test accuracy"


def score_text(score: Spread | float | None, name: str) -> str:
    """Return an accuracy in percent, or an MRR, with its deviation where it has one."""
    if score is None:
        return NOTHING
    spread = score if isinstance(score, Spread) else Spread(score, score, score, 1)
    unit, digits = (100, 2) if name == "accuracy" else (1, 4)
    more = f" ± {unit * (spread.high - spread.middle):.{digits}f}" if spread.count > 1 else ""
    return f"{unit * spread.middle:.{digits}f}{more}"


def score_columns(
    lines: Sequence[Line], row_of: Callable[[Line], Row], *, deviation: bool = False
) -> list[Column[Line]]:
    """Return the test score, in the file under the name of what a row is judged by."""
    rows = [row_of(line) for line in lines]
    shown: list[Column[Line]] = [
        Column(
            score_heading(row.score_name for row in rows),
            None,
            lambda line: score_text(row_of(line).accuracy, row_of(line).score_name),
        )
    ]
    for name in dict.fromkeys(row.score_name for row in rows):
        shown.append(_of_row(Column(None, f"test_{name}", _score_of(name)), row_of))
        if deviation:
            shown.append(_of_row(Column(None, f"test_{name}_sd", _deviation_of(name)), row_of))
    return shown


def _score_of(name: str) -> Callable[[Row], Spread | None]:
    return lambda row: row.accuracy if row.score_name == name else None


def _not_ok_text(row: Row) -> str:
    counts = ((row.failed, "failed"), (row.interrupted, "interrupted"))
    return ", ".join(f"{count} {word}" for count, word in counts if count) or NOTHING


def _deviation_of(name: str) -> Callable[[Row], float | None]:
    def deviation(row: Row) -> float | None:
        score = _score_of(name)(row)
        return score.high - score.middle if score is not None and score.count > 1 else None

    return deviation


ROW_COLUMNS: Mapping[str, Sequence[Column[Row]]] = {
    "who": (
        Column("dataset", "dataset", lambda row: row.dataset),
        Column("strategy", "strategy", lambda row: row.strategy),
        Column("ranks", None, ranks_text),
        Column(None, "ranks", lambda row: row.ranks),
    ),
    "crowded": (Column(None, "crowded", lambda row: row.crowded),),
    "hosts": (Column("hosts", "hosts", lambda row: len(row.ranks_per_host)),),
    "precision": (Column("precision", "precision", lambda row: row.precision),),
    "runs": (Column("runs", "runs", lambda row: row.runs),),
    "seconds": (
        Column("s/epoch", "seconds_per_epoch", lambda row: row.seconds, middle_text, spread=True),
        Column("min..max", None, lambda row: range_text(row.seconds)),
    ),
    "communicate": (
        Column("communicate", "communicate_share", lambda row: row.communicate_share, percent),
    ),
    "not_ok": (
        Column("not ok", None, lambda row: _not_ok_text(row)),
        Column(None, "failed", lambda row: row.failed),
        Column(None, "interrupted", lambda row: row.interrupted),
    ),
    "machine": (Column(None, "machine", lambda row: row.machine),),
    "settings": (Column(None, "settings", lambda row: settings_text(row.settings)),),
}
"""Columns that tables of rows have in common, by what they tell."""


def setting_name(name: str) -> str:
    """Return the short name of a setting."""
    return _SHORT_NAMES.get(name, name.replace("_", " "))


def setting_text(value: object) -> str:
    """Return the value of a setting as a person would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_path(name: str) -> bool:
    return name in OPTIONS and OPTIONS[name].metavar in ("DIR", "FILE")
