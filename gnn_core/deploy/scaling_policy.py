"""How many workers an elastic job is to have: the decision, and a simulation of it.

A curve says how long an epoch takes on how many workers; a policy says what counts. `decide` is a
pure function of both and of where the job stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gnn_core.usage import UsageError, read_number, shown

_HOUR, _MINUTE = 3600.0, 60.0
_KINDS = ("efficiency", "budget", "deadline")


@dataclass(frozen=True)
class Curve:
    """Seconds of an epoch by number of workers, as measured; one or more."""

    seconds: Mapping[int, float]

    @property
    def fewest(self) -> int:
        """The fewest workers that were measured."""
        return min(self.seconds)

    @property
    def most(self) -> int:
        """The most workers that were measured."""
        return max(self.seconds)

    def at(self, workers: int) -> float:
        """Seconds of an epoch; between two measured sizes on a line over 1 / workers.

        Raises ValueError outside of what was measured.
        """
        if not self.fewest <= workers <= self.most:
            raise ValueError(
                f"expected {self.fewest} to {self.most} workers, as measured, got {workers}"
            )
        if workers in self.seconds:
            return self.seconds[workers]
        low = max(size for size in self.seconds if size < workers)
        high = min(size for size in self.seconds if size > workers)
        share = (1 / low - 1 / workers) / (1 / low - 1 / high)
        return self.seconds[low] + share * (self.seconds[high] - self.seconds[low])

    def efficiency(self, workers: int) -> float:
        """Speed-up per worker, against the fewest that were measured."""
        return self.fewest * self.at(self.fewest) / (workers * self.at(workers))

    def scaled(self, workers: int, seconds: float) -> Curve:
        """The curve of the same shape on which an epoch of so many workers takes `seconds`."""
        factor = seconds / self.at(workers)
        return Curve({size: factor * value for size, value in self.seconds.items()})


@dataclass(frozen=True)
class Policy:
    """What counts: an efficiency of at least `limit`, a budget of at most so much money an hour, or
    a deadline in so many minutes, as `kind` says.
    """

    kind: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Policy:
        """Read `efficiency:0.7`, `budget:12` or `deadline:90`. Raises UsageError."""
        kind, _, number = text.partition(":")
        try:
            limit = read_number(number)
        except ValueError:
            limit = math.nan
        highest = 1.0 if kind == "efficiency" else math.inf
        if kind not in _KINDS or not 0 < limit <= highest or math.isinf(limit):
            raise UsageError(
                "--policy: expected efficiency:SHARE (above 0, at most 1), budget:MONEY_PER_HOUR "
                f"or deadline:MINUTES, got {shown(text)}"
            )
        return cls(kind, limit)

    def __str__(self) -> str:
        return f"{self.kind}:{self.limit:g}"


@dataclass(frozen=True)
class Terms:
    """What holds for all decisions of a job."""

    price: float  # of a worker and hour
    fewest: int  # workers
    most: int
    resize_seconds: float  # in which nothing is trained, when the number of workers changes


@dataclass(frozen=True)
class Standing:
    """Where a job stands."""

    workers: int  # 0: it is about to begin
    epochs_left: float
    seconds_left: float = math.inf  # until the deadline


def decide(curve: Curve, policy: Policy, terms: Terms, now: Standing) -> int:
    """How many workers the job is to have from now on.

    efficiency: the fastest of those with at least that efficiency. budget: the fastest that it
    pays for. deadline: the cheapest that ends in time, or the fastest where none does. A change is
    made only where, in what is left of the run, more workers save time or fewer save money; to keep
    to a budget it is made at once.

    Raises UsageError where none of the allowed numbers was measured.
    """
    sizes = range(max(terms.fewest, curve.fewest), min(terms.most, curve.most) + 1)
    if not sizes:
        raise UsageError(
            f"--min, --max: expected some of the {curve.fewest} to {curve.most} workers that were "
            f"measured, got {terms.fewest} to {terms.most}"
        )
    chosen = _wanted(curve, policy, terms, now, sizes)
    if now.workers not in sizes or chosen == now.workers:
        return chosen
    if policy.kind == "budget" and now.workers * terms.price > policy.limit:
        return chosen
    return chosen if _pays(curve, terms, now, chosen) else now.workers


def _wanted(curve: Curve, policy: Policy, terms: Terms, now: Standing, sizes: Iterable[int]) -> int:
    sizes = list(sizes)

    def fastest(among: list[int]) -> int:
        return min(among, key=lambda size: (curve.at(size), size))

    if policy.kind == "efficiency":
        return fastest([s for s in sizes if curve.efficiency(s) >= policy.limit] or sizes[:1])
    if policy.kind == "budget":
        return fastest([s for s in sizes if s * terms.price <= policy.limit] or sizes[:1])
    in_time = [s for s in sizes if _seconds(curve, terms, now, s) <= now.seconds_left]
    return (
        min(in_time, key=lambda s: (_cost(curve, terms, now, s), s)) if in_time else fastest(sizes)
    )


def _seconds(curve: Curve, terms: Terms, now: Standing, workers: int) -> float:
    """What is left of the run takes on so many workers from now on."""
    pause = terms.resize_seconds if now.workers not in (0, workers) else 0.0
    return pause + now.epochs_left * curve.at(workers)


def _cost(curve: Curve, terms: Terms, now: Standing, workers: int) -> float:
    return workers * terms.price / _HOUR * _seconds(curve, terms, now, workers)


def _pays(curve: Curve, terms: Terms, now: Standing, chosen: int) -> bool:
    """Whether more workers save time in what is left of the run, or fewer save money."""
    measure = _seconds if chosen > now.workers else _cost
    return measure(curve, terms, now, chosen) < measure(curve, terms, now, now.workers)


@dataclass(frozen=True)
class Outcome:
    """What a run takes, simulated: `sizes` has the workers of each epoch."""

    name: str
    seconds: float
    cost: float
    sizes: tuple[int, ...]


def static(curve: Curve, terms: Terms, workers: int, epochs: int) -> Outcome:
    """A run on one number of workers."""
    seconds = epochs * curve.at(workers)
    cost = workers * terms.price * seconds / _HOUR
    return Outcome(f"static:{workers}", seconds, cost, (workers,) * epochs)


def simulated(curve: Curve, policy: Policy, terms: Terms, epochs: int) -> Outcome:
    """A run that asks `decide` before each epoch."""
    seconds = cost = 0.0
    workers, sizes = 0, []
    for epoch in range(epochs):
        left = policy.limit * _MINUTE - seconds if policy.kind == "deadline" else math.inf
        chosen = decide(curve, policy, terms, Standing(workers, epochs - epoch, left))
        pause = terms.resize_seconds if workers not in (0, chosen) else 0.0
        workers = chosen
        seconds += pause + curve.at(workers)
        cost += workers * terms.price * (pause + curve.at(workers)) / _HOUR
        sizes.append(workers)
    return Outcome(str(policy), seconds, cost, tuple(sizes))
