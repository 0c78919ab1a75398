"""Make one page of HTML out of run records: execute the report's notebook, keep what it shows.

    python -m gnn_core.report.page results/sweeps/short --output results/report.html

The page holds everything in itself: no script, no font and no picture is loaded from anywhere. Exit
code 0, 1 when the notebook fails, 2 for a mistake reported in one line.
"""

from __future__ import annotations

import argparse
import atexit
import html
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.files import path_argument, read_regular
from gnn_core.launch import guarded
from gnn_core.markup import safe_html
from gnn_core.measure.records import read_records
from gnn_core.usage import Parser, UsageError, printable
from gnn_core.whole_file import write_whole

RECORDS_VARIABLE = "RINGSAGE_RECORDS"
"""Folders and files of records for the notebook, separated as PATH is."""

_ROOT = Path(__file__).resolve().parents[2]
_NOTEBOOK = _ROOT / "results" / "report.ipynb"
_MOST_BYTES = 64 << 20  # of a notebook
_START_SECONDS, _CELL_SECONDS = 600, 1200  # a busy machine takes minutes for either
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
# Tables scroll inside themselves, never the page; text in cells wraps to keep columns in sight.
_STYLE = """\
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1c1c1c; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
p, li, details > ul { max-width: 60rem; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: 0; }
h3 + p { margin-top: 0.2rem; }
a.anchor-link { display: none; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.25rem 0.4rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
td[style*="right"] { white-space: nowrap; }
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
    add(
        "paths",
        nargs="+",
        type=path_argument,
        metavar="PATH",
        help="folders and files of run records",
    )
    add(
        "--output",
        type=path_argument,
        default=Path("results/report.html"),
        metavar="FILE",
        help="the page (default: results/report.html)",
    )
    add(
        "--notebook",
        type=path_argument,
        default=_NOTEBOOK,
        metavar="FILE",
        help="which one to execute (default: results/report.ipynb of the project)",
    )
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
    try:
        page = render(notebook, paths)
    except _CellFailed as problem:
        print(f"error: {printable(str(problem))}", file=sys.stderr)
        return 1
    write_whole(options.output, page)
    print(f"wrote {options.output}: {len(records)} runs, {len(page) / 1e6:.1f} MB")
    return 0


class _CellFailed(Exception):
    """A cell of the notebook raised; the message is one line."""


def render(notebook: Path, paths: Sequence[Path]) -> str:
    """Return the page of a notebook that is executed on records.

    Raises UsageError: the file is no notebook, what executes it is not installed, or its kernel
    does not start or dies. Raises _CellFailed when one of its cells does.
    """
    try:  # they take a second to import, and a wrong path should be reported at once
        import ipykernel  # noqa: F401
        import nbformat
        from nbclient.exceptions import CellExecutionError
        from nbconvert.exporters import HTMLExporter
    except ImportError as problem:
        raise UsageError(
            f"expected nbclient, nbconvert and ipykernel, which execute the notebook: {problem}; "
            "`make install` installs them"
        ) from None
    try:
        content = read_regular(notebook, _MOST_BYTES).decode("utf-8")
        source: Any = nbformat.reads(content, as_version=4)
    except (UsageError, ValueError, nbformat.reader.NotJSONError) as problem:
        raise UsageError(
            f"--notebook: expected a notebook, but {notebook}: {_one_line(problem)}"
        ) from None
    try:
        _execute(source, paths)
    except CellExecutionError as problem:
        raise _CellFailed(
            f"a cell of {notebook} fails: {problem.ename}: {_one_line(problem.evalue)}; "
            f"`{RECORDS_VARIABLE}={paths[0]} jupyter execute {notebook}` shows where"
        ) from None
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(source)
    title = html.escape(str(source.metadata.get("title", "Ringsage")))
    return _PAGE.format(title=title, style=_STYLE, body=safe_html(body))


def _execute(source: Any, paths: Sequence[Path]) -> None:
    """Execute a notebook in place, in a kernel of its own; raises as `render` does.

    What the kernel writes to stderr, such as warnings of libraries, is kept off page and terminal.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError
    from traitlets.config import Config

    places = os.pathsep.join(str(path.resolve()) for path in paths)
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(folder, "kernel.log").open("w+", encoding="utf-8", errors="replace") as log,
    ):
        sockets = {"transport": "ipc", "ip": str(Path(folder, "kernel"))}  # no port is opened
        client = NotebookClient(
            source,
            kernel_name="python3",
            config=Config(KernelManager=sockets),
            startup_timeout=_START_SECONDS,
            timeout=_CELL_SECONDS,
            resources={"metadata": {"path": str(_ROOT)}},
        )
        # IPYTHONDIR: no settings or start-up files of the user change the page.
        own = {RECORDS_VARIABLE: places, "IPYTHONDIR": folder}
        try:
            client.execute(env={**os.environ, **own}, stdout=log, stderr=log)
        except CellTimeoutError:
            raise UsageError(
                f"expected each cell of the notebook to end within {_CELL_SECONDS} s, one did not: "
                "give fewer records, or try again when the machine is less busy"
            ) from None
        except (RuntimeError, NoSuchKernel, OSError) as problem:
            # nbclient leaves this behind, which fails with a traceback as the program ends.
            atexit.unregister(client._cleanup_kernel)
            log.seek(0)
            said = log.read().split("\n")
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            raise UsageError(
                f"the notebook's kernel did not start within {_START_SECONDS} s, or died: "
                f"{_one_line(problem)}{last and f' ({last})'}; see `make doctor` and the free "
                "memory, and try again"
            ) from None
    for cell in source.cells:
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())


if __name__ == "__main__":
    raise SystemExit(main())
