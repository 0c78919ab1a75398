"""Merges a kustomize folder as `kubectl kustomize` does, for the fields that ours use.

Understood are resources, images, labels (of the objects alone) and patches that are lists of JSON
operations (RFC 6902). For anything else: `kubectl kustomize FOLDER`, piped into the validator.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnn_core.deploy.field_types import compare, shown
from gnn_core.deploy.yaml_objects import Object, load, name_of, title_of, values_in
from gnn_core.deploy.yaml_text import ResourceReader
from gnn_core.usage import UsageError

FILE = "kustomization.yaml"
_FILES = (FILE, "kustomization.yml", "Kustomization")
_SHAPE = {
    "apiVersion": "text",
    "kind": ("Kustomization",),
    "resources": ["text"],
    "images": [{"name!": "text", "newName": "text", "newTag": "text"}],
    "labels": [{"pairs!": {"*": "label"}}],
    "patches": [{"target!": {"kind": "text", "name": "text"}, "patch!": "text"}],
}
_OPERATION = {"op!": ("add", "replace", "remove"), "path!": "path", "value": "any"}


def build(folder: Path, inside: tuple[Path, ...] = ()) -> list[Object]:
    """The objects of the folder, patched.

    Raises UsageError naming the file: what is not understood, a patch that meets nothing.
    """
    here = folder.resolve()
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    if len(found) != 1:
        got = " and ".join(file.name for file in found) or "none; name a file"
        raise UsageError(f"{folder}: expected a {FILE} in the folder, found {got}")
    (file,) = found
    if here in inside:
        raise UsageError(f"{file}: it is among its own resources: remove it there")
    documents = load(file)
    if len(documents) != 1:
        raise UsageError(f"{file}: expected one document, got {len(documents)}")
    settings = documents[0]
    for path, message in compare(settings, _SHAPE):
        raise UsageError(
            f"{file}: {path}: {message}; for what else kustomize has, pipe `kubectl kustomize` "
            "into validate"
        )
    objects: list[Object] = []
    for name in settings.get("resources", ()):
        objects += _resource(folder, name, file, (*inside, here))
    for patch in settings.get("patches", ()):
        _patch(objects, patch, file)
    for image in settings.get("images", ()):
        _rename_image(objects, image)
    for label in settings.get("labels", ()):
        for one in objects:
            _put_on(one, label["pairs"])
    return objects


def _resource(folder: Path, name: str, file: Path, inside: tuple[Path, ...]) -> list[Object]:
    path = folder / name
    if "://" in name:
        raise UsageError(f"{file}: resources: expected a file or folder here, got {shown(name)}")
    if is_folder(path):
        return build(path, inside)
    objects = load(path, ResourceReader)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{file}: resources: expected files below {folder}, which kustomize asks for, got "
            f"{shown(name)}: name its folder, or copy it"
        )
    return objects


def is_folder(path: Path) -> bool:
    """Whether it is one; no name is too long to ask."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _patch(objects: list[Object], patch: dict[str, Any], file: Path) -> None:
    target = patch["target"]
    documents = values_in(patch["patch"], f"{file}: patches")
    operations = documents[0] if len(documents) == 1 else documents
    for at, message in compare({"patch": operations}, {"patch!": [_OPERATION]}, "patches"):
        raise UsageError(
            f"{file}: {at}: {message}; expected a list of operations such as "
            "{op: replace, path: /spec/slotsPerWorker, value: 4}"
        )
    met = [
        one
        for one in objects
        if target.get("kind", one.get("kind")) == one.get("kind")
        and target.get("name", name_of(one)) == name_of(one)
    ]
    if not met:
        raise UsageError(f"{file}: patches: no resource is {target}: correct the target")
    for one in met:
        for operation in operations:
            try:
                _apply(one, operation)
            except (KeyError, IndexError, TypeError, ValueError):
                raise UsageError(
                    f"{file}: patches: {operation['op']} {operation['path']} meets nothing in "
                    f"{title_of(one)}: correct op or path"
                ) from None


def _apply(document: Any, operation: dict[str, Any]) -> None:
    op, path = operation["op"], operation["path"]
    *above, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    place = document
    for part in above:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        index = len(place) if last == "-" and op == "add" else int(last)
        if not 0 <= index < len(place) + (op == "add"):
            raise IndexError(index)
        place[index : index + (op != "add")] = (
            [] if op == "remove" else [copy.deepcopy(operation["value"])]
        )
        return
    if op != "add":
        del place[last]  # a KeyError where it is not there
    if op != "remove":
        place[last] = copy.deepcopy(operation["value"])


def _put_on(one: Object, labels: dict[str, str]) -> None:
    """Label the object; where it has no place for labels, its structure is reported as wrong."""
    metadata = one.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.setdefault("labels", {}), dict):
        metadata["labels"].update(labels)


def _rename_image(objects: list[dict[str, Any]], change: dict[str, Any]) -> None:
    for container in (one for document in objects for one in containers_in(document)):
        name, colon, tag = split_image(container["image"])
        if name == change["name"]:
            tag = change.get("newTag", tag)
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
                yield from (
                    one
                    for one in below
                    if isinstance(one, dict) and isinstance(one.get("image"), str)
                )
            else:
                yield from containers_in(below)
    elif isinstance(value, list):
        for one in value:
            yield from containers_in(one)
