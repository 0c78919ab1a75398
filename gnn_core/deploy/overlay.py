"""Merges a folder of kustomize as `kubectl kustomize` does, as far as ours go; refuses the rest.

Understood are resources, images, labels (of the objects alone) and patches that are lists of JSON
operations (RFC 6902). For anything else: `kubectl kustomize FOLDER`, piped into the validator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from gnn_core.usage import UsageError, did_you_mean

FILE = "kustomization.yaml"
_KEYS = ("apiVersion", "kind", "resources", "images", "labels", "patches")
Load = Callable[[Path], list[dict[str, Any]]]


def build(folder: Path, load: Load, inside: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """The objects of the folder, patched. `load` reads a file of documents.

    Raises UsageError naming the file: what is not understood, a patch that meets nothing.
    """
    file = folder / FILE
    here = folder.resolve()
    if here in inside:
        raise UsageError(f"{file}: it is among its own resources: remove it there")
    if not file.is_file():
        raise UsageError(f"{folder}: expected a {FILE} in the folder, found none; name a file")
    documents = load(file)
    if len(documents) != 1:
        raise UsageError(f"{file}: expected one document, got {len(documents)}")
    settings = documents[0]
    for key in settings:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or "; pipe `kubectl kustomize` into validate instead"
            raise UsageError(f"{file}: {key}: expected one of {', '.join(_KEYS)}{hint}")
    try:
        objects = [
            one
            for name in settings.get("resources") or ()
            for one in (
                build(folder / name, load, (*inside, here))
                if (folder / name).is_dir()
                else load(folder / name)
            )
        ]
        for patch in settings.get("patches") or ():
            _patch(objects, patch, file)
        for image in settings.get("images") or ():
            _rename_image(objects, image)
        for label in settings.get("labels") or ():
            for one in objects:
                one["metadata"].setdefault("labels", {}).update(label["pairs"])
    except yaml.YAMLError as error:
        raise UsageError(
            f"{file}: patches: expected YAML: {' '.join(str(error).split())}"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: expected what kustomize reads: {error!r}") from None
    return objects


def _patch(objects: list[dict[str, Any]], patch: dict[str, Any], file: Path) -> None:
    target = patch["target"]
    if strange := set(patch) - {"target", "patch"} | set(target) - {"kind", "name"}:
        raise UsageError(
            f"{file}: patches: expected a target (kind, name) and a patch, got {min(strange)}"
        )
    operations = yaml.safe_load(patch["patch"])
    if not isinstance(operations, list):
        raise UsageError(
            f"{file}: patches: expected a list of operations such as "
            "{op: replace, path: /spec/slotsPerWorker, value: 4}, got another kind of patch"
        )
    met = [
        one
        for one in objects
        if target.get("kind", one["kind"]) == one["kind"]
        and target.get("name", one["metadata"]["name"]) == one["metadata"]["name"]
    ]
    if not met:
        raise UsageError(f"{file}: patches: no resource is {target}: correct the target")
    for one in met:
        for operation in operations:
            try:
                _apply(one, operation)
            except (KeyError, IndexError, TypeError, ValueError):
                raise UsageError(
                    f"{file}: patches: {operation.get('op')} {operation.get('path')} meets "
                    f"nothing in {one['kind']}/{one['metadata']['name']}: correct op or path"
                ) from None


def _apply(document: Any, operation: dict[str, Any]) -> None:
    op, path = operation["op"], operation["path"]
    *above, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    place = document
    for part in above:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if op not in ("add", "replace", "remove"):
        raise ValueError(op)
    if isinstance(place, list):
        index = len(place) if last == "-" and op == "add" else int(last)
        if index > len(place) or (op != "add" and index == len(place)):
            raise IndexError(index)
        place[index : index + (op != "add")] = (
            [] if op == "remove" else [copy.deepcopy(operation["value"])]
        )
        return
    if op != "add":
        del place[last]  # a KeyError where it is not there
    if op != "remove":
        place[last] = copy.deepcopy(operation["value"])


def _rename_image(objects: list[dict[str, Any]], change: dict[str, Any]) -> None:
    for container in (one for document in objects for one in containers_in(document)):
        name, colon, tag = split_image(container["image"])
        if name == change["name"]:
            tag = str(change.get("newTag", tag))
            container["image"] = change.get("newName", name) + (f":{tag}" if tag else "")


def split_image(image: str) -> tuple[str, str, str]:
    """(repository, the mark between, tag or digest); a registry's port is no tag."""
    if "@" in image:
        return image.partition("@")
    name, colon, tag = image.rpartition(":")
    return (name, colon, tag) if colon and "/" not in tag else (image, "", "")


def containers_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every container below `value`, of any kind of object."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in ("containers", "initContainers") and isinstance(below, list):
                yield from (one for one in below if isinstance(one, dict) and "image" in one)
            else:
                yield from containers_in(below)
    elif isinstance(value, list):
        for one in value:
            yield from containers_in(one)
