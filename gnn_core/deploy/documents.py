"""Manifests as they are read: YAML files, folders of kustomize, and what is found wrong in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gnn_core.deploy import overlay
from gnn_core.usage import UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = REPOSITORY / "mpi-operator"

Object = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    file: str
    path: str  # from the document's top, such as MPIJob/pi: spec.slotsPerWorker
    message: str  # what was expected, what came, what to change

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.path, self.message) if part)


@dataclass(frozen=True)
class Manifests:
    """The objects that are applied together."""

    file: str  # as the user named it
    objects: Sequence[Object]

    def of_kind(self, kind: str) -> list[Object]:
        """The objects of that kind."""
        return [one for one in self.objects if one.get("kind") == kind]

    def names(self, kind: str) -> set[str]:
        """The names of the objects of that kind."""
        return {name_of(one) for one in self.of_kind(kind)}


def name_of(one: Object) -> str:
    """Its metadata.name; an empty string where that is no text."""
    metadata = one.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def title_of(one: Object) -> str:
    """Kind and name, to find it by in a file of several."""
    return f"{one.get('kind', 'document')}/{name_of(one) or '(no name)'}"


def read_manifests(given: str) -> Manifests:
    """A file of YAML, `-` for standard input, or a folder with a kustomization.yaml.

    Raises UsageError where it cannot be read.
    """
    if given == "-":
        return Manifests("standard input", parse(sys.stdin.read(), "standard input"))
    path = Path(given)
    if path.is_dir():
        return Manifests(given, overlay.build(path, load))
    return Manifests(given, load(path))


def load(path: Path) -> list[Object]:
    """The documents of one file. Raises UsageError naming it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path}: expected a manifest or a kustomize folder: {reason}") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> list[Object]:
    """The documents in `text`, without aliases: what two places share is there twice.

    A key that stands twice is refused, of which YAML would silently take the second.
    """
    try:
        documents = [one for one in yaml.load_all(text, _Strict) if one is not None]
        # Through JSON, as the API server gets them: dates and keys that are no text have no place.
        documents = json.loads(json.dumps(documents, default=_refuse))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{file}: expected YAML, got{line}: {' '.join(problem.split())}") from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    for number, one in enumerate(documents, start=1):
        if not isinstance(one, dict):
            raise UsageError(f"{file}: document {number}: expected a mapping, got {one!r}")
    return list(documents)


class _Strict(yaml.SafeLoader):
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
    raise ValueError(f"expected texts, numbers, lists and mappings, got {value!r}: quote it")
