"""Benchmark files -> tables: JSON written by the `bench` programs with `--json FILE`.

A file is one object: `benchmark` (its name), `machine` (facts as in a run record), `versions`,
`commit`, `dirty`, `settings`, `columns` (headings), `rows` (lists of text and numbers, as many as
there are columns) and `notes`. Whatever else is in it is left to other readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gnn_core.files import files_among, read_regular
from gnn_core.measure.strict_json import WrongShape, parse
from gnn_core.number_text import NOTHING, three_digits
from gnn_core.report.rows import machine_words
from gnn_core.report.table import Table, setting_name, setting_text

_MOST_BYTES = 64 << 20
_KINDS: Mapping[str, tuple[type, ...]] = {
    "benchmark": (str,),
    "machine": (dict,),
    "versions": (dict,),
    "commit": (str, type(None)),
    "dirty": (bool, type(None)),
    "settings": (dict,),
    "columns": (list,),
    "rows": (list,),
    "notes": (list,),
}


@dataclass(frozen=True)
class Bench:
    """One benchmark: ready-made cells, and what is known of their origin."""

    benchmark: str
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    settings: dict[str, Any]
    columns: list[str]
    rows: list[list[Any]]  # text, numbers, booleans, None
    notes: list[str]


def read_benches(*paths: str | Path) -> tuple[list[Bench], list[str]]:
    """Return the benchmarks in files and folders (*.json, searched downwards), by file name.

    The second list names, a line each, what could not be used. Raises UsageError when a path does
    not exist or cannot be read.
    """
    benches: list[Bench] = []
    files, problems = files_among(map(Path, paths), ".json", "benchmarks")
    for file in files:
        try:
            benches.append(_bench_of(read_regular(file, _MOST_BYTES).decode("utf-8")))
        except (WrongShape, UnicodeDecodeError) as problem:
            problems.append(f"{file}: {problem}")
    return benches, problems


def bench_table(bench: Bench) -> Table:
    """Return the table of one benchmark, with its settings, versions and machine below it."""
    settings = [
        f"{setting_name(name)} {setting_text(value)}"
        for name, value in bench.settings.items()
        if value is not None
    ]
    versions = [f"{name} {version}" for name, version in bench.versions.items()]
    about = {"settings": settings, "versions": versions}
    return Table(
        headings=tuple(_cell(heading) for heading in bench.columns),
        cells=tuple(tuple(_cell(value) for value in row) for row in bench.rows),
        notes=(
            *(" ".join(note.split()) for note in bench.notes),
            *(f"{name}: {', '.join(parts)}" for name, parts in about.items() if parts),
            f"machine: {machine_words(bench.machine)}",
        ),
        numbers=pd.DataFrame(bench.rows, columns=bench.columns),
    )


def bench_title(bench: Bench) -> str:
    """Return the benchmark's name and what tells it from others of that name."""
    dataset = bench.settings.get("dataset")
    busy = "beside other work" if bench.settings.get("busy") else None
    return ", ".join(str(part) for part in (bench.benchmark, dataset, busy) if part)


def _bench_of(text: str) -> Bench:
    """Return the benchmark in a file's text; raises WrongShape with the reason there is none."""
    values = parse(text)
    if not isinstance(values, dict):
        raise WrongShape("not a benchmark (expected a JSON object)")
    for name, kinds in _KINDS.items():
        if name not in values:
            raise WrongShape(f"field {name} is missing")
        if not isinstance(values[name], kinds):
            raise WrongShape(f"{name}: expected {kinds[0].__name__}")
    for name in ("columns", "notes"):
        if not all(isinstance(item, str) for item in values[name]):
            raise WrongShape(f"{name}: expected a list of texts")
    _check_rows(values["rows"], len(values["columns"]))
    return Bench(**{name: values[name] for name in _KINDS})


def _check_rows(rows: Sequence[Any], width: int) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or not width:
            raise WrongShape(f"rows[{number}]: expected a list of {width} cells, one per column")
        if not all(cell is None or isinstance(cell, str | int | float) for cell in row):
            raise WrongShape(f"rows[{number}]: expected cells of text, numbers or null")


def _cell(value: object) -> str:
    """Return a cell on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not value.is_integer():
        return three_digits(value)
    if isinstance(value, int | float):
        return f"{value:.0f}"
    return " ".join(str(value or NOTHING).split())
