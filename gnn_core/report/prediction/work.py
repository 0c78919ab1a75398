"""Seconds of a training step on more ranks than were measured, and what they rest on.

    strong (one global batch)       step(n) = fixed + (alone - fixed) / n + communicate(n)
    weak (a global batch per rank)  step(n) = alone + communicate(n)

`alone` is what a step takes on 1 rank without communicating. `fixed` is the share of it that ranks
do not divide (halves of a batch share fewer neighbours than the whole), out of measured steps on 1
and 2 ranks. `communicate` is the cost of one allreduce. Not modelled: ranks that wait for the
slowest of them, since a record has no seconds of single steps by rank.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gnn_core.measure.run_record import EpochRecord, RunRecord, measured_epochs
from gnn_core.report.prediction.allreduce import Cost
from gnn_core.report.rows import (
    curve_settings,
    grouped,
    machine_kind,
    row_key,
    row_of,
    settings_text,
)
from gnn_core.usage import UsageError


@dataclass(frozen=True)
class Measured:
    """A step as runs of one strategy, placed alike, took it; medians over epochs, then runs."""

    strategy: str
    num_ranks: int
    num_hosts: int
    step_seconds: float
    communicate_seconds: float  # of it; with the wait for slower ranks
    crowded: bool  # more threads than cores


@dataclass(frozen=True)
class Work:
    """What there is to do in a step, and what doing it took where it was measured."""

    strategy: str
    dataset: str
    machine: str  # in words
    base: Measured  # 1 rank: what speed-up and efficiency are measured against
    runs: list[Measured]  # of the strategy, fewest ranks first
    fixed_seconds: float | None  # see above; None where it could not be estimated
    message_bytes: int
    global_batch_size: int

    @property
    def measured(self) -> list[Measured]:
        """The base, then the runs of several ranks."""
        return [self.base, *(one for one in self.runs if one is not self.base)]

    @property
    def alone_seconds(self) -> float:
        """A step of one rank without what it communicates."""
        return self.base.step_seconds - self.base.communicate_seconds


@dataclass(frozen=True)
class Prediction:
    """One number of ranks; nothing here was measured there."""

    num_ranks: int
    step_seconds: float
    communicate_seconds: float
    speedup: float  # T(1) / T(n); weak: n T(1) / T(n)
    efficiency: float  # speed-up per rank


def work_in(records: Sequence[RunRecord], strategy: str, dataset: str | None) -> Work:
    """Return the work of a strategy's runs on one data set, with one set of settings and machine.

    Raises UsageError: there are several of these or none, no run of 1 rank (the strategy's own or
    `single`), no message size or no global batch.
    """
    runs = [run for run in records if run.status == "ok" and measured_epochs(run)]
    runs = [run for run in runs if run.strategy in (strategy, "single")]
    names = sorted({run.dataset.name for run in runs})
    if dataset is None and len(names) > 1:
        raise UsageError(f"expected runs on one data set, got {', '.join(names)}: add --dataset")
    runs = [run for run in runs if dataset in (None, run.dataset.name)]
    if not any(run.strategy == strategy or run.world_size == 1 for run in runs):
        raise UsageError(
            f"expected runs of {strategy} or single that ended well and have an epoch after the "
            f"warm-up{f', on {dataset}' if dataset else ''}, got none: give their records"
        )
    _require_one_kind(runs)
    batch = runs[0].config.get("global_batch_size")
    if not isinstance(batch, int) or batch < 1:
        raise UsageError(f"expected records with a global_batch_size of 1 or more, got {batch!r}")
    measured = [_measured(some) for some in grouped(runs, row_key)]
    own = sorted(
        (one for one in measured if one.strategy == strategy),
        key=lambda one: (one.num_ranks, one.num_hosts, one.step_seconds),
    )
    base = _base(measured, strategy)
    return Work(
        strategy=strategy,
        dataset=runs[0].dataset.name,
        machine=machine_kind(runs[0]),
        base=base,
        runs=own,
        fixed_seconds=_fixed_seconds(base, own),
        message_bytes=_message_bytes(runs, strategy),
        global_batch_size=batch,
    )


def predict(work: Work, cost: Cost, num_ranks: int, *, weak: bool = False) -> Prediction:
    """Return the step on so many ranks; raises ValueError for fewer than 1."""
    alone, fixed = work.alone_seconds, work.fixed_seconds or 0.0
    communicate = float(cost.seconds(num_ranks, work.message_bytes))
    step = (alone if weak else fixed + (alone - fixed) / num_ranks) + communicate
    speedup = work.base.step_seconds / step * (num_ranks if weak else 1)
    return Prediction(num_ranks, step, communicate, speedup, speedup / num_ranks)


def efficiency_of(work: Work, measured: Measured) -> float:
    """Return the measured speed-up per rank (strong scaling)."""
    return work.base.step_seconds / measured.step_seconds / measured.num_ranks


def _require_one_kind(runs: Sequence[RunRecord]) -> None:
    """Raise UsageError unless all runs did the same work on one kind of machine."""
    for what, values in (
        ("kind of machine", {machine_kind(run) for run in runs}),
        ("graph", {str(run.dataset.fingerprint) for run in runs}),
        ("set of settings", {settings_text(curve_settings(run.config)) for run in runs}),
    ):
        if len(values) > 1:
            shown = " and ".join(sorted(values)) if what == "kind of machine" else len(values)
            raise UsageError(f"expected runs of one {what}, got {shown}: give fewer records")


def _measured(runs: Sequence[RunRecord]) -> Measured:
    """Return the step of runs that share a row: median over epochs, then over runs."""

    def over_runs(part: Callable[[EpochRecord], float]) -> float:
        return statistics.median(
            statistics.median(part(one) / _num_steps(run, one) for one in measured_epochs(run))
            for run in runs
        )

    row = row_of(runs)
    step = over_runs(lambda epoch: epoch.seconds)
    talk = over_runs(lambda epoch: epoch.sections.get("communicate", 0.0))
    return Measured(row.strategy, row.ranks, len(row.ranks_per_host), step, talk, row.crowded)


def _num_steps(run: RunRecord, epoch: EpochRecord) -> int:
    return max(1, math.ceil(epoch.num_targets / int(run.config["global_batch_size"])))


def _base(measured: Sequence[Measured], strategy: str) -> Measured:
    """Return the run of one rank: `single`, as for every speed-up, else the strategy's own."""
    alone = [one for one in measured if one.num_ranks == 1]
    if not alone:
        raise UsageError(
            f"expected a run of 1 rank, of single or of {strategy}, got none: a prediction begins "
            "with what a step takes alone; run baselines/single.py"
        )
    singles = [one for one in alone if one.strategy == "single"]
    return min(singles or alone, key=lambda one: one.step_seconds)


def _fixed_seconds(base: Measured, own: Sequence[Measured]) -> float | None:
    """Return what 2 ranks did not divide: S(n) = fixed + (S(1) - fixed) / n, solved at n = 2.

    Ranks that had to share cores would tell of the machine instead.
    """
    pairs = [one for one in own if one.num_ranks == 2 and not one.crowded]
    if not pairs:
        return None
    alone = base.step_seconds - base.communicate_seconds
    halved = min(one.step_seconds - one.communicate_seconds for one in pairs)
    return min(max(0.0, 2 * halved - alone), alone)


def _message_bytes(runs: Sequence[RunRecord], strategy: str) -> int:
    own = [run for run in runs if run.strategy == strategy] or list(runs)
    sizes = {run.allreduce_bytes_per_step for run in own if run.allreduce_bytes_per_step}
    if len(sizes) != 1:
        got = ", ".join(map(str, sorted(sizes))) or "none"
        raise UsageError(f"expected records with one allreduce_bytes_per_step, got {got}")
    return int(sizes.pop())
