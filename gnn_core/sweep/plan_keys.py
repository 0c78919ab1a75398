"""Reads the keys of a plan: a wrong one leaves its default, and a problem to report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnn_core.config import OPTIONS
from gnn_core.settings.flags import build_parser, read_flags
from gnn_core.settings.yaml_file import load_pairs
from gnn_core.sweep.allowed_settings import refusals
from gnn_core.usage import MOST_WHOLE, did_you_mean, shown


class Keys:
    """What a plan's file says, and what is wrong with it.

    Args:
        path: a YAML mapping. UsageError when it is none.
        known: the keys that a plan can have.
    """

    def __init__(self, path: Path, known: Sequence[str]):
        self.problems: list[str] = []
        self._given: dict[str, Any] = {}
        for key, value in load_pairs(str(path)):
            name = key.replace("-", "_") if isinstance(key, str) else shown(key)
            if name not in known:
                hint = did_you_mean(name, known) or f", expected some of {', '.join(known)}"
                self.problems.append(f"unknown key {shown(key)}{hint}")
            elif name in self._given:
                self.problems.append(f"{name}: given twice, keep one")
            else:
                self._given[name] = value

    def value(self, key: str) -> Any:
        """What the file says, untouched; None where it says nothing."""
        return self._given.get(key)

    def whole(self, key: str, default: int, low: int, high: int = MOST_WHOLE) -> int:
        """A whole number from `low` to `high`."""
        value = self.value(key)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            wanted = f"a whole number from {low}" + f" to {high}" * _is_above(value, high)
            self.problems.append(f"{key}: expected {wanted}, got {shown(value)}")
            return default
        return value

    def wholes(self, key: str, default: tuple[int, ...], low: int, high: int) -> tuple[int, ...]:
        """A list of different whole numbers from `low` to `high`."""
        given = self.value(key)
        is_above = isinstance(given, list) and any(_is_above(one, high) for one in given)
        wanted = (
            f"whole numbers from {low}" + f" to {high}" * is_above + f", such as {list(default)}"
        )
        return self._some(key, default, wanted, lambda one: type(one) is int and low <= one <= high)

    def names(self, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """A list of different names out of `known`, which is also the default."""
        wanted = f"names, some of {', '.join(known)}"
        names = self._some(key, known, wanted, lambda one: isinstance(one, str))
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known) or f", expected some of {', '.join(known)}"
                self.problems.append(f"{key}: unknown name {shown(name)}{hint}")
        return tuple(name for name in names if name in known)

    def text(self, key: str, default: str, choices: tuple[str, ...] = ()) -> str:
        """A text, or one of the choices."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip() or (choices and value not in choices):
            wanted = f"one of {', '.join(choices)}" if choices else "a text"
            self.problems.append(f"{key}: expected {wanted}, got {shown(value)}")
            return default
        return value

    def entries(self, key: str, default: list[Any]) -> list[Any]:
        """A list of anything, with something in it."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, list) or not value:
            self.problems.append(f"{key}: expected a list such as {default}, got {shown(value)}")
            return default
        return value

    def settings(self, where: str, given: Any, own: Mapping[str, str]) -> dict[str, Any]:
        """Settings of runs (field name -> value of its type), from a mapping or a list of flags.

        `own` says why not, of those that are no settings of every run here.
        """
        if given is None:
            return {}
        if isinstance(given, Mapping):
            values = self._from_mapping(where, given)
        elif isinstance(given, list):
            values = self._from_words(where, given)
        else:
            self.problems.append(
                f"{where}: expected settings such as {{hidden: 64}}, got {shown(given)}"
            )
            return {}
        refused = refusals(values, own)
        self.problems += [f"{where}: {name}: {reason}" for name, reason in refused.items()]
        return {name: value for name, value in values.items() if name not in refused}

    def _from_mapping(self, where: str, given: Mapping[Any, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in given.items():
            name = key.replace("-", "_") if isinstance(key, str) else shown(key)
            if name not in OPTIONS:
                hint = did_you_mean(name, OPTIONS)
                self.problems.append(f"{where}: unknown setting {shown(key)}{hint}")
            elif value is not None:
                try:
                    values[name] = OPTIONS[name].from_yaml(value)
                except ValueError as problem:
                    self.problems.append(f"{where}: {name}: {problem}")
        return values

    def _from_words(self, where: str, given: list[Any]) -> dict[str, Any]:
        """Flags as typed; `- --hidden 64` in one line are two words."""
        try:
            words = [word for one in given for word in shlex.split(str(one))]
        except ValueError as problem:
            self.problems.append(f"{where}: {problem}")
            return {}
        if {"-h", "--help"}.intersection(words):
            self.problems.append(f"{where}: --help is no setting")
            return {}
        flags = read_flags(build_parser(OPTIONS, "sweep", {}), OPTIONS, words)
        self.problems += [f"{where}: {problem}" for problem in flags.problems]
        if flags.config_file is not None:
            # Its content could change without the plan, whose runs would then be taken for done.
            self.problems.append(f"{where}: --config: write what it says into the plan")
        return flags.values

    def _some(self, key: str, default: tuple[Any, ...], wanted: str, fits: Any) -> tuple[Any, ...]:
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, list) or not value or not all(fits(one) for one in value):
            self.problems.append(f"{key}: expected a list of {wanted}, got {shown(value)}")
            return default
        self.problems += [f"{key}: {shown(one)} is given twice, keep one" for one in _twice(value)]
        return tuple(value)


def _twice(values: Sequence[Hashable]) -> list[Hashable]:
    return [value for value, count in Counter(values).items() if count > 1]


def _is_above(value: Any, high: int) -> bool:
    return type(value) is int and value > high
