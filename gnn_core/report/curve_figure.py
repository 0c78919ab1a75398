"""The picture of the README: loss curves of several ranks and both frameworks on each other.

    python -m gnn_core.report.curve_figure results/reference/curves docs/curves.png

The runs have equal settings, seed and data; those of 1, 2 and 4 ranks without dropout are drawn,
the curves of float32 on the left and their distances to one process, in float32 and float64, on
the right. Exit code 0, 2 for a mistake reported in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import counted
from gnn_core.report.figures.runs import loss_points
from gnn_core.report.figures.style import draw_document, plain, strategy_colour
from gnn_core.strategies import order_of
from gnn_core.usage import UsageError

_DASHES = {1: "-", 2: (0, (5, 2)), 4: (0, (2, 1.5))}  # ranks -> style of their line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    source = "records", "folder of run records"
    return guarded(lambda: draw_document(__doc__, "curve_figure", source, _draw, arguments))


def _draw(folder: Path) -> Figure:
    return curve_figure(read_records(folder)[0])


def curve_figure(records: Sequence[RunRecord]) -> Figure:
    """Return the losses in float32 beside the distances to `single` in float32 and float64.

    Raises UsageError when a precision lacks its `single` run or another run to compare with it.
    """
    by_precision = {name: _comparable(records, name) for name in ("fp32", "fp64")}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, by_precision["fp32"])
    for precision, runs in by_precision.items():
        _draw_distances(right, runs, precision)
    left.set_title("training loss of each step, float32", loc="left", fontsize="medium")
    left.set_ylabel("mean per target, nats", fontsize="small")
    right.set_title("relative distance to one process", loc="left", fontsize="medium")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        plain(axes)
    left.legend(frameon=False, fontsize="small")
    return figure


def _comparable(records: Sequence[RunRecord], precision: str) -> list[RunRecord]:
    """Return the finished runs of a precision without dropout, `single` first."""
    runs = [
        run
        for run in records
        if run.status == "ok" and run.world_size in _DASHES and loss_points(run)[0]
        if run.config.get("precision") == precision and run.config.get("dropout") == 0
    ]
    runs.sort(key=lambda run: (order_of(run.strategy), run.world_size))
    if len(runs) < 2 or runs[0].strategy != "single":
        raise UsageError(
            f"expected a `single` run and others in {precision} without dropout, got "
            f"{counted(len(runs), 'run')}: make them by `results/reference.sh curves`"
        )
    return runs


def _draw_losses(axes: Axes, runs: Sequence[RunRecord]) -> None:
    """Draw the first curves wide and the last ones narrow, so that all are seen."""
    for place, run in enumerate(runs):
        axes.plot(
            *loss_points(run),
            color=strategy_colour(run.strategy),
            linestyle=_DASHES[run.world_size],
            linewidth=5 - 4 * place / (len(runs) - 1),
            label=f"{run.strategy}, {counted(run.world_size, 'rank')}",
        )


def _draw_distances(axes: Axes, runs: Sequence[RunRecord], precision: str) -> None:
    """Draw |loss - loss of single| / loss of single where it is above 0, and name the precision."""
    single = dict(zip(*loss_points(runs[0]), strict=True))
    label_at = 0.0
    for run in runs[1:]:
        pairs = [
            (at, abs(loss - single[at]) / single[at])
            for at, loss in zip(*loss_points(run), strict=True)
            if at in single and loss != single[at]
        ]
        axes.plot(
            [at for at, _ in pairs],
            [distance for _, distance in pairs],
            color=strategy_colour(run.strategy),
            linestyle=_DASHES[run.world_size],
            linewidth=1,
        )
        label_at = max([label_at, *(distance for at, distance in pairs if at < 2)])
    axes.annotate(precision, (0, label_at), (0, 6), textcoords="offset points")


if __name__ == "__main__":
    raise SystemExit(main())
