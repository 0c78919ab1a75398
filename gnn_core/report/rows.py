"""Run records -> rows: repeated runs share a row, and rows of equal work have speed-ups.

Runs that differ only in their random seed, or in where their files lie, are repetitions. A speed-up
T(1) / T(n), larger is faster, stands only between rows of one data set, one set of loss-relevant
settings (the global batch among them: this is strong scaling) and one kind of machine. There are
two of them: against `single`, which is what distribution has to beat, and against the strategy
itself on one rank, which tells how it scales.
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
from gnn_core.measure.run_record import RunRecord, epoch_seconds, measured_epochs
from gnn_core.measure.timing import per_second
from gnn_core.models import DEFAULT, short_name
from gnn_core.strategies import order_of

ACCURACY_TOLERANCE = 0.01
"""A speed-up that costs more test accuracy than this (one point) is marked."""
TASKS = {"node": "node classification", "link": "link prediction"}
"""Value of `--task` -> its name in a caption."""
TRAINING_LENGTH = ("epochs", "patience", "eval", "eval_every", "eval_fanouts")
# Settings that change neither the seconds of an epoch nor its effect on the model, or that the
# strategy and ranks of a row say. Any other one, also one that is new, tells rows apart: two rows
# too many are seen, two rows too few are not. What metrics and samples cost is far below what
# repeats differ by.
_REPETITIONS = frozenset(
    "dataset seed data_root cache_dir verify records checkpoint_dir checkpoint_every_steps resume "
    "tensorboard metrics_port metrics_textfile trace log_format progress quiet world_size dry_run "
    "sample_seconds start_timeout collective_timeout strategy replicas workers role coordinator "
    "secret_file journal replay".split()
)
_PRODUCT_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}  # flag -> name, best first
_OF_UPDATES = ("staleness", "compress")


@dataclass(frozen=True)
class ReportOptions:
    """The flags of a report; with the defaults only runs of one machine are compared."""

    force: bool = False  # compare runs of different machines
    target: float | None = None  # validation score, a fraction; None: one point below `single`
    price: float | None = None  # of one host for one hour; None: no cost is shown
    currency: str = ""  # of the price, as it is to be written; empty: no unit


@dataclass(frozen=True)
class Spread:
    """A middle value, and how far the runs behind it lie apart."""

    middle: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return median, least and most of the values that are known; None without any."""
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known), len(known)) if known else None

    def scaled(self, factor: float, divisor: float = 1) -> Spread:
        """Return the spread of the values times a factor."""
        middle, low, high = (factor * one / divisor for one in (self.middle, self.low, self.high))
        return Spread(middle, low, high, self.count)

    def over(self, below: Spread) -> Spread:
        """Return self / below: of the medians, and least and most over all pairs of repeats.

        Repeats are not paired in time: each might have met each, and the spread is the widest.
        """
        return Spread(
            self.middle / below.middle,
            self.low / below.high,
            self.high / below.low,
            self.count * below.count,
        )


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
    step_communicate: Spread | None  # of them spent communicating
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


def summarize(records: Iterable[RunRecord], *, force: bool = False) -> tuple[list[Row], list[str]]:
    """Return the rows made from the records, and one note per comparison that was not made.

    `force` compares with a run on another kind of machine when there is none on the same.
    """
    rows = rows_of(records)
    compared = [_compared(row, rows, force) for row in rows]
    return [row for row, _ in compared], list(dict.fromkeys(note for _, note in compared if note))


def rows_of(records: Iterable[RunRecord]) -> list[Row]:
    """Return the rows that the records make up, by data set, machine, strategy and ranks."""
    return [row for row, _ in rows_with_runs(records)]


def rows_with_runs(records: Iterable[RunRecord]) -> list[tuple[Row, list[RunRecord]]]:
    """Return the same rows, each with the runs that share it."""
    pairs = [(row_of(runs), runs) for runs in grouped(records, row_key)]
    return sorted(pairs, key=lambda pair: _order(pair[0]))


def _order(row: Row) -> tuple[Any, ...]:
    strategy = order_of(row.strategy)
    return row.dataset, row.machine, row.precision, strategy, row.ranks, settings_text(row.settings)


def grouped(
    records: Iterable[RunRecord], key: Callable[[RunRecord], Hashable]
) -> list[list[RunRecord]]:
    """Return the records in lists of equal key, in order of first appearance."""
    groups: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return list(groups.values())


def row_key(record: RunRecord) -> Hashable:
    """Return what the runs of one row have in common."""
    dataset = record.dataset
    where = tuple(record.ranks_per_host), machine_kind(record)
    settings = settings_text(settings_of(record))
    return record.strategy, dataset.name, dataset.fingerprint, *where, settings


def row_of(runs: Sequence[RunRecord]) -> Row:
    """Return the row of runs with one `row_key`, compared with nothing yet."""
    first = runs[0]
    good = [run for run in runs if run.status == "ok"]
    cores = first.machine.get("cores_available")
    threads = max(first.ranks_per_host) * (first.config.get("threads") or 1)
    others = [run.machine.get("others_running") for run in runs]
    return Row(
        dataset=first.dataset.name,
        strategy=first.strategy,
        same_curve=first.same_curve,
        ranks=first.world_size,
        ranks_per_host=tuple(first.ranks_per_host),
        precision=str(first.config.get("precision", "?")),
        machine=machine_kind(first),
        settings=settings_of(first),
        crowded=cores is not None and threads > cores,
        runs=len(good),
        failed=sum(run.status == "failed" for run in runs),
        interrupted=sum(run.status == "interrupted" for run in runs),
        seconds=Spread.of(map(epoch_seconds, good)),
        communicate=Spread.of(map(_communicate_share, good)),
        accuracy=accuracy_over_seeds(good),
        score_name=score_name(first),
        fingerprint=first.dataset.fingerprint,
        work=work_of(first),
        targets_per_second=Spread.of(map(targets_per_second, good)),
        step_seconds=Spread.of(step_seconds(run) for run in good),
        step_communicate=Spread.of(step_seconds(run, "communicate") for run in good),
        num_targets=max((epoch.num_targets for run in runs for epoch in run.epochs), default=0),
        cores=cores,
        others_running=int(statistics.median(o if isinstance(o, int) else 0 for o in others)),
    )


def targets_per_second(run: RunRecord) -> float | None:
    """Return the median rate of those epochs; elapsed seconds of the slowest rank, all targets."""
    rates = Spread.of(per_second(one.num_targets, one.seconds) for one in measured_epochs(run))
    return rates.middle if rates else None


def step_seconds(run: RunRecord, section: str | None = None) -> float | None:
    """Return the seconds of an optimiser step, or of a section of it; None when unknown.

    It is the median over those epochs.
    """
    batch = run.config.get("global_batch_size")
    if not isinstance(batch, int) or batch < 1:
        return None
    steps = Spread.of(
        (one.sections.get(section, 0.0) if section else one.seconds)
        / math.ceil(one.num_targets / batch)
        for one in measured_epochs(run)
        if one.num_targets
    )
    return steps.middle if steps else None


def steps_per_epoch(run: RunRecord) -> int | None:
    """Return the optimiser steps of a whole epoch; None when the record does not say."""
    targets, per_step = run.dataset.splits.get("train"), run.config.get("global_batch_size")
    return math.ceil(targets / per_step) if targets and per_step else None


def losses_by_step(run: RunRecord) -> dict[int, float]:
    """Return global step -> loss; a resumed run has only the steps after its checkpoint."""
    losses = run.step_losses or []
    per_epoch, first = steps_per_epoch(run), 0
    if run.resumed_from:
        if per_epoch is None or not run.epochs:
            return {}
        first = (run.epochs[-1].epoch + 1) * per_epoch - len(losses)
    return {step: loss for step, loss in enumerate(losses, start=first) if loss is not None}


def _communicate_share(run: RunRecord) -> float | None:
    epochs = measured_epochs(run)
    total = sum(epoch.seconds for epoch in epochs)
    spent = sum(epoch.sections.get("communicate", 0.0) for epoch in epochs)
    return spent / total if total else None


def accuracy_over_seeds(runs: Iterable[RunRecord]) -> Spread | None:
    """Return mean and standard deviation over seeds of the test score; None when unknown.

    The score is an accuracy, or the mean reciprocal rank where links were predicted. Runs of one
    seed are one observation: repeating it would make the deviation look smaller.
    """
    by_seed: dict[Any, list[float]] = {}
    for run in runs:
        value = run.final.get(f"test_{score_name(run)}")
        if run.status == "ok" and value is not None:
            by_seed.setdefault(run.config.get("seed"), []).append(value)
    if not by_seed:
        return None
    means = [statistics.fmean(values) for values in by_seed.values()]
    middle = statistics.fmean(means)
    deviation = statistics.stdev(means) if len(means) > 1 else 0.0
    return Spread(middle, middle - deviation, middle + deviation, len(means))


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task of a configuration, a key of TASKS."""
    return "link" if config.get("task") == "link" else "node"


def by_task(records: Sequence[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Return the records of each task, node classification first, beside the task's name.

    Scores, targets and seconds of two tasks cannot be compared, so no table and no chart holds
    both. The name is empty where all records are of one task and need no caption.
    """
    parts = [
        (name, [r for r in records if task_of(r.config) == task]) for task, name in TASKS.items()
    ]
    parts = [part for part in parts if part[1]]
    return parts if len(parts) > 1 else [("", runs) for _, runs in parts]


def score_name(run: RunRecord) -> str:
    """Return what the task of a run is judged by: `accuracy`, or `mrr` for link prediction."""
    return "mrr" if task_of(run.config) == "link" else "accuracy"


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


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as one text, equal for equal settings."""
    return json.dumps(settings, sort_keys=True)


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Return the settings that tell rows apart, the launcher's controller among them."""
    chosen = {name: one for name, one in record.config.items() if name not in _REPETITIONS}
    controller = {} if record.controller is None else {"controller": record.controller}
    return _without_newer(chosen) | controller


def _without_newer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the settings that older runs did not have where they are at their defaults."""
    newer = {name: spec.default for name, spec in OPTIONS.items() if spec.newer}
    return {name: one for name, one in settings.items() if name not in newer or one != newer[name]}


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
    own = {n: value for n, value in config.items() if n not in OPTIONS and n not in _REPETITIONS}
    curve = curve_settings(config)
    return {name: value for name, value in curve.items() if name not in _OF_UPDATES} | own


def work_of(record: RunRecord) -> Hashable:
    """Return what runs that do the same work have in common: the graph and those settings."""
    dataset = record.dataset
    return dataset.name, dataset.fingerprint, settings_text(work_settings(record.config))


def same_machine(row: Row, others: Sequence[Row], force: bool) -> tuple[Sequence[Row], str]:
    """Return the rows that may be compared with `row`, and the mark of such a comparison.

    Those of its kind of machine; without any, none, or if forced all of them, marked `?`.
    """
    here = [other for other in others if other.machine == row.machine]
    return (here, "") if here or not force else (others, "?")


def accuracy_mark(row: Row, base: Row) -> str:
    """Return `!` when the test score is unknown or lower than the base's by more than a point."""
    if row is base:
        return ""
    if row.accuracy is None or base.accuracy is None:
        return "!"
    return "!" * (row.accuracy.middle < base.accuracy.middle - ACCURACY_TOLERANCE)


def _compared(row: Row, rows: Sequence[Row], force: bool) -> tuple[Row, str | None]:
    """Return the row with its speed-ups, or with the note that says why it has none."""
    if row.seconds is None or row.seconds.low <= 0:
        return row, None
    alike = [
        other
        for other in rows
        if other.seconds is not None and other.seconds.low > 0 and other.work == row.work
    ]
    settings = settings_text(row.settings)
    alone = [other for other in alike if (other.strategy, other.ranks) == (row.strategy, 1)]
    alone = [other for other in alone if settings_text(other.settings) == settings]
    own, (allowed, mark) = row, same_machine(row, alone, force)
    if allowed:
        over, mark = _times_as_fast(row, allowed[0]), mark + accuracy_mark(row, allowed[0])
        own = dataclasses.replace(row, over_own=over, own_mark=mark)
    singles = [other for other in alike if other.strategy == "single"]
    what = f"{row.strategy} on {row.dataset} at {row.ranks} rank{'s'[: row.ranks > 1]}"
    if not singles:
        return own, f"no speed-up for {what}: no `single` run with the same settings"
    allowed, mark = same_machine(row, singles, force)
    if not allowed:
        return own, (
            f"no speed-up for {what}: its `single` runs are of another machine "
            f"({singles[0].machine}); --force compares them all the same"
        )
    base = _fairest(row, allowed)
    over, mark = _times_as_fast(row, base), mark + accuracy_mark(row, base)
    return dataclasses.replace(own, over_single=over, speedup_mark=mark), None


def _times_as_fast(row: Row, base: Row) -> Spread:
    assert row.seconds is not None and base.seconds is not None  # chosen for having them
    # A run beside itself has no spread.
    return Spread(1.0, 1.0, 1.0, 1) if row is base else base.seconds.over(row.seconds)


def _fairest(row: Row, singles: Sequence[Row]) -> Row:
    """Return what to be compared with: trained as long, if there is such a run, and the fastest.

    A single process with another number of threads is still a single process: a speed-up over the
    slower of two would flatter.
    """

    def length(one: Row) -> str:
        return settings_text({name: one.settings.get(name) for name in TRAINING_LENGTH})

    as_long = [single for single in singles if length(single) == length(row)]
    return min(as_long or singles, key=lambda single: single.seconds.middle)  # type: ignore[union-attr]
