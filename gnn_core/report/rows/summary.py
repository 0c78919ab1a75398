"""Run records -> rows: repeated runs share a row.

Runs that differ only in their random seed, or in where their files lie, are repetitions and share a
row. `speedups` compares rows with each other.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.config import OPTIONS
from gnn_core.measure.run_record import RunRecord, epoch_seconds, measured_epochs
from gnn_core.measure.timing import per_second
from gnn_core.models import DEFAULT, short_name
from gnn_core.report.rows.scores import Spread, accuracy_over_seeds, score_name
from gnn_core.strategies import order_of

ACCURACY_TOLERANCE = 0.01
"""A speed-up that costs more test accuracy than this (one point) is marked."""

# Settings that change neither the seconds of an epoch nor its effect on the model. Any other one,
# also one that is new, tells rows apart: two rows too many are seen, two rows too few are not.
_REPETITIONS = {
    "dataset",
    "seed",
    "data_root",
    "cache_dir",
    "verify",
    "records",
    "checkpoint_dir",
    "checkpoint_every_steps",
    "resume",
    "tensorboard",
    "metrics_port",  # what they cost is far below what repeats differ by
    "metrics_textfile",
    "log_format",
    "progress",
    "quiet",
    "world_size",
    "dry_run",
    "sample_seconds",  # the cost is in the record, and far below what repeats differ by
    "start_timeout",
    "collective_timeout",
    "strategy",
    "replicas",
    "workers",  # the row's strategy and ranks say it
    "role",
    "coordinator",
    "secret_file",
    "journal",
    "replay",
}
_PRODUCT_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}  # flag -> name, best first
_OF_UPDATES = ("staleness", "compress")
TRAINING_LENGTH = ("epochs", "patience", "eval", "eval_every", "eval_fanouts")


@dataclass(frozen=True)
class Row:
    """All runs of one strategy at one number of ranks with one set of settings."""

    dataset: str
    strategy: str
    same_curve: bool  # its loss curve is that of one process
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
    communicate: Spread | None  # share of the seconds of the epochs; over runs as `seconds`
    accuracy: Spread | None  # test: mean over seeds, -/+ the standard deviation; count of seeds
    score_name: str  # what `accuracy` is: that, or `mrr`
    fingerprint: str | None
    work: Hashable  # equal for rows that do the same work: data, loss-relevant settings
    targets_per_second: Spread | None  # over all ranks, while training; over runs as `seconds`
    step_seconds: Spread | None  # of an optimiser step; over runs as `seconds`
    num_targets: int  # of an epoch, over all ranks; 0 when unknown
    cores: int | None  # that a host has for the run
    others_running: int  # processes of other programs that used a core as a run began; median
    over_single: Spread | None = None  # T(1) / T(n), T(1) of `single`; least, most over repeats
    speedup_mark: str = ""  # "!": accuracy missing or worse; "?": another machine
    over_own: Spread | None = None  # the same, T(1) of the strategy itself on 1 rank
    own_mark: str = ""

    @property
    def communicate_share(self) -> float | None:
        """Share of the seconds of an epoch that went on communication: median over runs."""
        return None if self.communicate is None else self.communicate.middle

    @property
    def speedup(self) -> float | None:
        """T(1) / T(n) against `single`: larger is faster."""
        return None if self.over_single is None else self.over_single.middle

    @property
    def efficiency(self) -> float | None:
        """Speed-up per rank; 1 when n ranks are n times as fast."""
        return None if self.speedup is None else self.speedup / self.ranks

    @property
    def own_efficiency(self) -> float | None:
        """The same of the speed-up over the strategy itself."""
        return None if self.over_own is None else self.over_own.middle / self.ranks


def rows_of(records: Iterable[RunRecord]) -> list[Row]:
    """Return the rows that the records make up, by data set, machine, strategy and ranks."""
    return [row for row, _ in rows_with_runs(records)]


def rows_with_runs(records: Iterable[RunRecord]) -> list[tuple[Row, list[RunRecord]]]:
    """Return the same rows, each with the runs that share it."""
    pairs = [(row_of(runs), runs) for runs in grouped(records, row_key)]
    return sorted(pairs, key=lambda pair: _order(pair[0]))


def grouped(
    records: Iterable[RunRecord], key: Callable[[RunRecord], Hashable]
) -> list[list[RunRecord]]:
    """Return the records in lists of equal key, in order of first appearance."""
    groups: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return list(groups.values())


def machine_kind(record: RunRecord) -> str:
    """Return what makes two machines comparable, in words: CPU, cores, memory, GPUs."""
    return machine_words(record.machine)


def machine_words(facts: Mapping[str, Any]) -> str:
    """Return the same of a machine's facts, as `gnn_core.measure.machine.hardware` reports them.

    Two hosts of one model name may differ severalfold in matrix products: the unit is named.
    """
    memory, flags = facts.get("memory_bytes"), facts.get("cpu_flags") or ()
    units = [name for flag, name in _PRODUCT_UNITS.items() if flag in flags]
    parts = [
        str(facts.get("cpu_model") or "unknown CPU") + (f" with {units[0]}" if units else ""),
        f"{facts.get('cores_available') or '?'} cores",
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else "? GiB",
        *(str(name) for name in facts.get("gpus") or ()),
    ]
    return ", ".join(parts)


def own_model(config: Mapping[str, Any]) -> str | None:
    """Return the name of a model that is not the default, which records without `model` have."""
    name = config.get("model", DEFAULT)
    return None if name == DEFAULT else short_name(str(name))


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Return the settings that tell rows apart, the launcher's controller among them."""
    chosen = _without_newer(
        {name: value for name, value in record.config.items() if name not in _REPETITIONS}
    )
    return chosen if record.controller is None else {**chosen, "controller": record.controller}


def curve_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the loss curve depends on, without the seed and the data set.

    The data set is told by name and fingerprint: its path differs between machines. Records from
    before there was a setting trained as at its default.
    """
    chosen = {name: value for name, value in config.items() if name in OPTIONS}
    if "model" in chosen:
        chosen["model"] = short_name(str(chosen["model"]))
    return {
        name: value
        for name, value in _without_newer(chosen).items()
        if OPTIONS[name].curve and name not in ("seed", "dataset")
    }


def _without_newer(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out the settings that older runs did not have where they are at their defaults."""
    newer = {name: spec.default for name, spec in OPTIONS.items() if spec.newer}
    return {
        name: value for name, value in settings.items() if name not in newer or value != newer[name]
    }


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a test accuracy depends on, without the seed and the data set.

    A setting that no trainer has belongs to a program with its own models, and counts too.
    """
    length = {name: config[name] for name in TRAINING_LENGTH if name in config}
    return {**work_settings(config), **length}


def work_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that tell one work from another, however long it goes on.

    A parameter server that works on stale or compressed gradients does the same work, if on another
    loss curve: how good it gets stands beside how fast it is.
    """
    known = {*OPTIONS, *_REPETITIONS}
    own = {name: value for name, value in config.items() if name not in known}
    curve = curve_settings(config)
    return {name: value for name, value in curve.items() if name not in _OF_UPDATES} | own


def work_of(record: RunRecord) -> Hashable:
    """Return what runs that do the same work have in common: the graph and those settings."""
    dataset = record.dataset
    return dataset.name, dataset.fingerprint, settings_text(work_settings(record.config))


def steps_per_epoch(run: RunRecord) -> int | None:
    """Return the optimiser steps of a whole epoch; None when the record does not say."""
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
        settings_text(settings_of(record)),
    )


def row_of(runs: Sequence[RunRecord]) -> Row:
    """Return the row of runs with one `row_key`, compared with nothing yet."""
    first = runs[0]
    good = [run for run in runs if run.status == "ok"]
    return Row(
        dataset=first.dataset.name,
        strategy=first.strategy,
        same_curve=first.same_curve,
        ranks=first.world_size,
        ranks_per_host=tuple(first.ranks_per_host),
        precision=str(first.config.get("precision", "?")),
        machine=machine_kind(first),
        settings=settings_of(first),
        crowded=_crowded(first),
        runs=len(good),
        failed=sum(run.status == "failed" for run in runs),
        interrupted=sum(run.status == "interrupted" for run in runs),
        seconds=over_runs(good, epoch_seconds),
        communicate=over_runs(good, _communicate_share),
        accuracy=accuracy_over_seeds(good),
        score_name=score_name(first),
        fingerprint=first.dataset.fingerprint,
        work=work_of(first),
        targets_per_second=over_runs(good, targets_per_second),
        step_seconds=over_runs(good, step_seconds),
        num_targets=max((epoch.num_targets for run in runs for epoch in run.epochs), default=0),
        cores=first.machine.get("cores_available"),
        others_running=_others_running(runs),
    )


def _others_running(runs: Sequence[RunRecord]) -> int:
    counts = [run.machine.get("others_running") for run in runs]
    return int(statistics.median(one if isinstance(one, int) else 0 for one in counts))


def _crowded(record: RunRecord) -> bool:
    cores = record.machine.get("cores_available")
    threads = record.config.get("threads") or 1
    return cores is not None and max(record.ranks_per_host) * threads > cores


def targets_per_second(run: RunRecord) -> float | None:
    """Return the median rate of those epochs; elapsed seconds of the slowest rank, all targets."""
    rates = [per_second(epoch.num_targets, epoch.seconds) for epoch in measured_epochs(run)]
    known = [rate for rate in rates if rate is not None]
    return statistics.median(known) if known else None


def step_seconds(run: RunRecord) -> float | None:
    """Return the seconds of an optimiser step, median over those epochs; None when unknown."""
    batch = run.config.get("global_batch_size")
    if not isinstance(batch, int) or batch < 1:
        return None
    steps = [
        epoch.seconds / math.ceil(epoch.num_targets / batch)
        for epoch in measured_epochs(run)
        if epoch.num_targets
    ]
    return statistics.median(steps) if steps else None


def _communicate_share(run: RunRecord) -> float | None:
    epochs = measured_epochs(run)
    total = sum(epoch.seconds for epoch in epochs)
    spent = sum(epoch.sections.get("communicate", 0.0) for epoch in epochs)
    return spent / total if total else None


def over_runs(
    runs: Iterable[RunRecord], measure: Callable[[RunRecord], float | None]
) -> Spread | None:
    """Return median, least and most of a measure over the runs that have it; None without any."""
    values = [value for value in map(measure, runs) if value is not None]
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def _order(row: Row) -> tuple[Any, ...]:
    strategy = order_of(row.strategy)
    return row.dataset, row.machine, row.precision, strategy, row.ranks, settings_text(row.settings)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as one text, equal for equal settings."""
    return json.dumps(settings, sort_keys=True)
