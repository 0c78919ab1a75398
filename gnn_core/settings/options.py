"""One setting of a run: its help, its type, its bounds, and how text or YAML becomes its value.

A dataclass declares its fields with `option(...)`; the parser, the file reader, the checks and the
printed summary all read that one declaration, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gnn_core.files import path_problem
from gnn_core.models import file_problem, is_in_file
from gnn_core.usage import MOST_WHOLE, did_you_mean, read_number, read_size, read_whole, shown

_MOST_FLOAT = 10**300  # below, an int has a float
_PATHS = ("DIR", "NAME")  # metavars of settings that name a file or folder, or may do so
STALENESS = "N|inf"  # metavar of a whole number, or of none
FANOUTS = "tuple[int, ...]"
LINK = "link prediction (--task link)"  # the group of settings that no other task has
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    FANOUTS: "whole numbers with commas between, such as 15,10,5",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of one field before any value is given.

    `low` and `high` are allowed values, `above` and `below` are the first ones that are not.
    """

    name: str  # field name and YAML key, with underscores
    kind: str  # int | float | str | bool | tuple[int, ...]
    default: Any  # None: the recipe of the data set, another setting, or nothing fills it
    group: str  # heading in --help and in the summary
    help: str
    choices: Collection[str] = ()
    metavar: str | None = None
    per_data_set: bool = False  # the data set's recipe fills it when it is not given
    curve: bool = False  # the training loss depends on it
    newer: bool = False  # older runs had no such setting, and trained as at its default
    or_file: bool = False  # takes a class in a file (FILE.py:CLASS) beside the choices
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def flag(self) -> str:
        """The command-line spelling, `--global-batch-size`."""
        return "--" + self.name.replace("_", "-")

    def from_text(self, text: str) -> Any:
        """Read a command-line value. Raises ValueError: what was expected and what came."""
        try:
            if self.kind == "int":
                return read_whole(text)
            if self.kind == "float":
                return read_number(text)
            if self.kind == FANOUTS:
                return tuple(read_whole(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"expected {_EXPECTED[self.kind]}, got {shown(text)}") from None
        return text

    def from_yaml(self, value: Any) -> Any:
        """Read a YAML value. Raises ValueError: what was expected and what came.

        YAML 1.1 has two traps that are sprung here: `1e-3` arrives as text, `off` as False.
        """
        if value is False and "off" in self.choices:
            return "off"
        if isinstance(value, str) and self.kind in ("float", FANOUTS):
            return self.from_text(value)
        if self.kind == FANOUTS and type(value) is int:
            return (value,)
        value = self.normalised(value)
        if isinstance(value, str) and value.startswith("~/") and not path_problem(value):
            value = str(Path(value).expanduser())  # no shell expands it in a file
        if problem := self._type_problem(value):
            word = self.kind == "str" and isinstance(value, bool)
            raise ValueError(problem + ": YAML takes yes, no, on and off for that, quote it" * word)
        return value

    def normalised(self, value: Any) -> Any:
        """Give the same value in the field's own type: 1 -> 1.0 for a float, a list -> a tuple."""
        if self.kind == "float" and type(value) is int and abs(value) < _MOST_FLOAT:
            return float(value)
        if self.kind == FANOUTS and isinstance(value, list):
            return tuple(value)
        if self.metavar == STALENESS and type(value) in (int, float):
            return str(value)
        return value

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value` by itself, or None."""
        if value is None:
            return None if self.default is None else f"expected {_EXPECTED[self.kind]}, got nothing"
        if found := self._type_problem(value):
            return found
        if self.or_file and is_in_file(value):
            return file_problem(value)
        if self.choices and value not in self.choices:
            hint = did_you_mean(value, self.choices)
            return f"expected one of {', '.join(self.choices)}, got {shown(value)}{hint}"
        if self.kind == FANOUTS:
            return _fanouts_problem(value)
        if self.kind in ("int", "float"):
            return self._range_problem(value)
        if self.kind == "str" and not value.strip():
            return "expected a name or a path, got empty text"
        if self.metavar in _PATHS:
            return path_problem(value)
        if self.metavar == "SIZE":
            return _size_problem(value)
        if self.metavar == STALENESS and not re.fullmatch("inf|0|[1-9][0-9]{0,8}", value):
            return f"expected a whole number of at least 0, or inf, got {shown(value)}"
        return None

    def _type_problem(self, value: Any) -> str | None:
        # `type(...) is`, because True is an int to isinstance.
        if self.kind == FANOUTS:
            fits = isinstance(value, tuple) and all(type(entry) is int for entry in value)
        else:
            fits = type(value) is {"int": int, "float": float, "str": str, "bool": bool}[self.kind]
        return None if fits else f"expected {_EXPECTED[self.kind]}, got {shown(value)}"

    def _range_problem(self, value: float) -> str | None:
        high = self.high
        if self.kind == "int" and high is None and self.below is None:
            high = MOST_WHOLE
        limits = [
            (words, bound, compare(value, bound))
            for words, bound, compare in (
                ("at least", self.low, operator.ge),
                ("above", self.above, operator.gt),
                ("at most", high, operator.le),
                ("below", self.below, operator.lt),
            )
            if bound is not None
        ]
        if (self.kind == "int" or math.isfinite(value)) and all(holds for _, _, holds in limits):
            return None
        # The limit that holds for whatever is no other is reported only where it concerns somebody.
        named = [one for one in limits if one[1] != MOST_WHOLE or not one[2]]
        wanted = " and ".join(f"{words} {bound}" for words, bound, _ in named)
        number = "a finite number" if self.kind == "float" else "a whole number"
        return f"expected {number} {wanted}".rstrip() + f", got {shown(value)}"


def _fanouts_problem(fanouts: tuple[int, ...]) -> str | None:
    if not fanouts:
        return "expected one entry per layer, got none"
    if 0 in fanouts:
        return "a fan-out of 0 draws no neighbours, so its layer would see no graph: use -1 or >= 1"
    if wrong := [entry for entry in fanouts if entry < -1]:
        return f"expected entries that are -1 (all neighbours) or at least 1, got {shown(wrong[0])}"
    if max(fanouts) > MOST_WHOLE:
        return f"expected entries of at most {MOST_WHOLE}, got {shown(max(fanouts))}: -1 draws all"
    return None


def _size_problem(value: str) -> str | None:
    try:
        read_size(value)
    except ValueError as error:
        return str(error)
    return None


def option(default: Any, group: str, help: str, **more: Any) -> Any:
    """Declare a dataclass field with its default, heading, help and bounds (see `Option`)."""
    return dataclasses.field(default=default, metadata={"group": group, "help": help, **more})


def options_of(cls: type) -> Mapping[str, Option]:
    """Every field of `cls` declared with `option`, in the order of declaration."""
    return dict(_declared(cls))


def _declared(cls: type) -> Iterator[tuple[str, Option]]:
    for field in dataclasses.fields(cls):
        if "group" in field.metadata:
            kind = str(field.type).removesuffix(" | None")
            yield field.name, Option(field.name, kind, field.default, **field.metadata)


def show(value: Any) -> str:
    """Spell a value as a person would type it: `15,10,5`, `on`, `-` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
