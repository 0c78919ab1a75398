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

from gnn_core import usage

Record = TypeVar("Record")
_MOST_DIGITS = 19  # of a number below 2**63


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
    """Return the value of one line of JSON; raises WrongShape for broken JSON, NaN, infinities."""

    def refuse(word: str) -> None:
        raise WrongShape(f"holds {word}, which is no number")

    try:
        return json.loads(
            line, parse_constant=refuse, parse_int=_bounded_int, parse_float=_finite_float
        )
    except json.JSONDecodeError as problem:
        raise WrongShape(f"not whole JSON ({problem.msg} at column {problem.colno})") from None
    except RecursionError:
        raise WrongShape("nested too deeply for a record") from None


def _bounded_int(text: str) -> int:
    """An int of at most 64 bits: not every other has a float, and some cannot be read."""
    if len(text) > _MOST_DIGITS + text.startswith("-"):
        raise WrongShape(f"holds {usage.shown(text)}, a number of more than {_MOST_DIGITS} digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise WrongShape(f"holds {usage.shown(text)}, which is beyond all numbers")
    return value


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
        raise WrongShape(f"unknown field {usage.one_line(_at(path, unknown[0]))[:200]}")
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
