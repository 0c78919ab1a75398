"""YAML as kubectl reads it, and text that every reader of YAML takes for the same values.

kubectl reads with Go's YAML: words of YAML 1.1 (`y`, `off`), numbers of YAML 1.1 and 1.2 (`0o17`,
`1e-3`). PyYAML knows others. What is read here is what kubectl reads; what is written here quotes a
text that either of them, or a reader of YAML 1.2, would take for something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from gnn_core.deploy.field_types import shown
from gnn_core.settings.bounded_yaml import BoundedLoader

_BOOL = re.compile(
    r"y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF"
)
_PLAIN_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9][0-9_]*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NULL = re.compile(r"~|null|Null|NULL|")
_WHOLE_FLOAT = 1e21  # Go writes whole numbers below it without an exponent
# Anything that could be a number, a date or a word of some version of YAML.
_AMBIGUOUS = re.compile(
    rf"{_BOOL.pattern}|{_NULL.pattern}|[-+]?\.(?:inf|nan)|[-+]?\.?[0-9][-+.:_0-9a-zA-Z ]*", re.I
)


class Reader(BoundedLoader):
    """Values as kubectl gets them."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _boolean(reader: Reader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() in ("y", "yes", "true", "on")


def _integer(reader: Reader, node: yaml.ScalarNode) -> int | float:
    text = node.value.replace("_", "").lower()
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if re.fullmatch(r"0[0-7]+", digits):
        digits = f"0o{digits[1:]}"
    value = int(digits, 0)
    return -value if sign == "-" else value


def _number(reader: Reader, node: yaml.ScalarNode) -> int | float:
    value = float(node.value.replace("_", ""))
    return int(value) if value.is_integer() and abs(value) < _WHOLE_FLOAT else value


def _no_number(reader: Reader, node: yaml.ScalarNode) -> float:
    raise ValueError(f"{shown(node.value)}, which is no number that JSON knows: quote it")


# The first that fits counts. A date stays a text, as kubectl has it.
for _tag, _pattern, _firsts in (
    ("bool", _BOOL, "yYtToOnNfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("not-finite", _NOT_FINITE, "-+."),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("merge", re.compile("<<"), "<"),
):
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    Reader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list(_firsts))
Reader.add_constructor("tag:yaml.org,2002:bool", _boolean)
Reader.add_constructor("tag:yaml.org,2002:int", _integer)
Reader.add_constructor("tag:yaml.org,2002:float", _number)
Reader.add_constructor("tag:yaml.org,2002:not-finite", _no_number)


class ResourceReader(Reader):
    """Values of the files that kustomize reads, which takes no `y` and no `off` for a boolean."""

    yaml_implicit_resolvers = {
        first: [(tag, _PLAIN_BOOL if tag.endswith("bool") else one) for tag, one in resolvers]
        for first, resolvers in Reader.yaml_implicit_resolvers.items()
    }


class _Writer(yaml.SafeDumper):
    """Writes a text in quotes wherever it could be taken for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(writer: _Writer, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if _AMBIGUOUS.fullmatch(value) else None
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Writer.add_representer(str, _text)


def write(objects: Sequence[dict[str, Any]]) -> str:
    """The objects as YAML, one document each, in which a text is a text for every reader."""
    return yaml.dump_all(objects, Dumper=_Writer, sort_keys=False, width=100)
