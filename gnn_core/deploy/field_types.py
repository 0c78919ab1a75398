"""The types of fields, and `compare`: every field is known, present, and of its type.

A shape is the name of a scalar below, a tuple of the texts that may stand there, a list of one
shape, or a mapping. `!` marks a field that has to be there. `*` stands for any other key, and
`*NAME` for any other key that is itself of the scalar NAME.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from gnn_core.deploy.quantity import is_quantity
from gnn_core.usage import did_you_mean

# As the API server has them: RFC 1123 (and 1035, which begins with a letter) for names.
_WORD = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_WORD}(\.{_WORD})*")
_SHORT = re.compile(_WORD)
_HOST = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LABEL_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_LABEL = re.compile(rf"({_LABEL_WORD})?")
_LABEL_KEY = re.compile(rf"(?:(?P<prefix>[^/]*)/)?(?P<name>{_LABEL_WORD})")
_DATA_KEY = re.compile(r"(?!\.{1,2}\Z)[-._A-Za-z0-9]+")
_VARIABLE = re.compile(r"[ -<>-~]+")  # printable, without =
_MOST_NAME, _MOST_LABEL, _MOST_PORT = 253, 63, 15
_BELOW = 2**31
_MOST_SHOWN = 120


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) and 0 < value < 65536


def _is_like(pattern: re.Pattern[str], most: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, str) and len(value) <= most and pattern.fullmatch(value) is not None
    )


def _is_label_key(value: Any) -> bool:
    found = _LABEL_KEY.fullmatch(value) if isinstance(value, str) else None
    if found is None or len(found["name"]) > _MOST_LABEL:
        return False
    return found["prefix"] is None or _is_like(_NAME, _MOST_NAME)(found["prefix"])


_SCALARS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "any": (lambda value: True, "anything"),
    "text": (lambda value: isinstance(value, str), "a text (numbers and true in quotes)"),
    "some text": (lambda value: isinstance(value, str) and value != "", "a text that is not empty"),
    "name": (_is_like(_NAME, _MOST_NAME), f"a name of a-z, 0-9, - and ., at most {_MOST_NAME}"),
    "short name": (
        _is_like(_NAME, _MOST_LABEL),
        f"a name of a-z, 0-9, - and ., at most {_MOST_LABEL}",
    ),
    "short": (_is_like(_SHORT, _MOST_LABEL), f"a name of a-z, 0-9 and -, at most {_MOST_LABEL}"),
    "host": (
        _is_like(_HOST, _MOST_LABEL),
        f"a name of a-z, 0-9 and - that begins with a letter, at most {_MOST_LABEL}",
    ),
    "portname": (
        _is_like(_PORT, _MOST_PORT),
        f"a name of a-z, 0-9 and - with a letter in it, at most {_MOST_PORT}",
    ),
    "label": (
        _is_like(_LABEL, _MOST_LABEL),
        f"a label of letters, digits, -, _ and ., at most {_MOST_LABEL}",
    ),
    "label key": (
        _is_label_key,
        f"a key of letters, digits, -, _ and ., at most {_MOST_LABEL}, after a domain and / if any",
    ),
    "data key": (
        _is_like(_DATA_KEY, _MOST_NAME),
        f"a key of letters, digits, -, _ and ., at most {_MOST_NAME}",
    ),
    "variable": (
        _is_like(_VARIABLE, 10**6),
        "the name of a variable: printable characters of ASCII without =",
    ),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "count": (
        lambda value: _is_whole(value) and 0 <= value < _BELOW,
        "a whole number of 0 or more, below 2^31",
    ),
    "positive": (
        lambda value: _is_whole(value) and 0 < value < _BELOW,
        "a whole number of 1 or more, below 2^31",
    ),
    "mode": (
        lambda value: _is_whole(value) and 0 <= value <= 0o777,
        "permissions of 0 to 0777 (octal), which is 511",
    ),
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


def is_scalar(value: Any, name: str) -> bool:
    """Whether a value is of one of the scalars above."""
    return _SCALARS[name][0](value)


def expected(name: str) -> str:
    """What a message says is expected where a value is not of that scalar."""
    return _SCALARS[name][1]


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, and no page of it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def compare(value: Any, shape: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, message) for whatever in `value` is not of that shape."""
    if isinstance(shape, dict):
        if isinstance(value, dict):
            yield from _fields(value, shape, path)
        else:
            yield path, f"expected a mapping, got {shown(value)}"
    elif isinstance(shape, list):
        if isinstance(value, list):
            for index, below in enumerate(value):
                yield from compare(below, shape[0], f"{path}[{index}]")
        else:
            yield path, f"expected a list, got {shown(value)}"
    elif isinstance(shape, tuple):
        if value not in shape:
            hint = did_you_mean(str(value), shape)
            yield path, f"expected {' or '.join(map(repr, shape))}, got {shown(value)}{hint}"
    elif not is_scalar(value, shape):
        yield path, f"expected {expected(shape)}, got {shown(value)}"


def _fields(value: dict[str, Any], shape: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    shapes = {key.removesuffix("!"): below for key, below in shape.items() if key[0] != "*"}
    others = next((key for key in shape if key[0] == "*"), None)
    for key, below in value.items():
        at = f"{path}.{key}" if path else key
        if key in shapes:
            yield from compare(below, shapes[key], at)
        elif others is None:
            hint = did_you_mean(key, shapes) or f", expected some of {', '.join(shapes)}"
            yield at, f"unknown field{hint}"
        else:
            if len(others) > 1 and not is_scalar(key, others[1:]):
                yield at, f"expected {expected(others[1:])}, got the key {shown(key)}"
            yield from compare(below, shape[others], at)
    for needed in (key[:-1] for key in shape if key.endswith("!")):
        at = f"{path}.{needed}" if path else needed
        if needed not in value:
            yield at, "expected it to be there, it is missing: add it"
        elif value[needed] == []:
            yield at, "expected one or more, got an empty list: add what belongs there"
