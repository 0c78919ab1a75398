"""Compares objects with the schema that Kubernetes publishes, which `kubernetes-validate` carries.

That package is the optional extra `deploy`: without it the rules are checked, the fields are not.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.yaml_objects import Object
from gnn_core.usage import did_you_mean

VERSION = "1.36"
"""Of Kubernetes, whose fields are compared."""
_OPERATORS = "1.35"  # of the pods in an MPIJob: what the MPI Operator's 0.8.2 was built with
HOW = "install kubernetes-validate 1.36 to have them compared"
NOT_CHECKED = (
    "fields of pods and of Kubernetes' own objects were not compared with its schema, the rules "
    f"alone were checked: {HOW}"
)
"""The note of a check without the installed schema."""
_PACKAGE = "kubernetes_validate"
_FILE = "kubernetes-json-schema/v{}.0-local-strict/_definitions.json"
_MOST_COMPARED = 1000
_compared: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
_EXPECTED = {
    "string": "a text (numbers and true in quotes)",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def is_there() -> bool:
    """Whether the schema is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def is_known(one: Object) -> bool:
    """Whether the schema has the kind of the object, in its version."""
    return _key_of(one) in _kinds()


def kinds() -> set[str]:
    """The names of all kinds in the schema; none where it is not installed."""
    return {kind for _, _, kind in _kinds()}


def object_problems(one: Object) -> Iterator[tuple[str, str]]:
    """Yield (path, message) of each field that the schema has otherwise."""
    yield from _problems(one, _kinds()[_key_of(one)], "")


def template_problems(template: Any, path: str) -> Iterator[tuple[str, str]]:
    """The same of the template of a pod that an MPIJob has at `path`."""
    yield from _problems(template, "io.k8s.api.core.v1.PodTemplateSpec", path, _OPERATORS)


def _key_of(one: Object) -> tuple[str, str, str]:
    group, _, version = str(one.get("apiVersion")).rpartition("/")
    return group, version, str(one.get("kind"))


@functools.cache
def _definitions(version: str) -> dict[str, Any]:
    if not is_there():
        return {}
    text = resources.files(_PACKAGE).joinpath(_FILE.format(version)).read_text("utf-8")
    return dict(json.loads(text))


@functools.cache
def _kinds() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) -> the name of its definition."""
    return {
        (one["group"], one["version"], one["kind"]): name
        for name, definition in _definitions(VERSION).get("$defs", {}).items()
        for one in definition.get("x-kubernetes-group-version-kind", ())
    }


@functools.cache
def _validator(name: str, version: str) -> Any:
    import jsonschema
    import referencing

    contents = _definitions(version)
    registry = referencing.Resource.from_contents(contents) @ referencing.Registry()
    schema = {"$ref": f"{contents['$id']}#/$defs/{name}"}
    return jsonschema.Draft202012Validator(schema, registry=registry)


def _problems(
    value: Any, name: str, path: str, version: str = VERSION
) -> Iterator[tuple[str, str]]:
    for at, message in _problems_within(value, name, version):
        yield f"{path}{'.' if path and at and at[0] != '[' else ''}{at}", message


def _problems_within(value: Any, name: str, version: str) -> list[tuple[str, str]]:
    """The problems of a value by its content: the pods of several manifests are often the same."""
    content = (repr(value), name, version)
    if content not in _compared:
        if len(_compared) == _MOST_COMPARED:
            _compared.clear()
        _compared[content] = [
            problem
            for error in _validator(name, version).iter_errors(value)
            for problem in _of(error, _written(error.absolute_path))
        ]
    return _compared[content]


def _written(path: Iterable[str | int]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def _of(error: Any, at: str) -> Iterator[tuple[str, str]]:
    """What one error of jsonschema says, in the words of `field_types`."""
    got = shown(error.instance)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                hint = did_you_mean(key, known) or ", which Kubernetes' schema does not have"
                yield f"{at}.{key}" if at else key, f"unknown field{hint}"
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                missing = "expected it to be there, it is missing: add it"
                yield f"{at}.{key}" if at else key, missing
    elif error.validator == "type":
        kinds = [one for one in _listed(error.validator_value) if one != "null"]
        yield at, f"expected {' or '.join(_EXPECTED[one] for one in kinds)}, got {got}"
    elif error.validator in ("oneOf", "anyOf"):
        yield at, f"expected a number or a text, got {got}"
    elif error.validator == "enum":
        yield at, f"expected {' or '.join(map(repr, error.validator_value))}, got {got}"
    else:
        yield at, f"Kubernetes' schema refuses {got}: {error.message}"


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
