"""Make one page of HTML out of run records: what they say, and the tables and figures behind it.

    python -m gnn_core.report.page results/sweeps/short --output results/report.html

The page holds everything in itself: no script, no font and no picture is loaded from anywhere.
`results/report.ipynb` shows the same sections in a notebook. Exit code 0, 2 for a mistake reported
in one line.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("pandas", "matplotlib", "jinja2")

from gnn_core.files import is_folder, path_argument
from gnn_core.markup import without_math
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.generated_blocks import tables
from gnn_core.report.prediction.outlook import fit_probes, outlook, scaling_table
from gnn_core.report.prediction.probe_files import read_probes
from gnn_core.report.prediction.work import work_in
from gnn_core.report.rows import (
    ReportOptions,
    by_task,
    grouped,
    machine_kind,
    work_of,
    work_settings,
)
from gnn_core.report.sentences import answers
from gnn_core.report.table import Table, differing_settings, graph_mark, is_number_column
from gnn_core.usage import Parser, UsageError, printable
from gnn_core.whole_file import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Which way to train this graph, and what it buys"
_SIDE_BY_SIDE = (
    "Every run is what a user would type; runs took turns, and a ratio is taken between two of one "
    "round."
)
_PREDICTION = (
    "Nothing here is measured but the points that are said to be: a step on one rank, cut into "
    "parts, and an allreduce that was measured here, stretched to more ranks by a formula."
)
_TARGET = (
    "Seconds of training until the validation score is within a point of what one process reaches."
)
_CURVES = "Equal settings and seeds draw one curve, whatever the number of ranks and the framework."
_UNTOLD = "These runs do not tell."


@dataclass(frozen=True)
class Part:
    """A paragraph, a heading, a list, a table or a figure."""

    kind: str
    value: Any


@dataclass
class Section:
    """A heading and what stands below it, in order."""

    title: str
    parts: list[Part] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph; `**` and backticks mean what they do in Markdown."""
        self.parts.append(Part("text", text))

    def show(self, table: Table) -> None:
        """Add a table with its notes."""
        shown = {"headings": table.headings, "cells": table.cells, "notes": table.notes}
        self.parts.append(Part("table", {**shown, "numeric": is_number_column(table)}))

    def draw(self, figures: Iterable[Figure]) -> None:
        """Add figures; a figure's title is also what a screen reader says of it."""
        for figure in figures:
            without_math(figure)
            title = figure.get_suptitle() or figure.axes[0].get_title(loc="left")
            stream = io.BytesIO()
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            data = base64.b64encode(stream.getvalue()).decode("ascii")
            alt, source = " ".join(title.split()), f"data:image/svg+xml;base64,{data}"
            self.parts.append(Part("figure", {"alt": printable(alt), "source": source}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _make(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.page")
    parser.add_argument(
        "paths",
        nargs="+",
        type=path_argument,
        metavar="PATH",
        help="folders and files of run records",
    )
    parser.add_argument(
        "--output",
        type=path_argument,
        default=Path("results/report.html"),
        metavar="FILE",
        help="the page (default: results/report.html)",
    )
    return parser.parse_args(arguments)


def _make(options: argparse.Namespace) -> int:
    records, problems = read_records(*options.paths)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    if not records:
        places = ", ".join(map(str, options.paths))
        raise UsageError(
            f"expected run records (*.jsonl) in {places}, found none that can be used; "
            "`make report` makes some"
        )
    page = html(sections(options.paths, records, problems), whole=True)
    write_whole(options.output, page)
    print(f"wrote {options.output}: {len(records)} runs, {len(page) / 1e6:.1f} MB")
    return 0


def html(made: Iterable[Section], *, whole: bool = False) -> str:
    """Return the HTML of sections; `whole`: a page of its own, else what stands within one."""
    import jinja2
    from markupsafe import Markup, escape

    def inline(text: str) -> Markup:
        safe = str(escape("\n".join(map(printable, text.split("\n")))))
        safe = re.sub(r"`([^`]*)`", r"<code>\1</code>", safe)
        return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe))

    def prose(text: str) -> Markup:
        return Markup("\n").join(Markup(f"<p>{inline(one)}</p>") for one in text.split("\n\n"))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=inline, prose=prose, printable=printable)
    template = environment.get_template("page.html.j2")
    return template.render(sections=list(made), title=TITLE, whole=whole)


def sections(
    paths: Sequence[Path], records: Sequence[RunRecord], problems: Sequence[str]
) -> Iterator[Section]:
    """Yield the sections of the report.

    Args:
        paths: where the records are from; probes of an allreduce lie beside them.
        records: of one run at least.
        problems: what could not be used, a line each.
    """
    # matplotlib takes most of a second to import
    from gnn_core.report.figures.bars import all_bars
    from gnn_core.report.figures.gallery import figures

    good = [run for run in records if run.status == "ok"]
    drawn = [(what, figure) for what, _, figure in figures(good, ReportOptions()) if figure]

    def of(*kinds: str) -> list[Figure]:
        return [figure for kind in kinds for what, figure in drawn if what == kind]

    def section(title: str, text: str, table: str | None, *kinds: str) -> Section:
        made = Section(title)
        if text:
            made.say(text)
        for caption, one in tables(table, good) if table else ():
            made.parts += [Part("text", f"**{caption}**")] * bool(caption)
            made.show(one)
        made.draw(of(*kinds))
        if not of(*kinds):
            made.say(_UNTOLD)
        return made

    yield _summary(records, problems)
    for dataset, found in answers(records).items():
        made = Section(dataset)
        for one in found:
            made.parts += [Part("heading", one.question)]
            made.say(one.text)
        yield made
    made = Section("Side by side")
    made.say(_SIDE_BY_SIDE)
    for caption, table in tables("compare", records):
        made.parts += [Part("text", f"**{caption}**")] * bool(caption)
        made.show(table)
    made.draw(figure for _, figure in all_bars(records))
    yield made
    text = "Above the speed-up, below the score that came with it."
    yield section("How it scales, and what that costs", text, None, "score", "efficiency", "weak")
    yield _prediction(paths, good)
    yield section("Where the time goes", "", None, "time", "communication")
    yield section("How soon it is good enough", _TARGET, "target", "target")
    yield section("The curve is the same", _CURVES, None, "loss")
    sampled = "resources" if any(run.resources for run in good) else None
    yield section("What the runs used", "", sampled, "memory", "resources")
    yield _origin(records)


def _summary(records: Sequence[RunRecord], problems: Sequence[str]) -> Section:
    bad = sum(run.status != "ok" for run in records)
    days = sorted({run.started_at[:10] for run in records})
    machines = sorted({machine_kind(run) for run in records})
    made = Section("")
    made.say(
        counted(len(records), "run")
        + (f", {bad} of which did not end well" if bad else "")
        + f" on {'; '.join(machines)}; {days[0]}"
        + (f" to {days[-1]}." if len(days) > 1 else ".")
    )
    if problems:
        made.parts.append(Part("list", [f"not used: {problem}" for problem in problems]))
    return made


def _prediction(paths: Sequence[Path], good: Sequence[RunRecord]) -> Section:
    made = Section("On more ranks than were there: a prediction")
    made.say(_PREDICTION)
    predicted = list(outlooks(paths, good))
    for found in predicted:
        if isinstance(found, str):
            made.say(found)
        else:
            table, figure = found
            made.draw([figure])
            made.show(table)
    if not predicted:
        made.say("No allreduce was measured beside these runs: `make report` does.")
    return made


def _origin(records: Sequence[RunRecord]) -> Section:
    commits = {
        (run.commit or "unknown")[:10] + (" (changed)" if run.dirty else "") for run in records
    }
    loads = [run.machine.get("load_average") for run in records]
    known = [load for load in loads if load is not None]
    versions = {f"{name} {version}" for run in records for name, version in run.versions.items()}
    lines = [
        f"commits: {', '.join(sorted(commits))}",
        f"load average when runs began: {min(known):g} to {max(known):g}"
        if known
        else "load: not told",
        f"versions: {', '.join(sorted(versions))}",
        "not counted as training: evaluation, checkpoints, set-up; the first epoch of a run warms "
        "up",
    ]
    return Section("What these numbers rest on", [Part("list", lines)])


def outlooks(
    paths: Sequence[Path], records: Sequence[RunRecord]
) -> Iterator[tuple[Table, Figure] | str]:
    """Yield the prediction for each data set, task and strategy with a probe beside its records.

    A probe is a file `probe-<strategy>-<ranks>.json`. Of several settings, those that ran on most
    numbers of ranks, which the figure's title names. Where none can be made, the reason.
    """
    from gnn_core.report.prediction.figure import scaling_figure

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


if __name__ == "__main__":
    raise SystemExit(main())
