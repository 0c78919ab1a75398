"""What the report's notebook is written with: the records it is about, and its figures."""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from gnn_core.report.cells import Table
from gnn_core.report.page import RECORDS_VARIABLE
from gnn_core.report.records import read_records
from gnn_core.report.schema import RunRecord

_ROOT = Path(__file__).resolve().parents[2]


def records_of_report(default: str) -> tuple[list[RunRecord], list[str]]:
    """Return the records that the page is made of, and what could not be used.

    Opened by hand, a notebook shows those of the folder `default`, relative to the project.
    """
    told = os.environ.get(RECORDS_VARIABLE)
    paths = told.split(os.pathsep) if told else [str(_ROOT / default)]
    return read_records(*paths)


def markdown(table: Table) -> str:
    """Return a table and, folded away, what has to be said below it."""
    notes = [f"- {note}" for note in table.notes]
    folded = ["<details><summary>In sentences, and what the columns mean</summary>", "", *notes]
    return "\n".join([table.markdown(), "", *folded, "", "</details>"])


def draw(figure: Figure, what: str) -> None:
    """Show a figure in a notebook; `what` says in words what is on it."""
    from IPython.display import HTML, display

    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    source = f"data:image/svg+xml;base64,{data}"
    display(HTML(f'<div class="figure"><img alt="{html.escape(what)}" src="{source}"></div>'))
