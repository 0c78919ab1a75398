"""Work and probes -> measured rows beside predicted ones, and the table of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gnn_core.number_text import NOTHING, counted, percent, three_digits
from gnn_core.report.prediction.allreduce import Fit, fit
from gnn_core.report.prediction.probe_files import ProbeFile
from gnn_core.report.prediction.work import (
    Prediction,
    Work,
    communicate_of,
    efficiency_of,
    predict,
    step_of,
)
from gnn_core.report.table import Column, Table
from gnn_core.usage import UsageError

RANKS = (8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Fits:
    """The allreduce's cost as the probe's median and its lower and upper quartile have it."""

    median: Fit
    lower: Fit
    upper: Fit


@dataclass(frozen=True)
class ForecastPoint:
    """What is computed for one number of ranks."""

    predicted: Prediction
    low: float  # efficiency, with the quartiles of the probe instead of its median
    high: float


@dataclass(frozen=True)
class Outlook:
    """What was measured and what is predicted, for the table and the figure."""

    work: Work
    fits: Fits
    weak: bool
    points: list[ForecastPoint]  # by number of ranks


@dataclass(frozen=True)
class _Line:
    """One row of the table."""

    kind: str
    strategy: str
    ranks: int
    hosts: int | None
    step: float  # seconds
    communicate: float  # of them
    efficiency: float
    speedup: float
    point: ForecastPoint | None = None  # of what is predicted


def fit_probes(probes: Sequence[ProbeFile]) -> Fits:
    """Return the fits to all probes; raises UsageError if nothing can be fitted."""
    found = [file.probe for file in probes]
    ranks = np.repeat([one.num_ranks for one in found], [len(one.message_bytes) for one in found])
    sizes = np.concatenate([one.message_bytes for one in found])
    times = ("median_seconds", "lower_quartile_seconds", "upper_quartile_seconds")
    try:
        return Fits(
            *(fit(ranks, sizes, np.concatenate([getattr(one, t) for one in found])) for t in times)
        )
    except ValueError as problem:
        raise UsageError(f"the probe: {problem}; measure it anew") from None


def outlook(work: Work, fits: Fits, *, weak: bool = False) -> Outlook:
    """Return predictions for RANKS and, to be judged by, for the measured numbers of ranks.

    With one global batch, as many ranks as would leave one without a target are left out.
    """
    counts = set(RANKS)
    if not weak:
        counts |= {one.ranks for one in work.runs if one.ranks > 1}
        counts = {ranks for ranks in counts if ranks <= work.global_batch_size}
    points = []
    for ranks in sorted(counts):
        predicted, *band = (
            predict(work, one.cost, ranks, weak=weak)
            for one in (fits.median, fits.lower, fits.upper)
        )
        reach = [one.efficiency for one in (predicted, *band)]
        points.append(ForecastPoint(predicted, min(reach), max(reach)))
    return Outlook(work, fits, weak, points)


def scaling_table(view: Outlook, probes: Sequence[ProbeFile]) -> Table:
    """Return measured rows, then predicted ones; below them, what the latter rest on."""
    columns: list[Column[_Line]] = [
        Column("what", "kind", lambda line: line.kind),
        Column("strategy", "strategy", lambda line: line.strategy),
        Column("ranks", "ranks", lambda line: line.ranks),
        Column("hosts", "hosts", lambda line: line.hosts, lambda hosts: str(hosts or NOTHING)),
        Column("step ms", "step_seconds", lambda line: line.step, lambda s: three_digits(1000 * s)),
        Column("of it communicate", None, lambda line: percent(line.communicate / line.step)),
        Column(None, "communicate_seconds", lambda line: line.communicate),
        Column("speed-up", "speedup", lambda line: line.speedup, three_digits),
        Column("efficiency", "efficiency", lambda line: line.efficiency, _share),
        Column("quartiles", None, _quartiles),
        Column(None, "efficiency_low", lambda line: line.point and line.point.low),
        Column(None, "efficiency_high", lambda line: line.point and line.point.high),
    ]
    notes = (*_meaning(view), *_constants(view), *_gaps(view), *_origin(view, probes))
    return Table.of(_lines(view), columns, notes)


def _lines(view: Outlook) -> Iterator[_Line]:
    for one in () if view.weak else view.work.measured:
        share = efficiency_of(view.work, one)
        kind = "measured, crowded" if one.crowded else "measured"
        seconds = step_of(one), communicate_of(one)
        name, ranks, hosts = one.strategy, one.ranks, len(one.ranks_per_host)
        yield _Line(kind, name, ranks, hosts, *seconds, share, share * ranks)
    for point in view.points:
        made = point.predicted
        seconds = made.step_seconds, made.communicate_seconds
        name, ranks = view.work.strategy, made.num_ranks
        yield _Line("PREDICTED", name, ranks, None, *seconds, made.efficiency, made.speedup, point)


def _quartiles(line: _Line) -> str:
    point = line.point
    return NOTHING if point is None else f"{_share(point.low)} .. {_share(point.high)}"


def _share(value: float) -> str:
    """Return an efficiency in percent with three digits that count: small ones are no 0 %."""
    return f"{three_digits(100 * value)} %"


def _meaning(view: Outlook) -> Iterator[str]:
    base = view.work.base
    grown = "n T(1) / T(n), a global batch for each rank" if view.weak else "T(1) / T(n)"
    yield (
        "rows of PREDICTED are a PREDICTION: computed from a step on 1 rank and a fitted "
        "allreduce, not measured"
    )
    yield (
        f"speed-up: {grown}; T(1): `{base.strategy}` on 1 rank, "
        f"{three_digits(1000 * step_of(base))} ms a step; efficiency: speed-up / ranks"
    )
    yield "quartiles: with those of the probe in place of its median"


def _constants(view: Outlook) -> Iterator[str]:
    fitted = view.fits.median
    cost, worst = fitted.cost, fitted.residuals[np.argmax(np.abs(fitted.residuals))]
    beta = f"{1e9 * cost.beta_seconds_per_byte:.3g} ns a byte"
    if cost.beta_seconds_per_byte:
        beta += f" ({1e-6 / cost.beta_seconds_per_byte:.3g} MB/s)"
    yield (
        f"allreduce of a ring: fixed part {three_digits(1000 * cost.fixed_seconds)} ms, alpha "
        f"{three_digits(1e6 * cost.alpha_seconds)} us, beta {beta}; error of the fit: "
        f"{_share(fitted.mean_residual)} in the mean square, {_share(worst)} at most"
    )
    if not fitted.fixed_is_apart:
        yield (
            "the fixed part cannot be told from alpha, and is predicted to grow with the ranks as "
            "alpha does: add a probe of 1 rank"
        )


def _gaps(view: Outlook) -> Iterator[str]:
    work = view.work
    if view.weak:
        yield "the records have one global batch: there is no measured weak scaling among them"
    elif work.fixed_seconds is None:
        yield "a step is taken to divide evenly: no run of 2 ranks on cores of their own tells"
    else:
        yield (
            f"of a step {three_digits(1000 * work.fixed_seconds)} ms do not divide: from the "
            "measured runs on 1 and 2 ranks, with what 2 ranks on one machine cost each other"
        )
    if not view.weak and work.global_batch_size < max(RANKS):
        yield f"left out: more ranks than the {work.global_batch_size} targets of a step"
    yield (
        "not modelled: ranks that wait for the slowest of them (records have no seconds of single "
        "steps by rank), and links that several ranks share"
    )
    if not view.weak and any(one.crowded for one in work.measured):
        yield "crowded: more threads than cores, whose time means nothing"


def _origin(view: Outlook, probes: Sequence[ProbeFile]) -> Iterator[str]:
    placed = [
        f"{counted(file.probe.num_ranks, 'rank')} on {counted(len(file.probe.hosts), 'host')}"
        for file in probes
    ]
    yield f"an allreduce of {view.work.message_bytes} bytes a step; probes: {', '.join(placed)}"
    if max(len(file.probe.hosts) for file in probes) == 1:
        yield (
            "the probe's ranks shared a host: it says nothing of a network, and the prediction "
            "holds for one that is as fast as the memory between them"
        )
    if any((file.load_average or 0) > 0.5 for file in probes):
        yield "other programs ran beside the probe: its times are those that they left it"
    machines = dict.fromkeys([view.work.machine, *(file.machine for file in probes)])
    if len(machines) > 1:
        yield f"probe and records are of different machines: {' and '.join(machines)}"
    yield f"machine: {view.work.machine}"
