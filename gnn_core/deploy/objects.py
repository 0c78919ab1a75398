"""Objects of Kubernetes as a text of YAML holds them: plain values, bounded, each key once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from gnn_core.deploy.shapes import shown
from gnn_core.usage import UsageError

Object = dict[str, Any]

# The API server takes less of one object; PyYAML reads as much within seconds.
_MOST_BYTES, _MOST_VALUES = 2**20, 100_000


def name_of(one: Object) -> str:
    """Its metadata.name; an empty string where that is no text."""
    metadata = one.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def title_of(one: Object) -> str:
    """Kind and name, to find it by in a file of several."""
    kind = one.get("kind")
    return f"{kind if isinstance(kind, str) else 'document'}/{name_of(one) or '(no name)'}"


def load(path: Path) -> list[Object]:
    """The documents of one file. Raises UsageError naming it."""
    try:
        with path.open("rb") as file:
            return parse(text_in(file, str(path)), str(path))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: expected a manifest or a kustomize folder: {reason}") from None


def text_in(file: BinaryIO, name: str) -> str:
    """All of an open file. Raises UsageError by its name."""
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{name}: expected manifests of at most {_MOST_BYTES} bytes, got more")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: expected a manifest in UTF-8, got another byte at {error.start}: convert it"
        ) from None


def parse(text: str, file: str) -> list[Object]:
    """The objects in `text`. Raises UsageError by the file's name."""
    documents = [one for one in values_in(text, file) if one is not None]
    for number, one in enumerate(documents, start=1):
        if not isinstance(one, dict):
            raise UsageError(f"{file}: document {number}: expected a mapping, got {shown(one)}")
    return documents


def values_in(text: str, name: str) -> list[Any]:
    """The documents in `text`, without aliases: what two places share is there twice.

    A key that stands twice is refused, of which YAML would silently take the second.
    """
    try:
        # Through JSON, as the API server gets them: dates and keys that are no text have no place.
        documents = json.dumps(list(yaml.load_all(text, _Strict)), default=_refuse)
        return list(json.loads(documents))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{name}: expected YAML, got{line}: {' '.join(problem.split())}") from None
    except RecursionError:
        raise UsageError(f"{name}: expected a manifest, got too many levels: flatten it") from None
    except ValueError as error:
        raise UsageError(f"{name}: expected YAML, got {error}") from None


class _Strict(yaml.SafeLoader):
    """YAML without keys that stand twice, and without aliases that make megabytes of a line."""

    def __init__(self, text: str):
        super().__init__(text)
        self._num_nodes = 0  # with aliases counted as what they stand for
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        before, mark = self._num_nodes, self.peek_event().start_mark
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if is_alias and node not in self._sizes:
            problem = "an alias inside of what it stands for"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        self._num_nodes += self._sizes[node] if is_alias else 1
        self._sizes[node] = self._num_nodes - before
        if self._num_nodes > _MOST_VALUES:
            problem = f"more than {_MOST_VALUES} values, those of aliases counted: split it"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else None
            if word in seen:
                problem = f"the key {word!r} stands twice: remove one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(word)
        return super().construct_mapping(node, deep)


def _refuse(value: object) -> Any:
    raise ValueError(f"{shown(value)}, which is no text, number, list or mapping: quote it")
