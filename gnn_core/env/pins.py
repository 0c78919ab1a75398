"""Reads requirements.txt: which package is pinned to what, and in which lane it is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["lane_of_the_rest", "normal", "read_pins"]

_LINE = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==[^\s;]+(\s*;.*)?$")


def normal(name: str) -> str:
    """A package name as packaging tools compare it: lower case, runs of `-_.` as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, str]:
    """Package name (normalised) -> its requirement (`numpy==2.4.6`), in the order of the file.

    Raises ValueError naming the line when a requirement is not pinned with `==` or is given twice.
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        bare = line.split("#", 1)[0].strip()
        if not bare:
            continue
        found = _LINE.match(bare)
        if not found:
            raise ValueError(f"{path.name}:{number}: expected name==version, found {bare!r}")
        name = normal(found["name"])
        if name in pins:
            raise ValueError(f"{path.name}:{number}: {name} is pinned a second time")
        pins[name] = bare
    return pins


def lane_of_the_rest(pins: Mapping[str, str], taken: Iterable[str]) -> list[str]:
    """The requirements whose package is in no other lane."""
    others = {normal(name) for name in taken}
    return [requirement for name, requirement in pins.items() if name not in others]
