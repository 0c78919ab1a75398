"""Make the table of all runs from their records.

    python -m gnn_core.report.analysis results/                       # to the terminal
    python -m gnn_core.report.analysis results/ --format csv --output table.csv
    python -m gnn_core.report.analysis results/ --figures results/figures
    python -m gnn_core.report.analysis results/compare --table compare
    python -m gnn_core.report.analysis --readme README.md           # renew the tables in it
    python -m gnn_core.report.analysis --readme README.md --check   # 1 when they are stale

Exit code 0, 1 for a stale file, 2 for a mistake told in one line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gnn_core.report.cells import Table, counted
from gnn_core.report.documents import SELECTIONS, TABLES, renewal
from gnn_core.report.records import read_records, record_files
from gnn_core.report.schema import RunRecord
from gnn_core.report.tables import speed_table
from gnn_core.usage import Parser, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    try:
        return _analyse(_parse(arguments))
    except UsageError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m gnn_core.report.analysis",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[Path("results")], metavar="PATH",
        help="folders and files of run records (default: results)",
    )  # fmt: skip
    parser.add_argument(
        "--table", choices=tuple(TABLES), default="speed", help="which one (default: speed)"
    )
    parser.add_argument("--format", choices=("text", "markdown", "csv"), default="text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, not here")
    parser.add_argument(
        "--force", action="store_true", help="compare runs of different machines all the same"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="also draw loss curves and where time goes"
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE",
        help=f"renew the tables between <!-- figures:NAME FOLDER begin --> and "
        f"<!-- figures:NAME end --> in this Markdown file; NAME is one of {', '.join(SELECTIONS)}; "
        f"without FOLDER, which is relative to the file, PATHs are used",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true", help="with --readme: change nothing, exit 1 when stale"
    )
    options = parser.parse_args(arguments)
    if options.check and options.readme is None:
        raise UsageError("--check says whether a file is stale: name it with --readme FILE")
    return options


def _analyse(options: argparse.Namespace) -> int:
    if options.readme is not None and options.figures is None:
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
        _draw(records, options.figures)
    if options.readme is not None:
        return _renew(options)
    origin = f"records: {places} ({counted(len(record_files(*options.paths)), 'file')}, "
    origin += f"{counted(len(records), 'run')} used, {counted(len(problems), 'line')} not used)"
    speed = options.table == "speed"
    table = speed_table(records, force=options.force) if speed else TABLES[options.table](records)
    _show(table, origin, options)
    return 0


def _name_unused(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)


def _show(table: Table, origin: str, options: argparse.Namespace) -> None:
    """Print the table or write it; notes would break a CSV file, so there they go to stderr."""
    notes = [*table.notes, origin]
    if options.format == "csv":
        text = table.numbers.to_csv(index=False)
        print("\n".join(notes), file=sys.stderr)
    elif options.format == "markdown":
        text = "\n".join([table.markdown(), "", *(f"- {note}" for note in notes), ""])
    else:
        text = "\n".join([table.markdown(), *notes, ""])
    if options.output is None:
        print(text, end="")
    else:
        _write(options.output, text)
        print(f"wrote {options.output}")


def _renew(options: argparse.Namespace) -> int:
    result = renewal(options.readme, options.paths)
    _name_unused(result.problems)
    if not result.stale:
        print(f"{options.readme} is up to date")
        return 0
    sections = ", ".join(result.stale)
    if options.check:
        print(
            f"{options.readme} is stale at {sections}: run this again without --check",
            file=sys.stderr,
        )
        return 1
    _write(options.readme, result.renewed)
    print(f"renewed {options.readme} at {sections}")
    return 0


def _draw(records: Sequence[RunRecord], directory: Path) -> None:
    # matplotlib takes most of a second to import, and only this needs it
    from gnn_core.report.figures import draw_figures

    for file in draw_figures(records, directory):
        print(f"drew {file}", file=sys.stderr)


def _write(file: Path, text: str) -> None:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as problem:
        raise UsageError(f"cannot write {file}: {problem.strerror or problem}") from None


if __name__ == "__main__":
    raise SystemExit(main())
