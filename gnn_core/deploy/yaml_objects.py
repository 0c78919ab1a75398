"""Reads Kubernetes objects from YAML, of bounded size and each key once; their names and titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.yaml_text import Reader
from gnn_core.files import read_regular
from gnn_core.settings.bounded_yaml import MOST_BYTES
from gnn_core.usage import UsageError

Object = dict[str, Any]


def name_of(one: Object) -> str:
    """Its metadata.name; an empty string where that is no text."""
    metadata = one.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def title_of(one: Object) -> str:
    """Kind and name, to find it by in a file of several."""
    kind = one.get("kind")
    return f"{kind if isinstance(kind, str) else 'document'}/{name_of(one) or '(no name)'}"


def without_nulls(value: Any) -> Any:
    """The value without fields that are null, which the API server takes as not written."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def load(path: Path, reader: type[Reader] = Reader) -> list[Object]:
    """The documents of one file. Raises UsageError naming it."""
    try:
        content = read_regular(path, MOST_BYTES)
    except UsageError as error:
        raise UsageError(f"{path}: expected a manifest or a kustomize folder: {error}") from None
    return parse(_decoded(content, str(path)), str(path), reader)


def text_in(file: BinaryIO, name: str) -> str:
    """All of an open file. Raises UsageError by its name."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UsageError(f"{name}: expected manifests of at most {MOST_BYTES} bytes, got more")
    return _decoded(content, name)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: expected a manifest in UTF-8, got another byte at {error.start}: convert it"
        ) from None


def parse(text: str, file: str, reader: type[Reader] = Reader) -> list[Object]:
    """The objects in `text`. Raises UsageError by the file's name."""
    documents = [one for one in values_in(text, file, reader) if one is not None]
    for number, one in enumerate(documents, start=1):
        if not isinstance(one, dict):
            raise UsageError(f"{file}: document {number}: expected a mapping, got {shown(one)}")
    return documents


def values_in(text: str, name: str, reader: type[Reader] = Reader) -> list[Any]:
    """The documents in `text`, without aliases: what two places share is there twice.

    A key that stands twice is refused, of which YAML would silently take the second.
    """
    try:
        # Through JSON, as the API server gets them: dates and keys that are no text have no place.
        documents = json.dumps(list(yaml.load_all(text, reader)), default=_refuse)
        return list(json.loads(documents))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{name}: expected YAML, got{line}: {' '.join(problem.split())}") from None
    except RecursionError:
        raise UsageError(f"{name}: expected a manifest, got too many levels: flatten it") from None
    except (ValueError, OverflowError) as error:  # of an escape, a date or a number
        raise UsageError(f"{name}: expected YAML, got {error}") from None


def _refuse(value: object) -> Any:
    raise ValueError(f"{shown(value)}, which is no text, number, list or mapping: quote it")
