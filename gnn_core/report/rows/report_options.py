"""Options of a report: which comparisons are allowed, a target, a price."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportOptions:
    """The flags of a report; with the defaults only runs of one machine are compared."""

    force: bool = False  # compare runs of different machines
    target: float | None = None  # validation score, a fraction; None: one point below `single`
    price: float | None = None  # of one host for one hour; None: no cost is shown
    currency: str = ""  # of the price, as it is to be written; empty: no unit
