"""Run records -> rows: what was repeated is joined, and each row finds what it is compared with.

Runs that differ only in their random seed, or in where their files lie, are repetitions and share a
row. A speed-up is T(1) / T(n), larger is faster, and stands only between runs of one data set, one
set of loss-relevant settings and one kind of machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.config import OPTIONS
from gnn_core.report.schema import STRATEGIES, EpochRecord, RunRecord
from gnn_core.report.scores import Spread, accuracy_over_seeds, score_name

ACCURACY_TOLERANCE = 0.01
"""A speed-up that costs more test accuracy than this (one point) is marked."""

# Settings that change neither the seconds of an epoch nor what is learnt in it. Any other setting,
# also one that is new, tells rows apart: two rows too many are seen, two rows too few are not.
_REPETITIONS = {
    "dataset", "seed", "data_root", "cache_dir", "verify", "records", "checkpoint_dir",
    "checkpoint_every_steps", "resume", "tensorboard", "progress", "world_size", "dry_run",
    "strategy", "replicas", "start_timeout",  # the row's strategy and ranks say it
}  # fmt: skip
_TRAINING_LENGTH = ("epochs", "patience", "eval", "eval_every", "eval_fanouts")


@dataclass(frozen=True)
class Row:
    """All runs of one strategy at one number of ranks with one set of settings."""

    dataset: str
    strategy: str
    ranks: int
    ranks_per_host: tuple[int, ...]
    precision: str
    machine: str  # kind of machine, in words
    settings: dict[str, Any]  # config without what only repeats
    crowded: bool  # more threads than cores on some host
    runs: int  # that ended well
    failed: int
    interrupted: int
    seconds: Spread | None  # per epoch: median over epochs, then median, min, max over runs
    communicate_share: float | None  # of an epoch's seconds
    accuracy: Spread | None  # test: mean over seeds, -/+ the standard deviation; count of seeds
    score_name: str  # what `accuracy` is: that, or `mrr`
    fingerprint: str | None
    speedup: float | None = None
    speedup_mark: str = ""  # "!": accuracy missing or worse; "?": another machine

    @property
    def efficiency(self) -> float | None:
        """Speed-up per rank; 1 when n ranks are n times as fast."""
        return None if self.speedup is None else self.speedup / self.ranks


def summarize(records: Iterable[RunRecord], *, force: bool = False) -> tuple[list[Row], list[str]]:
    """Return the rows made from the records, and one note per comparison that was not made.

    `force` compares with a run on another kind of machine when there is none on the same.
    """
    groups = grouped(records, row_key)
    rows = sorted((row_of(runs) for runs in groups), key=_order)
    compared = [_compared(row, rows, force) for row in rows]
    notes = list(dict.fromkeys(note for _, note in compared if note))
    return [row for row, _ in compared], notes


def grouped(
    records: Iterable[RunRecord], key: Callable[[RunRecord], Hashable]
) -> list[list[RunRecord]]:
    """Return the records in lists of equal key, in order of first appearance."""
    groups: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return list(groups.values())


def machine_kind(record: RunRecord) -> str:
    """Return what makes two machines comparable, in words: model, cores, memory, GPUs."""
    return machine_words(record.machine)


def machine_words(facts: Mapping[str, Any]) -> str:
    """Return the same of a machine's facts, as `gnn_core.report.machine.hardware` tells them."""
    memory = facts.get("memory_bytes")
    parts = [
        str(facts.get("cpu_model") or "unknown CPU"),
        f"{facts.get('cores_available') or '?'} cores",
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else "? GiB",
        *(str(name) for name in facts.get("gpus") or ()),
    ]
    return ", ".join(parts)


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Return the settings that tell rows apart, the launcher's controller among them."""
    chosen = {name: value for name, value in record.config.items() if name not in _REPETITIONS}
    return chosen if record.controller is None else {**chosen, "controller": record.controller}


def curve_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the loss curve depends on, without the seed and the data set.

    The data set is told by name and fingerprint: its path differs between machines.
    """
    chosen = {name: value for name, value in config.items() if name in OPTIONS}
    return {
        name: value
        for name, value in chosen.items()
        if OPTIONS[name].curve and name not in ("seed", "dataset")
    }


def learnt_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a test accuracy depends on, without the seed and the data set.

    A setting that no trainer has belongs to a program with its own models, and counts too.
    """
    length = {name: config[name] for name in _TRAINING_LENGTH if name in config}
    known = {*OPTIONS, *_REPETITIONS}
    own = {name: value for name, value in config.items() if name not in known}
    return {**curve_settings(config), **length, **own}


def measured_epochs(run: RunRecord) -> list[EpochRecord]:
    """Return the epochs of a run that are not warm-up."""
    return [epoch for epoch in run.epochs if not epoch.warm_up]


def steps_per_epoch(run: RunRecord) -> int | None:
    """Return the optimiser steps of a whole epoch; None when the record does not tell."""
    targets, per_step = run.dataset.splits.get("train"), run.config.get("global_batch_size")
    return math.ceil(targets / per_step) if targets and per_step else None


def row_key(record: RunRecord) -> Hashable:
    """Return what the runs of one row have in common."""
    return (
        record.strategy,
        record.dataset.name,
        record.dataset.fingerprint,
        tuple(record.ranks_per_host),
        machine_kind(record),
        _text(settings_of(record)),
    )


def row_of(runs: Sequence[RunRecord]) -> Row:
    """Return the row of runs with one `row_key`, compared with nothing yet."""
    first = runs[0]
    good = [run for run in runs if run.status == "ok"]
    return Row(
        dataset=first.dataset.name,
        strategy=first.strategy,
        ranks=first.world_size,
        ranks_per_host=tuple(first.ranks_per_host),
        precision=str(first.config.get("precision", "?")),
        machine=machine_kind(first),
        settings=settings_of(first),
        crowded=_crowded(first),
        runs=len(good),
        failed=sum(run.status == "failed" for run in runs),
        interrupted=sum(run.status == "interrupted" for run in runs),
        seconds=_over_runs(good, epoch_seconds),
        communicate_share=_middle(_over_runs(good, _communicate_share)),
        accuracy=accuracy_over_seeds(good),
        score_name=score_name(first),
        fingerprint=first.dataset.fingerprint,
    )


def _crowded(record: RunRecord) -> bool:
    cores = record.machine.get("cores_available")
    threads = record.config.get("threads") or 1
    return cores is not None and max(record.ranks_per_host) * threads > cores


def epoch_seconds(run: RunRecord) -> float | None:
    """Return the median seconds of the epochs of a run that are not warm-up; None without any."""
    seconds = [epoch.seconds for epoch in measured_epochs(run)]
    return statistics.median(seconds) if seconds else None


def _communicate_share(run: RunRecord) -> float | None:
    epochs = measured_epochs(run)
    total = sum(epoch.seconds for epoch in epochs)
    spent = sum(epoch.sections.get("communicate", 0.0) for epoch in epochs)
    return spent / total if total else None


def _over_runs(
    runs: Iterable[RunRecord], measure: Callable[[RunRecord], float | None]
) -> Spread | None:
    values = [value for value in map(measure, runs) if value is not None]
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def _middle(spread: Spread | None) -> float | None:
    return None if spread is None else spread.middle


def _compared(row: Row, rows: Sequence[Row], force: bool) -> tuple[Row, str | None]:
    """Return the row with its speed-up, or with the note that says why it has none."""
    if row.seconds is None or row.seconds.middle <= 0:
        return row, None
    what = f"{row.strategy} on {row.dataset} at {row.ranks} rank{'s'[: row.ranks > 1]}"
    everywhere = [
        other
        for other in rows
        if other.strategy == "single" and other.seconds is not None and _same_work(row, other)
    ]
    here = [other for other in everywhere if other.machine == row.machine]
    if not everywhere:
        return row, f"no speed-up for {what}: no `single` run with the same settings"
    if not here and not force:
        return row, (
            f"no speed-up for {what}: its `single` runs are of another machine "
            f"({everywhere[0].machine}); --force compares them all the same"
        )
    base = _fairest(row, here or everywhere)
    assert base.seconds is not None  # chosen for having seconds
    speedup = base.seconds.middle / row.seconds.middle
    mark = "" if here else "?"
    if row is not base and not _as_accurate(row, base):
        mark += "!"
    return dataclasses.replace(row, speedup=speedup, speedup_mark=mark), None


def _same_work(row: Row, other: Row) -> bool:
    return (
        (row.dataset, row.fingerprint) == (other.dataset, other.fingerprint)
        and _text(curve_settings(row.settings)) == _text(curve_settings(other.settings))
    )  # fmt: skip


def _fairest(row: Row, singles: Sequence[Row]) -> Row:
    """Return what to be compared with: trained as long, if there is such a run, and the fastest.

    A single process with another number of threads is still a single process: a speed-up over the
    slower of two would flatter.
    """

    def length(one: Row) -> str:
        return _text({name: one.settings.get(name) for name in _TRAINING_LENGTH})

    as_long = [single for single in singles if length(single) == length(row)]
    return min(as_long or singles, key=lambda single: single.seconds.middle)  # type: ignore[union-attr]


def _as_accurate(row: Row, base: Row) -> bool:
    if row.accuracy is None or base.accuracy is None:
        return False
    return row.accuracy.middle >= base.accuracy.middle - ACCURACY_TOLERANCE


def _order(row: Row) -> tuple[Any, ...]:
    strategy = STRATEGIES.index(row.strategy)
    return row.dataset, row.machine, row.precision, strategy, row.ranks, _text(row.settings)


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
