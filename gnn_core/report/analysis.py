"""Make the table of all runs from their records.

    python -m gnn_core.report.analysis results/                       # to the terminal
    python -m gnn_core.report.analysis results/ --format csv --output table.csv
    python -m gnn_core.report.analysis results/ --format latex --output speed.tex
    python -m gnn_core.report.analysis results/ --figures results/figures --figures-format svg
    python -m gnn_core.report.analysis results/ --table target --target 0.8
    python -m gnn_core.report.analysis results/ --table cost --price 1.2 --currency EUR
    python -m gnn_core.report.analysis results/compare --table compare
    python -m gnn_core.report.analysis --update README.md docs/results.md    # renew their tables
    python -m gnn_core.report.analysis --update README.md --check            # 1 when one is stale

Exit code 0, 1 for a stale file, 2 for a mistake reported in one line.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("pandas")

from gnn_core.files import path_argument
from gnn_core.markup import csv_cell, markdown_text
from gnn_core.measure.records import read_records, record_files
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.generated_blocks import SELECTIONS, TABLES, renewal, tables
from gnn_core.report.rows import ReportOptions
from gnn_core.report.table import Table, latex_table
from gnn_core.usage import Parser, UsageError, finite, printable
from gnn_core.whole_file import write_whole

_WANTED = {
    **dict.fromkeys(TABLES, "runs that ended well"),
    "weak": "runs of several rank counts with equal global batch / ranks and equal other settings",
    "curves": "`single` and other runs of equal settings, seed and data that kept their steps",
    "links": "runs of --task link",
    "resources": "runs that ended well and were sampled (--sample-seconds above 0)",
}
"""What is missing when a table is empty."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _analyse(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.analysis")
    add = parser.add_argument
    places: dict[str, Any] = {"nargs": "*", "type": path_argument, "default": [Path("results")]}
    text = "folders and files of run records (default: results)"
    add("paths", **places, metavar="PATH", help=text)
    add("--table", choices=tuple(TABLES), default="speed", help="which one (default: speed)")
    add("--format", choices=("text", "markdown", "csv", "latex"), default="text")
    add("--output", type=path_argument, metavar="FILE", help="write there, not here")
    text = "compare runs of different machines all the same"
    add("--force", action="store_true", help=text)
    text = "validation score to reach, a fraction (default: one point below that of `single`)"
    add("--target", type=_fraction, metavar="X", help=text)
    text = "of one host for one hour; without it no cost"
    add("--price", type=finite(0), metavar="X", help=text)
    add("--currency", metavar="UNIT", help="of the price (default: none is shown)")
    text = "also draw what the records have: speed-up, efficiency, time, loss, memory and so on"
    add("--figures", type=path_argument, metavar="DIR", help=text)
    add("--figures-format", choices=("png", "svg"), help="(default: png)")
    text = (
        "renew the tables between <!-- figures:NAME FOLDER begin --> and <!-- figures:NAME end --> "
        f"in these Markdown files; NAME is one of {', '.join(SELECTIONS)}; without FOLDER, which "
        "is relative to the file, PATHs are used"
    )
    several: dict[str, Any] = {"type": path_argument, "metavar": "FILE"}
    add("--update", nargs="+", action="extend", **several, help=text)
    text = "the same for one file; the former name of --update"
    add("--readme", dest="update", action="append", **several, help=text)
    text = "with --update: change nothing, exit 1 when stale"
    add("--check", action="store_true", help=text)
    options = parser.parse_args(arguments)
    _require_use(options)
    return options


def _fraction(text: str) -> float:
    value = finite()(text)
    if not 0 < value <= 1:
        instead = f"; for {text} percent give {value / 100:g}" if 1 < value <= 100 else ""
        raise argparse.ArgumentTypeError(
            f"expected a fraction above 0, at most 1, got {text}{instead}"
        )
    return value


def _require_use(options: argparse.Namespace) -> None:
    """Refuse what would have no effect: it was given for a reason."""
    shown = options.figures is not None or options.update is not None
    if options.check and options.update is None:
        raise UsageError("--check says whether a file is stale: name it with --update FILE")
    if options.figures_format is not None and options.figures is None:
        raise UsageError("--figures-format needs a folder to draw to: --figures DIR")
    if options.currency is not None and options.price is None:
        raise UsageError("--currency is that of a price: give one with --price X")
    if options.price is not None and options.table != "cost" and not shown:
        raise UsageError(f"--price makes no difference to --table {options.table}: --table cost")
    if options.target is not None and options.table not in ("target", "cost") and not shown:
        raise UsageError(f"--target makes no difference to --table {options.table}: --table target")


def _analyse(options: argparse.Namespace) -> int:
    if options.update is not None and options.figures is None:
        return _renew(options)  # its sections read their own records
    records, problems = read_records(*options.paths)
    _name_unused(problems)
    places = ", ".join(str(path) for path in options.paths)
    if not records:
        raise UsageError(
            f"expected run records (*.jsonl) in {places}, found none that can be used; "
            f"a training run writes one"
        )
    if options.figures is not None:
        _draw(records, options)
    if options.update is not None:
        return _renew(options)
    origin = f"records: {places} ({counted(len(record_files(*options.paths)), 'file')}, "
    origin += f"{counted(len(records), 'run')} used, {counted(len(problems), 'line')} not used)"
    captioned = tables(options.table, records, _choices(options))
    if not any(table.cells for _, table in captioned):
        notes = captioned[0][1].notes
        said = [note for note in notes if note.startswith(("not compared", "left out"))]
        raise UsageError(
            f"expected runs for --table {options.table} among {counted(len(records), 'run')} in "
            f"{places}, found none; {said[0] if said else 'wanted: ' + _WANTED[options.table]}"
        )
    _show(captioned, origin, options)
    return 0


def _choices(options: argparse.Namespace) -> ReportOptions:
    return ReportOptions(options.force, options.target, options.price, options.currency or "")


def _name_unused(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)


def _show(captioned: Sequence[tuple[str, Table]], origin: str, options: argparse.Namespace) -> None:
    """Print the tables, or write them to one file; of CSV, to one file for each caption."""
    if options.format == "csv":
        _show_csv(captioned, origin, options.output)
        return
    *former, (caption, table) = captioned
    last = dataclasses.replace(table, notes=(*table.notes, origin))
    text = "\n".join(_laid_out(*one, options.format) for one in [*former, (caption, last)])
    if options.output is None:
        print(text, end="")
    else:
        write_whole(options.output, text)
        print(f"wrote {options.output}")


def _laid_out(caption: str, table: Table, form: str) -> str:
    """Return one table with its caption above and its notes below."""
    if form == "latex":
        return latex_table(table, table.notes, caption)
    if form == "markdown":
        above = f"**{markdown_text(caption)}**\n\n" if caption else ""
        return f"{above}{table.with_notes()}\n"
    above = f"{printable(caption)}:\n" if caption else ""
    return above + "\n".join([table.text(), *map(printable, table.notes), ""])


def _show_csv(captioned: Sequence[tuple[str, Table]], origin: str, output: Path | None) -> None:
    """Write the numbers; notes would break a CSV file, so they go to stderr.

    Two tables have different columns: they go to `<output>-<caption>.csv`, or are printed with a
    blank line between them.
    """
    for at, (caption, table) in enumerate(captioned):
        text = table.numbers.map(csv_cell).rename(columns=csv_cell).to_csv(index=False)
        print("\n".join(filter(None, [caption, *table.notes])), file=sys.stderr)
        if output is None:
            print("\n" * (at > 0) + text, end="")
            continue
        named = f"{output.stem}-{caption.replace(' ', '-')}{output.suffix}" if caption else ""
        file = output.with_name(named or output.name)
        write_whole(file, text)
        print(f"wrote {file}")
    print(origin, file=sys.stderr)


def _renew(options: argparse.Namespace) -> int:
    """Renew the documents, or with --check say which are stale; none is written if one is wrong."""
    choices = _choices(options)
    results = [(file, renewal(file, options.paths, choices)) for file in options.update]
    _name_unused(list(dict.fromkeys(name for _, result in results for name in result.problems)))
    code = 0
    for file, result in results:
        sections = ", ".join(result.stale)
        if not result.stale:
            print(f"{file} is up to date")
        elif options.check:
            message = f"{file} is stale at {sections}: run this again without --check"
            print(message, file=sys.stderr)
            code = 1
        else:
            write_whole(file, result.renewed)
            print(f"renewed {file} at {sections}")
    return code


def _draw(records: Sequence[RunRecord], options: argparse.Namespace) -> None:
    # matplotlib takes most of a second to import, and only this needs it
    from gnn_core.report.figures.gallery import draw_figures

    kind = options.figures_format or "png"
    files, missing = draw_figures(records, options.figures, _choices(options), kind)
    for file in files:
        print(f"drew {file}", file=sys.stderr)
    for what in missing:
        print(f"not drawn: {what}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
