"""One setting of a run: its help, its type, its bounds, and how text or YAML becomes its value.

A dataclass declares its fields with `option(...)`; the parser, the file reader, the checks and the
printed summary all read that one declaration, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gnn_core.usage import did_you_mean

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
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    per_data_set: bool = False  # the data set's recipe fills it when it is not given
    curve: bool = False  # the training loss depends on it
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
                return int(text)
            if self.kind == "float":
                return float(text)
            if self.kind == FANOUTS:
                return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"expected {_EXPECTED[self.kind]}, got {text!r}") from None
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
        if isinstance(value, str) and value.startswith("~/"):  # no shell expands it in a file
            value = str(Path(value).expanduser())
        if problem := self._type_problem(value):
            raise ValueError(problem)
        return value

    def normalised(self, value: Any) -> Any:
        """Give the same value in the field's own type: 1 -> 1.0 for a float, a list -> a tuple."""
        if self.kind == "float" and type(value) is int:
            return float(value)
        if self.kind == FANOUTS and isinstance(value, list):
            return tuple(value)
        return value

    def problem(self, value: Any) -> str | None:
        """Tell what is wrong with `value` by itself, or None."""
        if value is None:
            return None if self.default is None else f"expected {_EXPECTED[self.kind]}, got nothing"
        if found := self._type_problem(value):
            return found
        if self.choices and value not in self.choices:
            hint = did_you_mean(value, self.choices)
            return f"expected one of {', '.join(self.choices)}, got {value!r}{hint}"
        if self.kind == FANOUTS:
            return _fanouts_problem(value)
        if self.kind in ("int", "float"):
            return self._range_problem(value)
        if self.kind == "str" and not value.strip():
            return "expected a name or a path, got empty text"
        return None

    def _type_problem(self, value: Any) -> str | None:
        # `type(...) is`, because True is an int to isinstance.
        if self.kind == FANOUTS:
            fits = isinstance(value, tuple) and all(type(entry) is int for entry in value)
        else:
            fits = type(value) is {"int": int, "float": float, "str": str, "bool": bool}[self.kind]
        return None if fits else f"expected {_EXPECTED[self.kind]}, got {_shown(value)}"

    def _range_problem(self, value: float) -> str | None:
        limits = [
            (words, bound, compare(value, bound))
            for words, bound, compare in (
                ("at least", self.low, operator.ge),
                ("above", self.above, operator.gt),
                ("at most", self.high, operator.le),
                ("below", self.below, operator.lt),
            )
            if bound is not None
        ]
        if math.isfinite(value) and all(holds for _, _, holds in limits):
            return None
        wanted = " and ".join(f"{words} {bound}" for words, bound, _ in limits)
        number = "a finite number" if self.kind == "float" else "a whole number"
        return f"expected {number} {wanted}".rstrip() + f", got {value}"


def _fanouts_problem(fanouts: tuple[int, ...]) -> str | None:
    if not fanouts:
        return "expected one entry per layer, got none"
    if 0 in fanouts:
        return "a fan-out of 0 draws no neighbours, so its layer would see no graph: use -1 or >= 1"
    if wrong := [entry for entry in fanouts if entry < -1]:
        return f"expected entries that are -1 (all neighbours) or at least 1, got {wrong[0]}"
    return None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


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
