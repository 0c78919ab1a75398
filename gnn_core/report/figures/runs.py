"""Records -> figures: loss curves laid over each other, and where the time of an epoch goes.

Colours are those of Okabe and Ito, which people with any colour vision tell apart.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display

from gnn_core.markup import without_math
from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.number_text import counted
from gnn_core.report.rows.summary import (
    grouped,
    machine_kind,
    row_key,
    settings_of,
    steps_per_epoch,
)
from gnn_core.report.tables.cells import differing_settings, graph_mark
from gnn_core.strategies import order_of
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole

COLOURS = ("#000000", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
_SECTION_COLOURS = {
    "sample": "#E69F00",
    "fetch": "#56B4E9",
    "compute": "#0072B2",
    "communicate": "#D55E00",
    "wait": "#F0E442",
    "other": "#BBBBBB",
}
WIDTH_INCHES = 4.8
"""Of a figure: a telephone shows it about 360 pixels wide, where letters of 10 points are read."""
_TITLE_SIGNS = 52
_LABEL_SIGNS = 24  # of the name of a bar
_MOST_NAMES = 12  # of curves in a key, before seeds are no longer named
_DASHES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))


def strategy_colour(name: str) -> str:
    """Return the colour of a strategy, the same in every figure."""
    return COLOURS[order_of(name) % len(COLOURS)]


def file_word(name: str) -> str:
    """Return the name of a data set as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name)


def title_lines(title: str) -> str:
    """Return a title cut into lines that are no wider than a figure."""
    return "\n".join(textwrap.fill(line, _TITLE_SIGNS) for line in title.splitlines())


def require_picture(file: Path) -> None:
    """Raise UsageError for a file whose name is of no format that a document shows."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"expected a file named .svg or .png, got {file}")


def save_figures(drawn: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write each figure under its name, whose end is the format (png, svg); return the files.

    Raises UsageError when the folder cannot be written.
    """
    for name, figure in drawn.items():
        without_math(figure)
        content, kind = BytesIO(), name.rpartition(".")[2]
        # What changes from one drawing to the next of the same records is left out.
        volatile = {"svg": "Date", "png": "Software"}[kind]
        with rc_context({"svg.hashsalt": name}):
            figure.savefig(content, format=kind, dpi=200, metadata={volatile: None})
        write_whole(directory / name, content.getvalue())
    return [directory / name for name in drawn]


def loss_curves(runs: Sequence[RunRecord], name: str | None = None) -> Figure:
    """Return the training loss of runs on one data set, and how far each is from one process.

    `name` stands in the title; None: the data set's.

    Curves that should be equal lie on each other: earlier ones are wide and pale, later ones
    narrow, so that all are seen. Below, the distance to the `single` run of the same settings.
    """
    ordered = sorted(runs, key=lambda run: (order_of(run.strategy), run.world_size))
    distances = {id(run): _distance_to_single(run, ordered) for run in ordered}
    compared = any(losses for _, losses in distances.values())
    styles = _styles(ordered)
    names = len({style["label"] for style in styles.values()})
    height = (5.8 if compared else 4.2) + 0.17 * names
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    panels = figure.subplots(
        1 + compared, 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + compared]
    )
    above = panels[0, 0]
    for run in ordered:
        above.plot(*loss_points(run), **styles[id(run)])
        if compared:
            panels[1, 0].plot(*distances[id(run)], **{**styles[id(run)], "linewidth": 1.2})
    handles, texts = above.get_legend_handles_labels()
    once = dict(zip(texts, handles, strict=True))
    figure.legend(
        once.values(),
        [textwrap.fill(name, 60) for name in once],
        loc="outside lower center",
        frameon=False,
        fontsize="small",
    )
    above.set_ylabel("training loss\n(mean per target, nats)", fontsize="small")
    title = title_lines(f"Training loss on {name or runs[0].dataset.name}")
    above.set_title(title, loc="left", fontsize="medium")
    if compared:
        panels[1, 0].set_yscale("log")
        panels[1, 0].set_ylabel(
            "|loss - loss of single|\n(nats; equal where no line)", fontsize="small"
        )
    for axes in panels.flat:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("epoch")
    return figure


def time_bars(runs: Sequence[RunRecord], name: str | None = None) -> Figure:
    """Return one bar per strategy, ranks and settings: the mean seconds of an epoch by section.

    `name` stands in the title; None: the data set's.
    """
    groups = grouped(runs, row_key)
    groups.sort(key=lambda some: (order_of(some[0].strategy), some[0].world_size))
    labels = bar_names(_labels([some[0] for some in groups]))
    lines = range(len(groups))
    seconds = [_section_seconds(some) for some in groups]
    height = 1.6 + len(labels) * (0.24 + 0.14 * max(label.count("\n") for label in labels))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(groups)
    for section, colour in _SECTION_COLOURS.items():
        widths = [parts[section] for parts in seconds]
        if any(widths):
            axes.barh(
                lines,
                widths,
                left=left,
                height=0.65,
                color=colour,
                edgecolor="white",
                label=section,
            )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for position, total in enumerate(left):
        axes.annotate(
            f"{total:.3g} s",
            (total, position),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set_yticks(lines, labels, fontsize="small")
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(left) or 1.0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("seconds per epoch of the slowest rank\n(mean after warm-up)", fontsize="small")
    title = title_lines(f"Where time goes on {name or runs[0].dataset.name}")
    figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def loss_points(run: RunRecord) -> tuple[list[float], list[float]]:
    """Return (epochs passed, loss): of each step where steps were kept, else of each epoch."""
    steps = steps_per_epoch(run)
    if run.step_losses and steps:
        # A resumed run may have entered its first epoch half-way; its last one is whole.
        first = (
            run.epochs[-1].epoch + 1 - len(run.step_losses) / steps
            if run.resumed_from and run.epochs
            else 0.0
        )
        points = [(first + (step + 0.5) / steps, loss) for step, loss in enumerate(run.step_losses)]
    else:
        points = [(epoch.epoch + 0.5, epoch.train_loss) for epoch in run.epochs]
    known = [(where, loss) for where, loss in points if loss is not None]
    return [where for where, _ in known], [loss for _, loss in known]


def _distance_to_single(
    run: RunRecord, among: Sequence[RunRecord]
) -> tuple[list[float], list[float]]:
    """Return (epochs passed, distance > 0) to the first single run with an equal loss curve due."""
    for other in among if run.same_curve else ():
        if other.strategy == "single" and other is not run and _same_curve(run, other):
            other_loss = dict(zip(*loss_points(other), strict=True))
            points = zip(*loss_points(run), strict=True)
            apart = [(at, abs(loss - other_loss[at])) for at, loss in points if at in other_loss]
            shown = [(at, distance) for at, distance in apart if distance > 0]  # the axis is a log
            return [at for at, _ in shown], [distance for _, distance in shown]
    return [], []


def _same_curve(run: RunRecord, other: RunRecord) -> bool:
    return (
        run.config_digest == other.config_digest
        and run.dataset.fingerprint == other.dataset.fingerprint
    )


def _styles(runs: Sequence[RunRecord]) -> dict[int, dict[str, Any]]:
    """Return how to draw each run, by id: colour by strategy, dashes by ranks, width by order."""
    ranks = sorted({run.world_size for run in runs})
    labels = _labels(runs)
    if len({run.config.get("seed") for run in runs}) > 1:
        seeds: dict[str, dict[object, None]] = {}
        for label, run in zip(labels, runs, strict=True):
            seeds.setdefault(label, {})[run.config.get("seed")] = None
        many = sum(map(len, seeds.values())) > _MOST_NAMES
        labels = [
            f"{label}, {counted(len(seeds[label]), 'seed')}"
            if many
            else f"{label}, seed {run.config.get('seed')}"
            for label, run in zip(labels, runs, strict=True)
        ]
    labels = [
        label if run.status == "ok" else f"{label} ({run.status})"
        for label, run in zip(labels, runs, strict=True)
    ]
    names = list(dict.fromkeys(labels))
    styles = {}
    for run, label in zip(runs, labels, strict=True):
        layer = names.index(label) / max(1, len(names) - 1)
        styles[id(run)] = {
            "color": strategy_colour(run.strategy),
            "linestyle": _DASHES[ranks.index(run.world_size) % len(_DASHES)],
            "linewidth": 4 - 2.8 * layer,
            "alpha": 0.45 + 0.5 * layer,
            "label": label,
        }
    return styles


def distinguishing_texts(
    settings: Sequence[Mapping[str, Any]], strategies: Sequence[str]
) -> list[str]:
    """Return for each the settings in which not all are alike, as words of a figure.

    The launcher's controller goes with the strategy, and is shown only where one strategy has two.
    """
    controllers: dict[str, set[object]] = {}
    for strategy, chosen in zip(strategies, settings, strict=True):
        controllers.setdefault(strategy, set()).add(chosen.get("controller"))
    shown = [
        {
            name: value
            for name, value in chosen.items()
            if name != "controller" or len(controllers[strategy]) > 1
        }
        for strategy, chosen in zip(strategies, settings, strict=True)
    ]
    return differing_settings(shown, [""] * len(shown))


def bar_names(names: Sequence[str]) -> list[str]:
    """Return names cut into lines that leave a telephone room for the bars beside them."""
    return [textwrap.fill(name, _LABEL_SIGNS, break_long_words=False) for name in names]


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return strategy, ranks and whatever else tells the runs of one data set apart."""
    every = [settings_of(run) | {"graph": graph_mark(run.dataset.fingerprint)} for run in runs]
    settings = distinguishing_texts(every, [run.strategy for run in runs])
    precisions = {run.config.get("precision") for run in runs}
    machines = {machine_kind(run) for run in runs}
    labels = []
    for run, text in zip(runs, settings, strict=True):
        hosts = f" on {len(run.hosts)} hosts" if len(run.hosts) > 1 else ""
        ranks = f"{run.world_size} rank{'s' if run.world_size > 1 else ''}{hosts}"
        parts = [run.strategy if run.strategy == "single" else f"{run.strategy}, {ranks}"]
        parts += [str(run.config.get("precision"))] if len(precisions) > 1 else []
        parts += [text] if text else []
        parts += [machine_kind(run)] if len(machines) > 1 else []
        labels.append(", ".join(parts))
    return labels


def _section_seconds(runs: Sequence[RunRecord]) -> dict[str, float]:
    """Return the mean seconds per epoch of each section; what no section claims is "other"."""
    epochs = [epoch for run in runs for epoch in measured_epochs(run)]
    parts = {
        name: statistics.fmean(epoch.sections.get(name, 0.0) for epoch in epochs)
        for name in _SECTION_COLOURS
    }
    total = statistics.fmean(epoch.seconds for epoch in epochs)
    named = sum(value for name, value in parts.items() if name != "other")
    return {**parts, "other": max(0.0, total - named)}
