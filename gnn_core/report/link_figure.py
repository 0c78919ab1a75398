"""The figure of missing citations: MRR by links and by age of the cited paper, model and rules.

    python -m gnn_core.report.link_figure results/reference/links/groups.json docs/links.svg

The file is one that `baselines/link_groups.py` wrote. Exit code 0, 2 for a mistake reported in one
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnn_core.report.figures.style import COLOURS, draw_document, plain
from gnn_core.report.tables.benches import Bench, read_benches
from gnn_core.usage import UsageError

_FIRST = 2  # columns before those of the model and the rules


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    source = "groups", "file of baselines/link_groups.py"
    return guarded(lambda: draw_document(__doc__, "link_figure", source, _draw, arguments))


def _draw(file: Path) -> Figure:
    benches, problems = read_benches(file)
    if len(benches) != 1 or not any(":" in str(row[0]) for row in benches[0].rows):
        raise UsageError(
            f"expected a file that baselines/link_groups.py wrote, got {file}"
            + "".join(f"; {problem}" for problem in problems)
        )
    return link_figure(benches[0])


def link_figure(bench: Bench) -> Figure:
    """Return a panel for each way to group the references, a line for the model and each rule."""
    panels: dict[str, list[list[Any]]] = {}
    for name, *values in bench.rows:
        what, _, group = str(name).partition(": ")
        if group:
            panels.setdefault(what, []).append([group, *values])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (what, rows) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        _draw_panel(axes, what, rows, bench.columns[_FIRST:])
    figure.axes[0].set_ylabel("test MRR")
    figure.axes[0].legend(frameon=False, fontsize="small")
    return figure


def _draw_panel(axes: Axes, what: str, rows: Sequence[Sequence[Any]], names: Sequence[str]) -> None:
    places = range(len(rows))
    for number, name in enumerate(names):
        heights = [row[_FIRST + number] for row in rows]
        width = 2.5 if number == 0 else 1.2
        axes.plot(places, heights, "o-", color=COLOURS[number + 1], linewidth=width, label=name)
    axes.set_xticks(places, [f"{row[0]}\n({row[1]})" for row in rows], fontsize="x-small")
    axes.set_xlabel(f"{what} (test references)")
    axes.set_ylim(bottom=0)
    plain(axes)


if __name__ == "__main__":
    raise SystemExit(main())
