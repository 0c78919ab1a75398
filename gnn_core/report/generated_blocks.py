"""Tables inside Markdown files, regenerated from records, so that no number is typed by hand.

<!-- figures:speed results/reference/speed begin -->
...the table, replaced as a whole...
<!-- figures:speed end -->

The folder of records is relative to the file. A marker without one uses the paths that the caller
names. `python -m gnn_core.report.analysis --update FILE...` renews them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gnn_core.config import UsageError
from gnn_core.files import read_regular
from gnn_core.markup import markdown_text
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.rows import ReportOptions, by_task
from gnn_core.report.table import Table, settings_beside_ranks
from gnn_core.report.tables.agreement import curves_table
from gnn_core.report.tables.benches import bench_table, bench_title, read_benches
from gnn_core.report.tables.links import link_table
from gnn_core.report.tables.memory import memory_table, resource_table
from gnn_core.report.tables.side_by_side import overview_table, side_by_side_table
from gnn_core.report.tables.speed import (
    accuracy_table,
    communication_table,
    speed_table,
    weak_table,
)
from gnn_core.report.tables.target import cost_table, target_table

Content = Callable[[Sequence[Path], str, ReportOptions], tuple[str, list[str]]]
"""(files and folders, their names for the reader, flags) -> Markdown, and remarks on bad files."""
Maker = Callable[[Sequence[RunRecord], ReportOptions], Table]

_MOST_BYTES = 16 << 20
_MARKER = re.compile(r"<!-- figures:(?P<name>\S+)(?: +(?P<folder>\S.*?))? +(?P<side>begin|end) -->")
_MARKER_LINE = re.compile(r"^[ \t]*(?P<marker><!--\s*figures:.*?)[ \t]*$", re.M)


@dataclass(frozen=True)
class Renewal:
    """A document as it is, as it would be, and which of its sections differ."""

    present: str
    renewed: str
    stale: tuple[str, ...]  # such as "line 77 (accuracy results/reference/cora)"
    problems: tuple[str, ...]  # files and lines that were not used, a line each


@dataclass(frozen=True)
class _Section:
    name: str
    folder: str | None  # as the marker spells it
    line: int
    begin: int  # end of the begin marker
    end: int = 0  # start of the end marker's line

    def matches(self, name: str, folder: str | None) -> bool:
        """Whether an end marker ends it; one may repeat the folder."""
        return self.name == name and folder in (None, self.folder)

    def __str__(self) -> str:
        return f"line {self.line} ({' '.join(filter(None, (self.name, self.folder)))})"


def renewal(document: Path, paths: Sequence[Path], choices: ReportOptions | None = None) -> Renewal:
    """Return the text of `document` as it is, and as it would be with its tables made anew.

    `paths`: records for the markers that name no folder; `choices` (default: none made) hold for
    all its tables. Raises UsageError for a file that cannot
    be read, has no markers or wrong ones, and for a folder without anything to make a table from.
    """
    try:
        text = read_regular(document, _MOST_BYTES).decode("utf-8")
    except (UsageError, UnicodeDecodeError) as problem:
        raise UsageError(f"expected a Markdown file, but {document}: {problem}") from None
    parts: list[str] = []
    stale: list[str] = []
    remarks: dict[str, None] = {}
    position = 0
    for section in _sections(text, document):
        made, problems = _made(section, document, paths, choices or ReportOptions())
        stale += [] if made == text[section.begin : section.end] else [str(section)]
        parts += [text[position : section.begin], made]
        remarks.update(dict.fromkeys(problems))
        position = section.end
    renewed = "".join([*parts, text[position:]])
    return Renewal(text, renewed, tuple(stale), tuple(remarks))


def _sections(text: str, document: Path) -> list[_Section]:
    """Return the marked sections in order; raises UsageError at the first marker out of place."""
    found: list[_Section] = []
    opened: _Section | None = None
    spelt = ""
    for match in _MARKER_LINE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        marker = _MARKER.fullmatch(match["marker"])
        if marker is None:
            raise UsageError(
                f"{document}:{line}: expected <!-- figures:NAME [FOLDER] begin --> or "
                f"<!-- figures:NAME end -->, got {match['marker']}"
            )
        name, folder = marker["name"], marker["folder"]
        if name not in SELECTIONS:
            known = ", ".join(SELECTIONS)
            raise UsageError(f"{document}:{line}: expected figures of {known}, got {name}")
        if marker["side"] == "begin" and opened is None:
            opened, spelt = _Section(name, folder, line, match.end()), marker[0]
        elif opened and marker["side"] == "end" and opened.matches(name, folder):
            found.append(replace(opened, end=match.start()))
            opened = None
        else:
            raise UsageError(f"{document}:{line}: {marker[0]} has no partner where it stands")
    if opened is not None:
        raise UsageError(f"{document}:{opened.line}: {spelt} is never ended")
    if not found:
        raise UsageError(
            f"expected markers such as <!-- figures:speed begin --> and "
            f"<!-- figures:speed end --> in {document}, found none"
        )
    return found


def _made(
    section: _Section, document: Path, paths: Sequence[Path], choices: ReportOptions
) -> tuple[str, list[str]]:
    """Return what should stand between the markers of a section, and remarks on bad files."""
    if section.folder is None:
        # Paths as the document sees them: it must not tell where on this machine it lies.
        home, sources = document.resolve().parent, list(paths)
        seen = {Path(os.path.relpath(path.resolve(), home)).as_posix() for path in sources}
    else:
        sources, seen = [document.parent / section.folder], {section.folder}
    places = ", ".join(f"`{place}`" for place in sorted(seen))
    try:
        made, problems = SELECTIONS[section.name](sources, places, choices)
    except UsageError as problem:
        raise UsageError(f"{document}:{section.line} (figures:{section.name}): {problem}") from None
    return f"\n\n{made}\n\n", problems


def tables(
    name: str, records: Sequence[RunRecord], choices: ReportOptions | None = None
) -> list[tuple[str, Table]]:
    """Return the tables of one name, a key of TABLES, each beside its caption: one for each task.

    The caption is empty where all records are of one task. A task that has nothing to show there
    is left out, unless that leaves no table.
    """
    made = [
        (caption, settings_beside_ranks(TABLES[name](runs, choices or ReportOptions())))
        for caption, runs in by_task(records)
    ]
    return [one for one in made if one[1].cells] or made[:1]


def _of_records(name: str) -> Content:
    def content(
        sources: Sequence[Path], places: str, choices: ReportOptions
    ) -> tuple[str, list[str]]:
        records, problems = read_records(*sources)
        if not records:
            raise _nothing("run records (*.jsonl)", places, problems)
        commits = _commits((record.commit, record.dirty) for record in records)
        origin = f"- from {counted(len(records), 'run record')} in {places}; {commits}"
        blocks = [
            (f"**{markdown_text(caption)}**\n\n" if caption else "") + table.with_notes()
            for caption, table in tables(name, records, choices)
        ]
        return "\n\n".join(blocks) + f"\n{origin}", problems

    return content


def _of_benches(
    sources: Sequence[Path], places: str, choices: ReportOptions
) -> tuple[str, list[str]]:
    benches, problems = read_benches(*sources)
    if not benches:
        raise _nothing("benchmark files (*.json)", places, problems)
    blocks = [
        f"{markdown_text(bench_title(bench))}:\n\n{bench_table(bench).with_notes()}\n"
        f"- {_commits([(bench.commit, bench.dirty)])}"
        for bench in benches
    ]
    commits = _commits((bench.commit, bench.dirty) for bench in benches)
    blocks.append(f"From {counted(len(benches), 'benchmark file')} in {places}; {commits}.")
    return "\n\n".join(blocks), problems


def _nothing(what: str, places: str, problems: Sequence[str]) -> UsageError:
    reason = f" ({problems[0]})" if problems else ""
    return UsageError(f"expected {what} in {places}, found none that can be used{reason}")


TABLES: Mapping[str, Maker] = {
    "accuracy": lambda records, _: accuracy_table(records),
    "speed": lambda records, choices: speed_table(records, force=choices.force),
    "weak": lambda records, choices: weak_table(records, force=choices.force),
    "target": lambda records, choices: target_table(records, target=choices.target),
    "cost": cost_table,
    "compare": lambda records, _: side_by_side_table(records),
    "overview": lambda records, _: overview_table(records),
    "curves": lambda records, _: curves_table(records),
    "communication": lambda records, choices: communication_table(records, force=choices.force),
    "links": lambda records, _: link_table(records),
    "memory": lambda records, _: memory_table(records),
    "resources": lambda records, _: resource_table(records),
}
SELECTIONS: Mapping[str, Content] = {
    **{name: _of_records(name) for name in TABLES},
    "benches": _of_benches,
}


def _commits(origins: Iterable[tuple[str | None, bool | None]]) -> str:
    names = {
        f"{commit[:10]}{' with changes' if dirty else ''}" if commit else "unknown"
        for commit, dirty in origins
    }
    if len(names) > 3:
        return f"{len(names)} commits"
    return f"commit{'s'[: len(names) > 1]} {', '.join(sorted(names))}"
