"""Frozen dataclasses to strict JSON and back: no NaN, no guessing, every fault named by path."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gnn_core.usage import printable

Record = TypeVar("Record")

_DEEPEST = 20
_BREAKS = str.maketrans("\t\n\v\f\r", "     ")
_MOST_DIGITS = 20  # with the sign
_LARGEST_COUNT = 2**63
_LARGEST = 1e100  # its square is still a number


class WrongShape(ValueError):
    """JSON that is not the record it should be; the message is one line with the fault's path."""


def plain(value: object, path: str = "") -> tuple[Any, list[str]]:
    """Return `value` as JSON types, and one remark for each number that JSON has no word for.

    A NaN or an infinity becomes null and is named, `epochs[3].train_loss is nan`: the reader may
    then see a gap, but never a made-up number. Floats keep all their digits. Raises TypeError for a
    type that cannot be written.
    """
    if value is None or isinstance(value, bool | str):
        return value, []
    if isinstance(value, np.generic):
        return plain(value.item(), path)
    if isinstance(value, int):
        return value, []
    if isinstance(value, float):
        return (value, []) if math.isfinite(value) else (None, [f"{path} is {value}"])
    if isinstance(value, Path):
        return str(value), []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    remarks: list[str] = []
    if isinstance(value, Mapping):
        result: dict[str, Any] = {}
        for key, item in value.items():
            result[str(key)], more = plain(item, f"{path}.{key}" if path else str(key))
            remarks += more
        return result, remarks
    if isinstance(value, np.ndarray | list | tuple):
        items: list[Any] = []
        for position, item in enumerate(value):
            written, more = plain(item, f"{path}[{position}]")
            items.append(written)
            remarks += more
        return items, remarks
    raise TypeError(f"{path or 'the value'}: a {type(value).__name__} cannot be written as JSON")


def one_line(value: object) -> str:
    """Return plain JSON types as one line without the line break; raises ValueError for a NaN."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(", ", ": "))


def parse(line: str) -> Any:
    """Return the value of one line of JSON, its text as `printable` makes it.

    Raises WrongShape for broken JSON, NaN and infinities (also as 1e999), numbers beyond what a
    measurement or a count can be, a name that stands twice in one object, and deep nesting.
    """
    try:
        value = json.loads(
            line,
            parse_constant=_refuse,
            parse_int=_whole,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as problem:
        raise WrongShape(f"not whole JSON ({problem.msg} at column {problem.colno})") from None
    except RecursionError:
        raise WrongShape("nested too deeply for a record") from None
    return _shown(value, _DEEPEST)


def _refuse(word: str) -> None:
    raise WrongShape(f"holds {word}, which is no number")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or abs(value := int(digits)) > _LARGEST_COUNT:
        raise WrongShape(f"holds a whole number of {len(digits)} digits, beyond 2**63")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not abs(value) <= _LARGEST:
        raise WrongShape(f"holds {digits[:20]}, which is more than any measurement")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WrongShape(f"holds {printable(twice)[:60]!r} twice in one object")
    return found


def _shown(value: Any, depth: int) -> Any:
    """Return a parsed value with all its text printable; raises WrongShape where it is too deep.

    A line break in a text is a space: it is shown in tables and lists.
    """
    if isinstance(value, str):
        return printable(value.translate(_BREAKS))
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise WrongShape("nested too deeply for a record")
    if isinstance(value, list):
        return [_shown(item, depth - 1) for item in value]
    return {printable(name): _shown(item, depth - 1) for name, item in value.items()}


def build(kind: type[Record], value: object, path: str = "") -> Record:
    """Return the dataclass `kind` made from parsed JSON; raises WrongShape naming the first fault.

    Fields with a default may be missing; unknown fields are a fault, since a field that is not read
    is a measurement that silently disappears.
    """
    if not isinstance(value, dict):
        raise WrongShape(f"{path or 'the line'}: expected an object, got {_named(value)}")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise WrongShape(f"unknown field {printable(_at(path, unknown[0]))[:200]}")
    kinds = typing.get_type_hints(kind)
    arguments = {}
    for name, field in known.items():
        if name in value:
            arguments[name] = _convert(kinds[name], value[name], _at(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise WrongShape(f"field {_at(path, name)} is missing")
    try:
        return kind(**arguments)
    except WrongShape:
        raise
    except ValueError as problem:
        raise WrongShape(f"{path}: {problem}" if path else str(problem)) from None


def _convert(kind: Any, value: Any, path: str) -> Any:
    """Return `value` as the annotated type `kind`; raises WrongShape."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert_to_one_of([arm for arm in arguments if arm is not type(None)], value, path)
    if origin is tuple and isinstance(value, list):  # only tuple[X, ...] occurs in a record
        return tuple(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is list and isinstance(value, list):
        return [_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, _at(path, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, path)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    expected = getattr(origin or kind, "__name__", str(kind))
    raise WrongShape(f"{path}: expected {expected}, got {_named(value)}")


def _convert_to_one_of(kinds: list[Any], value: Any, path: str) -> Any:
    """Return `value` as the first of `kinds` that takes it; raises the last one's WrongShape."""
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, path)
        except WrongShape:
            continue
    return _convert(kinds[-1], value, path)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _named(value: object) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "a boolean"}
    return names.get(type(value), type(value).__name__)
