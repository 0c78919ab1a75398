"""`--config FILE`: a flat YAML mapping of setting names to values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gnn_core.settings.options import Option
from gnn_core.usage import UsageError, did_you_mean


def read_config_file(
    path: str, options: Mapping[str, Option]
) -> tuple[dict[str, Any], list[str], set[str]]:
    """Read a YAML file of settings: (field name -> value, problems, fields that are wrong).

    Keys may be spelled with dashes or underscores; a value of null is a setting not given. Raises
    UsageError when there is no such file or it is not a YAML mapping.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    bad: set[str] = set()
    for key, value in load_pairs(path, "--config: "):
        name = key.replace("-", "_") if isinstance(key, str) else str(key)
        where = f"{path}: {' '.join(str(key).split())}"
        if name not in options:
            problems.append(f"{path}: unknown key {key!r}{did_you_mean(name, options)}")
        elif name in values:
            problems.append(f"{where}: given twice, keep one")
        else:
            values[name] = None
            try:
                values[name] = None if value is None else options[name].from_yaml(value)
            except ValueError as error:
                problems.append(f"{where}: {error}")
                bad.add(name)
    return {name: value for name, value in values.items() if value is not None}, problems, bad


def load_pairs(path: str, asked: str = "") -> list[tuple[Any, Any]]:
    """Read a YAML mapping as (key, value) pairs, so that a key given twice can be told.

    Raises UsageError when there is no such file, which says `asked` first, or it is no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{asked}cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{asked}expected YAML text in UTF-8, got bytes in {path}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            kind = type(node).__name__.removesuffix("Node").lower()
            raise UsageError(f"{path}: expected lines of `key: value`, got a YAML {kind}")
        return _pairs(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: PyYAML lets a date such as 2026-99-99 through to datetime.
        raise UsageError(f"{path}: not valid YAML: {_one_line(error)}") from None


def _pairs(node: yaml.MappingNode) -> list[tuple[Any, Any]]:
    # yaml.safe_load would make a dict, in which a key given twice is silently given once.
    loader = yaml.SafeLoader("")
    return [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return " ".join(reason.split()) + place
