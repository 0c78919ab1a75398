"""Make one page of HTML out of run records: execute the report's notebook, keep what it shows.

    python -m gnn_core.report.page results/sweeps/short --output results/report.html

The page holds everything in itself: no script, no font and no picture is loaded from anywhere. Exit
code 0, 1 when the notebook fails, 2 for a mistake told in one line.
"""

from __future__ import annotations

import argparse
import html
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded
from gnn_core.report.records import read_records
from gnn_core.report.whole_file import write_whole
from gnn_core.usage import Parser, UsageError

RECORDS_VARIABLE = "RINGSAGE_RECORDS"
"""Folders and files of records for the notebook, separated as PATH is."""

_ROOT = Path(__file__).resolve().parents[2]
_NOTEBOOK = _ROOT / "results" / "report.ipynb"
_CELL_SECONDS = 300
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
# Tables and pictures scroll inside themselves, never the page; long words break.
_STYLE = """\
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1c1c1c; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: 0; }
h3 + p { margin-top: 0.2rem; }
a.anchor-link { display: none; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; white-space: nowrap;
  text-align: left; }
th { background: #f4f4f4; }
code { background: #f4f4f4; padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; }
ul { padding-left: 1.2rem; }
li { font-size: 0.9rem; }
.output_area:has(.figure) { display: inline-block; vertical-align: top; max-width: 100%; }
.figure { margin: 0.75rem 0.5rem 0.75rem 0; }
summary { cursor: pointer; font-size: 0.9rem; margin: 0.5rem 0; }
.figure img { display: block; width: 30rem; max-width: 100%; height: auto; }
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _make(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.page")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="folders and files of run records")
    add("--output", type=Path, default=Path("results/report.html"), metavar="FILE",
        help="the page (default: results/report.html)")  # fmt: skip
    add("--notebook", type=Path, default=_NOTEBOOK, metavar="FILE",
        help="which one to execute (default: results/report.ipynb of the project)")  # fmt: skip
    return parser.parse_args(arguments)


def _make(options: argparse.Namespace) -> int:
    paths, notebook = options.paths, options.notebook
    records, problems = read_records(*paths)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    if not records:
        places = ", ".join(map(str, paths))
        raise UsageError(
            f"expected run records (*.jsonl) in {places}, found none that can be used; "
            "`make report` makes some"
        )
    # They take a second to import, and a wrong path should be told at once.
    import nbformat
    from nbclient.exceptions import CellExecutionError

    try:
        source: Any = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as problem:
        raise UsageError(f"--notebook: expected a notebook, but {notebook}: {problem}") from None
    try:
        page = render(source, paths)
    except CellExecutionError as problem:
        print(f"error: {notebook} fails:\n{problem}", file=sys.stderr)
        return 1
    write_whole(options.output, page)
    print(f"wrote {options.output}: {len(records)} runs, {len(page) / 1e6:.1f} MB")
    return 0


def render(notebook: Any, paths: Sequence[Path]) -> str:
    """Return the page of a notebook that is executed on records. Raises CellExecutionError.

    `notebook`: of nbformat 4; it is changed by its execution.
    """
    from nbclient import NotebookClient
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    places = os.pathsep.join(str(path.resolve()) for path in paths)
    with tempfile.TemporaryDirectory() as sockets:  # no port is opened
        kernel = {"transport": "ipc", "ip": str(Path(sockets, "kernel"))}
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            config=Config(KernelManager=kernel),
            timeout=_CELL_SECONDS,
            resources={"metadata": {"path": str(_ROOT)}},
        )
        client.execute(env={**os.environ, RECORDS_VARIABLE: places})
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    title = html.escape(str(notebook.metadata.get("title", "Ringsage")))
    return _PAGE.format(title=title, style=_STYLE, body=body)


if __name__ == "__main__":
    raise SystemExit(main())
