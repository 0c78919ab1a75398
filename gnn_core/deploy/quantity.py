"""Kubernetes' quantities (2, 500m, 4Gi, 4e9) as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?[0-9]{1,2}))?"
)
_SMALL = {"n": -9, "u": -6, "m": -3}
_FACTORS = {unit: Decimal(10) ** power for unit, power in _SMALL.items()} | {
    unit: Decimal(base) ** power
    for base, units in (
        (1000, ("k", "M", "G", "T", "P", "E")),
        (1024, ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")),
    )
    for power, unit in enumerate(units, start=1)
}


def is_quantity(value: Any) -> bool:
    """Whether it is one of 0 or more: a number, or a text with a unit or an exponent."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    return _QUANTITY.fullmatch(str(value)) is not None and number_of(value) >= 0


def number_of(value: Any) -> Decimal:
    """The number that a quantity means, exact: bytes, cores or devices. Else ValueError."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise ValueError(f"no quantity: {value!r}")
    factor = _FACTORS[found["unit"]] if found["unit"] else Decimal(10) ** int(found["power"] or 0)
    return Decimal(found["number"]) * factor
