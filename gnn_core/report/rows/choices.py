"""What the reader of a report may choose: which comparisons are allowed, a target, a price."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """What the flags say; the defaults compare fairly and invent nothing."""

    force: bool = False  # compare runs of different machines
    target: float | None = None  # validation score, a fraction; None: one point below `single`
    price: float | None = None  # of one host for one hour; None: no cost is told
    currency: str = ""  # of the price, as it is to be written; empty: no unit
