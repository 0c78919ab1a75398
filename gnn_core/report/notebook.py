"""What the report's notebook is written with: the records it is about, and its figures."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from gnn_core.files import is_folder
from gnn_core.markup import markdown_text, without_math
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.generated_blocks import tables
from gnn_core.report.page import RECORDS_VARIABLE
from gnn_core.report.prediction.figure import scaling_figure
from gnn_core.report.prediction.outlook import fit_probes, outlook, scaling_table
from gnn_core.report.prediction.probe_files import read_probes
from gnn_core.report.prediction.work import work_in
from gnn_core.report.rows.scores import by_task
from gnn_core.report.rows.summary import grouped, machine_kind, work_of, work_settings
from gnn_core.report.tables.cells import Table, differing_settings, graph_mark
from gnn_core.usage import UsageError

_ROOT = Path(__file__).resolve().parents[2]


def paths_of_report(default: str) -> list[Path]:
    """Return the folders and files of records that the page is made of.

    Opened by hand, a notebook shows those of the folder `default`, relative to the project.
    """
    paths = os.environ.get(RECORDS_VARIABLE)
    return [Path(path) for path in paths.split(os.pathsep)] if paths else [_ROOT / default]


def outlooks(
    paths: Sequence[Path], records: Sequence[RunRecord]
) -> Iterator[tuple[Table, Figure] | str]:
    """Yield the prediction for each data set, task and strategy with a probe beside its records.

    A probe is a file `probe-<strategy>-<ranks>.json`. Of several settings, those that ran on most
    numbers of ranks, which the figure's title names. Where none can be made, the reason.
    """
    folders = [path for path in paths if is_folder(path)]
    files = sorted(file for folder in folders for file in folder.glob("probe-*-*.json"))
    for strategy in dict.fromkeys(file.name.split("-")[1] for file in files):
        mine = [file for file in files if file.name.split("-")[1] == strategy]
        for runs, settings in _of_one_work(records, strategy):
            name = ", ".join(filter(None, (runs[0].dataset.name, settings)))
            try:
                probes = read_probes(mine, strategy)
                work = dataclasses.replace(work_in(runs, strategy, None), dataset=name)
                view = outlook(work, fit_probes(probes))
            except UsageError as problem:
                yield f"No prediction for {strategy} on {name}: {problem}"
            else:
                yield scaling_table(view, probes), scaling_figure(view)


def _of_one_work(
    records: Sequence[RunRecord], strategy: str
) -> Iterator[tuple[list[RunRecord], str]]:
    """Yield for each data set and task the runs to predict from, and what tells them from others.

    A prediction needs runs of equal settings on one machine.
    """
    mine = [run for run in records if run.strategy in (strategy, "single")]
    for caption, of_task in by_task(mine):
        for runs in grouped(of_task, lambda run: run.dataset.name):
            works = grouped(runs, lambda run: (work_of(run), machine_kind(run)))
            settings = [
                work_settings(run.config) | {"graph": graph_mark(run.dataset.fingerprint)}
                for run, *_ in works
            ]
            texts = differing_settings(settings, [""] * len(works), precision=True)
            ranks = [len({run.world_size for run in some}) for some in works]
            most = ranks.index(max(ranks))
            yield works[most], ", ".join(filter(None, (caption, texts[most])))


def captioned(name: str, records: Sequence[RunRecord]) -> str:
    """Return the tables of one name, a key of `documents.TABLES`: one for each task."""
    return "\n\n".join(
        "\n\n".join(filter(None, (caption and f"**{markdown_text(caption)}**", markdown(table))))
        for caption, table in tables(name, records)
    )


def markdown(table: Table) -> str:
    """Return a table and, folded away, what has to be said below it."""
    notes = [f"- {markdown_text(note)}" for note in table.notes]
    folded = ["<details><summary>In sentences, and what the columns mean</summary>", "", *notes]
    return "\n".join([table.markdown(), "", *folded, "", "</details>"])


def say(text: str) -> None:
    """Show Markdown with texts of records in it: they are shown, and no markup of theirs works."""
    from IPython.display import Markdown, display

    display(Markdown(markdown_text(text)))


def draw(figure: Figure) -> None:
    """Show a figure in a notebook; its title is also what a screen reader says of it."""
    from IPython.display import HTML, display

    without_math(figure)
    what = " ".join((figure.get_suptitle() or figure.axes[0].get_title(loc="left")).split())
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    source = f"data:image/svg+xml;base64,{data}"
    display(HTML(f'<div class="figure"><img alt="{html.escape(what)}" src="{source}"></div>'))
