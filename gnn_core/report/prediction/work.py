"""Seconds of a training step on more ranks than were measured, and what they rest on.

    strong (one global batch)       step(n) = fixed + (alone - fixed) / n + communicate(n)
    weak (a global batch per rank)  step(n) = alone + communicate(n)

`alone` is what a step takes on 1 rank without communicating. `fixed` is the share of it that ranks
do not divide (halves of a batch share fewer neighbours than the whole), out of measured steps on 1
and 2 ranks. `communicate` is the cost of one allreduce. Not modelled: ranks that wait for the
slowest of them, since a record has no seconds of single steps by rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.report.prediction.allreduce import Cost
from gnn_core.report.rows import (
    Row,
    curve_settings,
    grouped,
    machine_kind,
    row_key,
    row_of,
    settings_text,
)
from gnn_core.usage import UsageError


@dataclass(frozen=True)
class Work:
    """What there is to do in a step, and what doing it took where it was measured."""

    strategy: str
    dataset: str
    machine: str  # in words
    base: Row  # 1 rank: what speed-up and efficiency are measured against
    runs: list[Row]  # of the strategy, fewest ranks first
    fixed_seconds: float | None  # see above; None where it could not be estimated
    message_bytes: int
    global_batch_size: int

    @property
    def measured(self) -> list[Row]:
        """The base, then the runs of several ranks."""
        return [self.base, *(one for one in self.runs if one is not self.base)]

    @property
    def alone_seconds(self) -> float:
        """A step of one rank without what it communicates."""
        return step_of(self.base) - communicate_of(self.base)


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
    measured = [row_of(some) for some in grouped(runs, row_key)]
    own = sorted(
        (one for one in measured if one.strategy == strategy),
        key=lambda one: (one.ranks, len(one.ranks_per_host), step_of(one)),
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
    speedup = step_of(work.base) / step * (num_ranks if weak else 1)
    return Prediction(num_ranks, step, communicate, speedup, speedup / num_ranks)


def efficiency_of(work: Work, measured: Row) -> float:
    """Return the measured speed-up per rank (strong scaling)."""
    return step_of(work.base) / step_of(measured) / measured.ranks


def step_of(row: Row) -> float:
    """Return the seconds of a step, median over epochs, then over runs."""
    assert row.step_seconds is not None  # of a row of `work_in`
    return row.step_seconds.middle


def communicate_of(row: Row) -> float:
    """Return what a step communicated of that, with the wait for slower ranks."""
    return row.step_communicate.middle if row.step_communicate else 0.0


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


def _base(measured: Sequence[Row], strategy: str) -> Row:
    """Return the run of one rank: `single`, as for every speed-up, else the strategy's own."""
    alone = [one for one in measured if one.ranks == 1]
    if not alone:
        raise UsageError(
            f"expected a run of 1 rank, of single or of {strategy}, got none: a prediction begins "
            "with what a step takes alone; run baselines/single.py"
        )
    singles = [one for one in alone if one.strategy == "single"]
    return min(singles or alone, key=step_of)


def _fixed_seconds(base: Row, own: Sequence[Row]) -> float | None:
    """Return what 2 ranks did not divide: S(n) = fixed + (S(1) - fixed) / n, solved at n = 2.

    Ranks that had to share cores would tell of the machine instead.
    """
    pairs = [one for one in own if one.ranks == 2 and not one.crowded]
    if not pairs:
        return None
    alone = step_of(base) - communicate_of(base)
    halved = min(step_of(one) - communicate_of(one) for one in pairs)
    return min(max(0.0, 2 * halved - alone), alone)


def _message_bytes(runs: Sequence[RunRecord], strategy: str) -> int:
    own = [run for run in runs if run.strategy == strategy] or list(runs)
    sizes = {run.allreduce_bytes_per_step for run in own if run.allreduce_bytes_per_step}
    if len(sizes) != 1:
        got = ", ".join(map(str, sorted(sizes))) or "none"
        raise UsageError(f"expected records with one allreduce_bytes_per_step, got {got}")
    return int(sizes.pop())
