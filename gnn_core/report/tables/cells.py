"""What a table is, and how a setting or a spread is written in one of its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from gnn_core.config import OPTIONS
from gnn_core.markup import markdown_cell
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows.scores import Spread
from gnn_core.usage import printable

_SHORT_NAMES = {
    "global_batch_size": "batch",
    "weight_decay": "decay",
    "lr_schedule": "schedule",
    "lr_step_epochs": "lr step",
    "lr_gamma": "lr factor",
    "warmup_epochs": "warm-up",
    "scale_lr": "scaled lr",
}


@dataclass(frozen=True)
class Table:
    """Cells as text, what has to be said below them, and the same as numbers for a program."""

    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    numbers: pd.DataFrame  # one line per line of cells; fractions, seconds and bytes, unrounded

    def text(self) -> str:
        """Return the table with aligned columns, for a terminal."""
        return self._aligned(printable)

    def markdown(self) -> str:
        """Return the table with aligned columns, readable as text and as Markdown."""
        return self._aligned(markdown_cell)

    def _aligned(self, shown: Callable[[str], str]) -> str:
        rows = [[shown(cell) for cell in line] for line in (self.headings, *self.cells)]
        columns = list(zip(*rows, strict=True))
        left = [not holds_numbers for holds_numbers in is_number_column(self)]
        widths = [max(3, *(len(cell) for cell in column)) for column in columns]
        rule = [
            "-" * width if is_left else "-" * (width - 1) + ":"
            for width, is_left in zip(widths, left, strict=True)
        ]
        lines = [
            [
                cell.ljust(width) if is_left else cell.rjust(width)
                for cell, width, is_left in zip(line, widths, left, strict=True)
            ]
            for line in rows
        ]
        lines.insert(1, rule)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_beside_ranks(table: Table) -> Table:
    """Return the table with the columns that tell rows apart next to the strategy and ranks.

    At the end of a wide table they would be out of sight.
    """
    names = list(table.headings)
    last = max((names.index(name) for name in names if name in ("ranks", "workers")), default=-1)
    distinguishing = [at for at, name in enumerate(names) if name in ("settings", "machine")]
    order = [at for at in range(len(names)) if at not in distinguishing]
    order[last + 1 : last + 1] = distinguishing
    return replace(
        table,
        headings=tuple(names[at] for at in order),
        cells=tuple(tuple(line[at] for at in order) for line in table.cells),
    )


def is_number_column(table: Table) -> list[bool]:
    """Return for each column whether it holds numbers, which stand to the right."""
    columns = zip(table.headings, *table.cells, strict=True)
    return [any(_is_number(cell) for cell in column[1:]) for column in columns]


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


def spread_text(spread: Spread | None, show: Callable[[float], str] = three_digits) -> str:
    """Return `12.3 (11.0..14.1)`; of one run there is no range."""
    if spread is None:
        return NOTHING
    middle, low, high = (show(value) for value in (spread.middle, spread.low, spread.high))
    return middle if spread.count < 2 else f"{middle} ({low}..{high})"


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


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())
