"""How near the loss curves of equal settings lie to the one that a single process draws.

Two runs should draw one curve when the settings that the loss depends on, the seed and the data are
equal; the number of ranks is not among them. The distance is relative, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted
from gnn_core.report.rows import (
    curve_settings,
    grouped,
    losses_by_step,
    score_name,
    settings_text,
    training_settings,
)
from gnn_core.report.table import (
    Column,
    Table,
    differing_settings,
    graph_mark,
    left_out,
    precision_order,
    settings_column,
)
from gnn_core.strategies import order_of

FIRST_STEPS = 10
_MEANING = (
    "distance: how far the training loss of a step is from that of the `single` run of equal "
    "settings, seed and data, as a share of the latter; 0 is equal to the last bit. Points: final "
    "test accuracy less that of `single`"
)


@dataclass(frozen=True)
class Distance:
    """How far one run, or the farthest of several, is from its single-process partner."""

    steps: int  # compared; the fewest of several runs
    largest: float  # of |loss - loss of single| / |loss of single| over all of them
    largest_first: float | None  # the same over the first FIRST_STEPS; None when none is shared
    accuracy: float | None  # final test accuracy less the partner's; None unless trained alike


Line = tuple[list[RunRecord], Distance]


def curves_table(records: Sequence[RunRecord]) -> Table:
    """Return the distance to the `single` run by data set, precision, dropout and ranks.

    Runs of several seeds share a row, which then shows the farthest of them.
    """
    well = [run for run in records if run.status == "ok"]
    finished = [run for run in well if run.same_curve]
    distances: dict[int, Distance] = {}
    compared: list[RunRecord] = []
    alone: list[RunRecord] = []
    for runs in grouped(finished, _curve_key):
        pairs, without = _pairs(runs)
        distances |= {id(run): distance for run, distance in pairs}
        compared += [run for run, _ in pairs]
        alone += without
    groups = sorted(grouped(compared, _row_key), key=lambda runs: _row_key(runs[0]))
    lines = [(runs, _farthest([distances[id(run)] for run in runs])) for runs in groups]
    columns: list[Column[Line]] = [
        Column("dataset", None, lambda line: line[0][0].dataset.name),
        Column("precision", None, lambda line: line[0][0].config.get("precision", "?")),
        Column("dropout", None, lambda line: _dropout(line[0][0].config.get("dropout"))),
        Column("strategy", None, lambda line: line[0][0].strategy),
        Column("ranks", None, lambda line: line[0][0].world_size),
        Column("runs", None, lambda line: len(line[0])),
        Column("steps", "steps", lambda line: line[1].steps),
        Column("largest distance", "largest", lambda line: line[1].largest, _scientific),
        Column(
            f"in first {FIRST_STEPS} steps",
            "largest_first",
            lambda line: line[1].largest_first,
            _scientific,
        ),
        Column("test accuracy, points", "accuracy", lambda line: line[1].accuracy, _points),
        *settings_column(
            lines, lambda line: _other_settings(line[0][0]), lambda line: line[0][0].dataset.name
        ),
    ]
    others = dict.fromkeys(run.strategy for run in well if not run.same_curve)
    own_curve = [f"not compared: `{name}` trains on a loss curve of its own" for name in others]
    notes = (_MEANING, *_notes(finished, alone), *own_curve, *left_out(records))
    return Table.of(lines, columns, notes)


def _pairs(runs: Sequence[RunRecord]) -> tuple[list[tuple[RunRecord, Distance]], list[RunRecord]]:
    """Return the runs of one curve that have a partner, with their distance, and those without."""
    singles = [run for run in runs if run.strategy == "single" and run.step_losses]
    if not singles:
        return [], list(runs)
    pairs: list[tuple[RunRecord, Distance]] = []
    alone = []
    for run in runs:
        partners = [single for single in singles if single is not run]
        if run is singles[0] or not partners:
            continue
        distance = _distance(run, max(partners, key=lambda single: _fitness(run, single)))
        if distance is None:
            alone.append(run)
        else:
            pairs.append((run, distance))
    return pairs, alone if pairs else [singles[0], *alone]


def _fitness(run: RunRecord, single: RunRecord) -> tuple[bool, int]:
    return _trained_alike(run, single), len(single.step_losses or ())


def _distance(run: RunRecord, partner: RunRecord) -> Distance | None:
    losses, others = losses_by_step(run), losses_by_step(partner)
    apart = {step: _relative(loss, others[step]) for step, loss in losses.items() if step in others}
    if not apart:
        return None
    first = [value for step, value in apart.items() if step < FIRST_STEPS]
    accuracy, other = (one.final.get(f"test_{score_name(one)}") for one in (run, partner))
    difference = None
    if accuracy is not None and other is not None and _trained_alike(run, partner):
        difference = accuracy - other
    return Distance(len(apart), max(apart.values()), max(first, default=None), difference)


def _relative(loss: float, other: float) -> float:
    return abs(loss - other) / abs(other) if other else float(loss != other)


def _trained_alike(run: RunRecord, other: RunRecord) -> bool:
    return training_settings(run.config) == training_settings(other.config)


def _farthest(distances: Sequence[Distance]) -> Distance:
    first = [one.largest_first for one in distances if one.largest_first is not None]
    accuracy = [one.accuracy for one in distances if one.accuracy is not None]
    return Distance(
        steps=min(one.steps for one in distances),
        largest=max(one.largest for one in distances),
        largest_first=max(first, default=None),
        accuracy=max(accuracy, key=abs, default=None),
    )


def _curve_key(run: RunRecord) -> tuple[Any, ...]:
    """Return what the runs that should draw one curve have in common."""
    chosen: dict[str, Any] = {**curve_settings(run.config), "seed": run.config.get("seed")}
    if chosen.get("lr_schedule") == "cosine":  # then each rate depends on how long it goes on
        chosen["epochs"] = run.config.get("epochs")
    if chosen.get("scale_lr"):  # then it also depends on the ranks
        chosen["ranks"] = run.world_size
    return run.dataset.name, run.dataset.fingerprint, settings_text(chosen)


def _row_key(run: RunRecord) -> tuple[Any, ...]:
    return (
        run.dataset.name,
        precision_order(run.config.get("precision")),
        float(run.config.get("dropout") or 0),
        settings_text(_other_settings(run)),
        order_of(run.strategy),
        run.world_size,
    )


def _other_settings(run: RunRecord) -> dict[str, Any]:
    """Return the settings of the curve that have no column of their own."""
    own = ("precision", "dropout")
    chosen = curve_settings(run.config)
    return {
        **{name: value for name, value in chosen.items() if name not in own},
        "graph": graph_mark(run.dataset.fingerprint),
    }


def _dropout(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


def _points(accuracy: float | None) -> str:
    return NOTHING if accuracy is None else f"{100 * accuracy:+.2f}" if accuracy else "0.00"


def _scientific(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1e}" if value else "0"


def _notes(finished: Sequence[RunRecord], alone: Sequence[RunRecord]) -> list[str]:
    """Return what runs could not be compared with, and which; seeds of one setting together."""
    differing = differing_settings(
        [curve_settings(run.config) for run in finished], [run.dataset.name for run in finished]
    )
    texts = {id(run): text for run, text in zip(finished, differing, strict=True)}
    missing: dict[str, dict[str, list[str]]] = {}
    for run in alone:
        partner = "another run" if run.strategy == "single" else "a `single` run"
        parts = [f"{run.strategy} on {run.dataset.name}", counted(run.world_size, "rank")]
        parts += [str(run.config.get("precision")), texts[id(run)]]
        named = ", ".join(filter(None, parts))
        seeds = missing.setdefault(partner, {}).setdefault(named, [])
        seeds.append(str(run.config.get("seed")))
    return [
        f"not compared, for want of {partner} of equal settings, seed and data: "
        + "; ".join(
            f"{named} (seed{'s'[: len(seeds) > 1]} {', '.join(seeds)})"
            for named, seeds in runs.items()
        )
        for partner, runs in missing.items()
    ]
