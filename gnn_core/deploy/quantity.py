"""Kubernetes' quantities (2, 500m, 4Gi) as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS = {None: Decimal(1), "m": Decimal("0.001")} | {
    unit: Decimal(base) ** power
    for base, units in ((1000, ("k", "M", "G", "T")), (1024, ("Ki", "Mi", "Gi", "Ti")))
    for power, unit in enumerate(units, start=1)
}


def is_quantity(value: Any) -> bool:
    """Whether it is one: a number, or a text with a unit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    return _QUANTITY.fullmatch(str(value)) is not None


def number_of(value: Any) -> Decimal:
    """The number that a quantity means, exact: bytes, cores or devices."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise ValueError(f"no quantity: {value!r}")
    return Decimal(found[1]) * _FACTORS[found[2]]
