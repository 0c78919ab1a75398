"""Compares an object with its shape in `schema`: every field known, there, and of its type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from gnn_core.deploy.documents import Finding, Object, title_of
from gnn_core.deploy.quantity import is_quantity
from gnn_core.deploy.schema import SCHEMAS
from gnn_core.usage import did_you_mean

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_MOST_NAME, _MOST_LABEL = 253, 63


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) and 0 < value < 65536


_SCALARS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str), "a text (numbers and true in quotes)"),
    "name": (
        lambda value: (
            isinstance(value, str)
            and len(value) <= _MOST_NAME
            and _NAME.fullmatch(value) is not None
        ),
        "a name of a-z, 0-9 and -",
    ),
    "label": (
        lambda value: (
            isinstance(value, str)
            and len(value) <= _MOST_LABEL
            and _LABEL.fullmatch(value) is not None
        ),
        f"a label of letters, digits, -, _ and ., at most {_MOST_LABEL}",
    ),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "count": (lambda value: _is_whole(value) and value >= 0, "a whole number of 0 or more"),
    "positive": (lambda value: _is_whole(value) and value > 0, "a whole number of 1 or more"),
    "number": (_is_number, "a port of 1 to 65535"),
    "port": (
        lambda value: bool(value) if isinstance(value, str) else _is_number(value),
        "a port of 1 to 65535, or the name of one",
    ),
    "path": (
        lambda value: isinstance(value, str) and value[:1] == "/",
        "a path that begins with /",
    ),
    "quantity": (is_quantity, "a quantity such as 2, 500m or 4Gi"),
}


def structure_findings(file: str, one: Object) -> Iterator[Finding]:
    """What is wrong with the object's fields, as long as nobody asks what they mean."""
    kind = one.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        known = ", ".join(SCHEMAS)
        hint = did_you_mean(str(kind), SCHEMAS)
        yield Finding(file, f"{title_of(one)}: kind", f"expected {known}; got {kind!r}{hint}")
        return
    for path, message in _compare(one, SCHEMAS[kind], ""):
        yield Finding(file, f"{title_of(one)}: {path}", message)


def _compare(value: Any, shape: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for whatever in `value` is not of that shape."""
    if isinstance(shape, dict):
        if isinstance(value, dict):
            yield from _fields(value, shape, path)
        else:
            yield path, f"expected a mapping, got {value!r}"
    elif isinstance(shape, list):
        if isinstance(value, list):
            for index, below in enumerate(value):
                yield from _compare(below, shape[0], f"{path}[{index}]")
        else:
            yield path, f"expected a list, got {value!r}"
    elif isinstance(shape, tuple):
        if value not in shape:
            hint = did_you_mean(str(value), shape)
            yield path, f"expected {' or '.join(map(repr, shape))}, got {value!r}{hint}"
    elif not _SCALARS[shape][0](value):
        yield path, f"expected {_SCALARS[shape][1]}, got {value!r}"


def _fields(
    value: dict[str, Any], shape: dict[str, Any], path: str
) -> Iterator[tuple[str, str]]:  # fmt: skip
    shapes = {key.removesuffix("!"): below for key, below in shape.items()}
    for key, below in value.items():
        at = f"{path}.{key}" if path else key
        if (known := shapes.get(key, shapes.get("*"))) is not None:
            yield from _compare(below, known, at)
        else:
            hint = did_you_mean(key, shapes) or f", expected some of {', '.join(shapes)}"
            yield at, f"unknown field{hint}"
    for needed in (key[:-1] for key in shape if key.endswith("!")):
        at = f"{path}.{needed}" if path else needed
        if needed not in value:
            yield at, "expected it to be there, it is missing: add it"
        elif value[needed] == []:
            yield at, "expected one or more, got an empty list: add what belongs there"
