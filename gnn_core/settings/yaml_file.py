"""`--config FILE`: a flat YAML mapping of setting names to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gnn_core.files import expanded, read_regular
from gnn_core.settings.bounded_yaml import MOST_BYTES, SettingsLoader, problem_of
from gnn_core.settings.options import Option
from gnn_core.usage import UsageError, did_you_mean, shown

_MERGE = "tag:yaml.org,2002:merge"


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
        name = key.replace("-", "_") if isinstance(key, str) else shown(key)
        where = f"{path}: {name if name in options else shown(key)}"
        if name not in options:
            problems.append(f"{path}: unknown key {shown(key)}{did_you_mean(name, options)}")
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
    """Read a YAML mapping as (key, value) pairs, so that a key given twice can be reported.

    Raises UsageError when there is no such file, which says `asked` first, or it is no mapping.
    """
    text = _text_of(path, asked)
    try:
        loader = SettingsLoader(text)
        node = loader.get_single_node()
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            kind = type(node).__name__.removesuffix("Node").lower()
            raise UsageError(f"{path}: expected lines of `key: value`, got a YAML {kind}")
        return _pairs(loader, node)
    except UsageError:
        raise
    except Exception as error:  # PyYAML lets through whatever a text makes its parts raise
        raise UsageError(f"{path}: not valid YAML: {problem_of(error)}") from None


def _text_of(path: str, asked: str) -> str:
    try:
        return read_regular(expanded(path, "the file"), MOST_BYTES).decode("utf-8")
    except UsageError as error:
        raise UsageError(f"{asked}{error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{asked}expected YAML text in UTF-8, got bytes in {path}") from None


def _pairs(loader: SettingsLoader, node: yaml.MappingNode) -> list[tuple[Any, Any]]:
    # A dict would have only the second value of a key that is given twice.
    if any(key.tag == _MERGE for key, _ in node.value):
        raise ValueError("`<<` takes in another mapping: write out what it has")
    return [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
