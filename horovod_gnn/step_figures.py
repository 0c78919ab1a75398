"""From the seconds of a step benchmark to its figures and its table.

Ratios are made within a round and then summarised over rounds, so that a machine that slows down
between two rounds does not change them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

REFERENCE = "reference"
FLOOR = "products"  # followed by the precision
_SLOW = 1.25  # times the median

MEANING = (
    "ms: median over the steps of all rounds; processor: the same of processor time; x reference: "
    "times as fast as it; floor: share of a step that its matrix products make up; both by round, "
    "median (least .. most)"
)

Rounds = Sequence[Sequence[float]]  # seconds of each step, by round


def figures(seconds: Mapping[str, tuple[Rounds, Rounds]]) -> dict[str, dict[str, Any]]:
    """Figures by implementation and clock, as JSON can hold them.

    Args:
        seconds: by implementation, elapsed and processor seconds. The ratio to `reference` is there
            if that was measured, the share of the floor if `products <precision>` was.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, clocks in seconds.items():
        found[name] = {}
        for clock, rounds in enumerate(clocks):
            rows = {other: both[clock] for other, both in seconds.items()}
            # What is not told apart by precision computes in float32.
            floor = f"{FLOOR} {'bf16' if name.endswith('bf16') else 'fp32'}"
            found[name][("elapsed", "processor")[clock]] = {
                **_spread(rounds),
                "times_as_fast_as_reference": _ratios(rows.get(REFERENCE), rounds),
                "share_of_floor": _ratios(rows.get(floor), rounds),
            }
    return found


def _spread(rounds: Rounds) -> dict[str, Any]:
    steps = [1000 * seconds for one in rounds for seconds in one]
    median = statistics.median(steps)
    quartiles = statistics.quantiles(steps, n=4) if len(steps) > 1 else [median] * 3
    return {
        "median_ms": median,
        "quartiles_ms": [quartiles[0], quartiles[2]],
        "mean_ms": statistics.fmean(steps),
        "slow_share": sum(step > _SLOW * median for step in steps) / len(steps),
        "round_medians_ms": [1000 * statistics.median(one) for one in rounds],
    }


def _ratios(others: Rounds | None, rounds: Rounds) -> dict[str, float] | None:
    """Median, least and most of other / this over the rounds."""
    if others is None:
        return None
    ratios = [
        statistics.median(other) / statistics.median(one)
        for other, one in zip(others, rounds, strict=True)
    ]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def table(
    implementations: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[list[str | float]]]:
    """Headings and rows of the table for a document, from what `figures` returned."""
    rows: list[list[str | float]] = []
    for name, clocks in implementations.items():
        one = clocks["elapsed"]
        low, high = one["quartiles_ms"]
        rows.append(
            [
                name,
                one["median_ms"],
                f"{low:.0f} .. {high:.0f}",
                clocks["processor"]["median_ms"],
                _summary(one["times_as_fast_as_reference"], ".2f"),
                _summary(one["share_of_floor"], ".0%"),
            ]
        )
    headings = ["implementation", "ms", "quartiles", "processor ms", "x reference", "floor"]
    return headings, rows


def report(record: Mapping[str, Any]) -> str:
    """The tables of a record of the step benchmark, as text."""
    lines = []
    for name, rates in record["products"].items():
        lines.append(f"\n{name}, GFLOP/s at best")
        lines += [f"  {product:<26}{rate / 1e9:8.1f}" for product, rate in rates.items()]
    titles = {
        "elapsed": "elapsed time",
        "processor": "processor time (the same unless other programs took turns)",
    }
    for clock, title in titles.items():
        lines.append(f"\n{title}, ms per step")
        lines.append(
            f"  {'':<22}{'median':>8}{'quartiles':>16}{'mean':>9}{'slow':>6}"
            f"{'x reference':>23}{'floor':>21}"
        )
        for name, clocks in record["implementations"].items():
            lines.append(f"  {name:<22}{_row(clocks[clock])}")
    lines.append(
        f"\nslow: steps over {_SLOW} x the median; x reference: times as fast as it, and floor: "
        "share of a step\nthat its matrix products make up, each by round: median (least .. most)"
    )
    return "\n".join(lines)


def _row(one: Mapping[str, Any]) -> str:
    low, high = one["quartiles_ms"]
    return (
        f"{one['median_ms']:8.1f}{f'{low:.0f} .. {high:.0f}':>16}{one['mean_ms']:9.1f}"
        f"{one['slow_share']:6.0%}{_summary(one['times_as_fast_as_reference'], '.2f'):>23}"
        f"{_summary(one['share_of_floor'], '.0%'):>21}"
    )


def _summary(ratio: Mapping[str, float] | None, form: str) -> str:
    if ratio is None:
        return "-"
    return f"{ratio['median']:{form}} ({ratio['min']:{form}} .. {ratio['max']:{form}})"
