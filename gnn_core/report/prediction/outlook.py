"""Work and probes -> measured rows beside predicted ones, and the table of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gnn_core.number_text import NOTHING, counted, percent, three_digits
from gnn_core.report.prediction.allreduce import ALGORITHMS, Fit, can_choose, fit
from gnn_core.report.prediction.probe_files import ProbeFile
from gnn_core.report.prediction.work import Measured, Prediction, Work, efficiency_of, predict
from gnn_core.report.tables.cells import Table
from gnn_core.usage import UsageError

RANKS = (8, 16, 32, 64, 128, 256, 512)
_NAMES = {"ring": "ring", "halving": "recursive halving and doubling"}
_HEADINGS = (
    "what",
    "strategy",
    "ranks",
    "hosts",
    "step ms",
    "of it communicate",
    "speed-up",
    "efficiency",
    "quartiles",
    "other algorithm",
)
_COLUMNS = [
    "kind",
    "strategy",
    "ranks",
    "hosts",
    "step_seconds",
    "communicate_seconds",
    "speedup",
    "efficiency",
    "efficiency_low",
    "efficiency_high",
    "efficiency_other",
]
ForecastRow = tuple[
    str, str, int, int | None, float, float, float, float, float | None, float | None, float | None
]


@dataclass(frozen=True)
class Fits:
    """The allreduce's cost as the probe's median and quartiles have it, by the chosen algorithm."""

    chosen: Fit
    band: tuple[Fit, Fit]  # of the lower and of the upper quartile
    other: Fit  # the other algorithm, of the median
    is_distinguished: bool  # whether the probe tells the two apart


@dataclass(frozen=True)
class ForecastPoint:
    """What is computed for one number of ranks."""

    predicted: Prediction
    low: float  # efficiency, with the quartiles of the probe instead of its median
    high: float
    other: Prediction  # by the other algorithm


@dataclass(frozen=True)
class Outlook:
    """What was measured and what is predicted, for the table and the figure."""

    work: Work
    fits: Fits
    weak: bool
    measured: list[Measured]  # of strong scaling; the base first
    points: list[ForecastPoint]  # by number of ranks

    @property
    def algorithm(self) -> str:
        """The chosen one, in words."""
        return _NAMES[self.fits.chosen.cost.algorithm]

    @property
    def other_algorithm(self) -> str:
        """The other one, in words."""
        return _NAMES[self.fits.other.cost.algorithm]


def fit_probes(probes: Sequence[ProbeFile]) -> Fits:
    """Return the fits of both algorithms to all probes; raises UsageError if nothing can be fitted.

    Where the probes cannot tell the algorithms apart the ring is chosen, which is never the better
    one of the two.
    """
    ranks = np.concatenate(
        [[file.probe.num_ranks] * len(file.probe.message_bytes) for file in probes]
    )
    sizes = np.concatenate([file.probe.message_bytes for file in probes])
    fits = []
    try:
        for times in ("median_seconds", "lower_quartile_seconds", "upper_quartile_seconds"):
            seconds = np.concatenate([getattr(file.probe, times) for file in probes])
            fits.append({name: fit(name, ranks, sizes, seconds) for name in ALGORITHMS})
    except ValueError as problem:
        raise UsageError(f"the probe: {problem}; measure it anew") from None
    middle, low, high = fits
    can_distinguish = can_choose(ranks)
    first, second = ALGORITHMS
    if can_distinguish and middle[second].mean_residual < middle[first].mean_residual:
        first, second = second, first
    return Fits(middle[first], (low[first], high[first]), middle[second], can_distinguish)


def outlook(work: Work, fits: Fits, *, weak: bool = False) -> Outlook:
    """Return predictions for RANKS and, to be judged by, for the measured numbers of ranks.

    With one global batch, as many ranks as would leave one without a target are left out.
    """
    measured = [work.base, *(one for one in work.runs if one is not work.base)]
    counts = set(RANKS)
    if not weak:
        counts |= {one.num_ranks for one in work.runs if one.num_ranks > 1}
        counts = {ranks for ranks in counts if ranks <= work.global_batch_size}
    points = []
    for ranks in sorted(counts):
        predicted, other, *band = (
            predict(work, some.cost, ranks, weak=weak)
            for some in (fits.chosen, fits.other, *fits.band)
        )
        reach = [one.efficiency for one in (predicted, *band)]
        points.append(ForecastPoint(predicted, min(reach), max(reach), other))
    return Outlook(work, fits, weak, [] if weak else measured, points)


def scaling_table(view: Outlook, probes: Sequence[ProbeFile]) -> Table:
    """Return measured rows, then predicted ones; below them, what the latter rest on."""
    rows: list[ForecastRow] = [
        (
            "measured, crowded" if one.crowded else "measured",
            one.strategy,
            one.num_ranks,
            one.num_hosts,
            one.step_seconds,
            one.communicate_seconds,
            efficiency_of(view.work, one) * one.num_ranks,
            efficiency_of(view.work, one),
            None,
            None,
            None,
        )
        for one in view.measured
    ]
    rows += [
        (
            "PREDICTED",
            view.work.strategy,
            point.predicted.num_ranks,
            None,
            point.predicted.step_seconds,
            point.predicted.communicate_seconds,
            point.predicted.speedup,
            point.predicted.efficiency,
            point.low,
            point.high,
            point.other.efficiency,
        )
        for point in view.points
    ]
    return Table(
        headings=_HEADINGS,
        cells=tuple(_cells(row) for row in rows),
        notes=(*_meaning(view), *_constants(view), *_gaps(view), *_origin(view, probes)),
        numbers=pd.DataFrame(rows, columns=_COLUMNS),
    )


def _cells(row: ForecastRow) -> tuple[str, ...]:
    what, strategy, ranks, hosts, step, communicate, speedup, efficiency, low, high, other = row
    return (
        what,
        strategy,
        str(ranks),
        str(hosts or NOTHING),
        three_digits(1000 * step),
        percent(communicate / step),
        three_digits(speedup),
        _share(efficiency),
        NOTHING if low is None or high is None else f"{_share(low)} .. {_share(high)}",
        NOTHING if other is None else _share(other),
    )


def _share(value: float) -> str:
    """Return an efficiency in percent with three digits that count: small ones are no 0 %."""
    return f"{three_digits(100 * value)} %"


def _meaning(view: Outlook) -> list[str]:
    base = view.work.base
    grown = "n T(1) / T(n), a global batch for each rank" if view.weak else "T(1) / T(n)"
    return [
        "rows of PREDICTED are a PREDICTION: computed from a step on 1 rank and a fitted "
        "allreduce, not measured",
        f"speed-up: {grown}; T(1): `{base.strategy}` on 1 rank, "
        f"{three_digits(1000 * base.step_seconds)} ms a step; efficiency: speed-up / ranks",
        f"quartiles: with those of the probe in place of its median; other algorithm: efficiency "
        f"with {view.other_algorithm} in place of {view.algorithm}",
    ]


def _constants(view: Outlook) -> list[str]:
    lines = []
    for one in (view.fits.chosen, view.fits.other):
        cost, worst = one.cost, one.residuals[np.argmax(np.abs(one.residuals))]
        beta = f"{1e9 * cost.beta_seconds_per_byte:.3g} ns a byte"
        if cost.beta_seconds_per_byte:
            beta += f" ({1e-6 / cost.beta_seconds_per_byte:.3g} MB/s)"
        lines.append(
            f"{_NAMES[cost.algorithm]}: fixed part {three_digits(1000 * cost.fixed_seconds)} ms, "
            f"alpha {three_digits(1e6 * cost.alpha_seconds)} us, beta {beta}; error of the fit: "
            f"{_share(one.mean_residual)} in the mean square, {_share(worst)} at most"
        )
    fits = view.fits
    lines.append(
        f"{view.algorithm} fits the probe better, with an error of "
        f"{_share(fits.chosen.mean_residual)} beside {_share(fits.other.mean_residual)}"
        if fits.is_distinguished
        else "the probe has too few numbers of ranks to tell the two algorithms apart"
    )
    if not fits.chosen.fixed_is_apart:
        lines.append(
            "the fixed part cannot be told from alpha, and is predicted to grow with the ranks as "
            "alpha does: add a probe of 1 rank"
        )
    return lines


def _gaps(view: Outlook) -> list[str]:
    work = view.work
    if view.weak:
        lines = ["the records have one global batch: there is no measured weak scaling among them"]
    elif work.fixed_seconds is None:
        lines = ["a step is taken to divide evenly: no run of 2 ranks on cores of their own tells"]
    else:
        lines = [
            f"of a step {three_digits(1000 * work.fixed_seconds)} ms do not divide: from the "
            "measured runs on 1 and 2 ranks, with what 2 ranks on one machine cost each other"
        ]
    if not view.weak and work.global_batch_size < max(RANKS):
        lines.append(f"left out: more ranks than the {work.global_batch_size} targets of a step")
    lines.append(
        "not modelled: ranks that wait for the slowest of them (records have no seconds of single "
        "steps by rank), and links that several ranks share"
    )
    if any(one.crowded for one in view.measured):
        lines.append("crowded: more threads than cores, whose time means nothing")
    return lines


def _origin(view: Outlook, probes: Sequence[ProbeFile]) -> list[str]:
    hosts = max(len(file.probe.hosts) for file in probes)
    placed = [
        f"{counted(file.probe.num_ranks, 'rank')} on {counted(len(file.probe.hosts), 'host')}"
        for file in probes
    ]
    lines = [f"an allreduce of {view.work.message_bytes} bytes a step; probes: {', '.join(placed)}"]
    if hosts == 1:
        lines.append(
            "the probe's ranks shared a host: it says nothing of a network, and the prediction "
            "holds for one that is as fast as the memory between them"
        )
    if any((file.load_average or 0) > 0.5 for file in probes):
        lines.append("other programs ran beside the probe: its times are those that they left it")
    machines = dict.fromkeys([view.work.machine, *(file.machine for file in probes)])
    if len(machines) > 1:
        lines.append(f"probe and records are of different machines: {' and '.join(machines)}")
    return [*lines, f"machine: {view.work.machine}"]
