"""Rules of the API server for persistent volumes and claims, ConfigMaps and Secrets."""

from __future__ import annotations

import base64
from typing import Any

from gnn_core.deploy.field_types import expected, is_scalar, shown
from gnn_core.deploy.pods import Problems
from gnn_core.deploy.quantity import number_of
from gnn_core.deploy.yaml_objects import Object

_ALONE = "ReadWriteOncePod"
_MOST_BYTES = 2**20
_SOURCES = (
    "nfs",
    "hostPath",
    "csi",
    "local",
    "iscsi",
    "fc",
    "cephfs",
    "rbd",
    "glusterfs",
    "azureFile",
    "azureDisk",
    "awsElasticBlockStore",
    "gcePersistentDisk",
    "vsphereVolume",
    "cinder",
    "flocker",
    "flexVolume",
    "portworxVolume",
    "photonPersistentDisk",
    "quobyte",
    "scaleIO",
    "storageos",
)


def volume_problems(one: Object) -> Problems:
    """A claim, or a volume: its modes, its size, its class and where it lies."""
    spec = one["spec"]
    modes = spec["accessModes"]
    if _ALONE in modes and set(modes) != {_ALONE}:
        others = ", ".join(mode for mode in modes if mode != _ALONE)
        yield "spec.accessModes", f"expected {_ALONE} alone, got it beside {others}: remove one"
    if (name := spec.get("storageClassName")) and not is_scalar(name, "name"):
        yield "spec.storageClassName", f"expected {expected('name')}, got {shown(name)}"
    if one["kind"] == "PersistentVolumeClaim":
        yield from _claim_problems(spec)
    else:
        yield from _source_problems(spec)


def _claim_problems(spec: dict[str, Any]) -> Problems:
    asked = spec["resources"]["requests"]["storage"]
    yield from _size_problems("spec.resources.requests.storage", asked)
    most = (spec["resources"].get("limits") or {}).get("storage")
    if most is not None and number_of(most) < number_of(asked):
        at = "spec.resources.limits.storage"
        yield at, f"expected at least what is requested, {asked}, got {most}"


def _source_problems(spec: dict[str, Any]) -> Problems:
    yield from _size_problems("spec.capacity.storage", spec["capacity"]["storage"])
    if len(given := [name for name in _SOURCES if name in spec]) != 1:
        got = " and ".join(given) or "none"
        yield "spec", f"expected one source such as nfs, csi or local, got {got}"
    if "local" in spec and "nodeAffinity" not in spec:
        yield "spec.nodeAffinity", "expected the node of a local volume, got none: add it"
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy == "Recycle" and not {"nfs", "hostPath"} & spec.keys():
        yield "spec.persistentVolumeReclaimPolicy", "expected Retain or Delete, got Recycle"


def _size_problems(path: str, size: Any) -> Problems:
    if number_of(size) <= 0:
        yield path, f"expected more than 0, got {size}"


def data_problems(one: Object) -> Problems:
    """A ConfigMap or a Secret: what is bytes is base64, no key is there twice, and it fits."""
    binary = "binaryData" if one["kind"] == "ConfigMap" else "data"
    plain = "data" if one["kind"] == "ConfigMap" else "stringData"
    total = sum(len(text.encode()) for text in (one.get(plain) or {}).values())
    for key, text in (one.get(binary) or {}).items():
        try:
            total += len(base64.b64decode("".join(text.split()), validate=True))
        except ValueError:
            hint = f": encode it, or write it to {plain}"
            yield f"{binary}.{key}", f"expected base64, got {shown(text)}{hint}"
        if one["kind"] == "ConfigMap" and key in (one.get(plain) or {}):
            yield f"{binary}.{key}", f"it is in {plain} as well: remove one"
    if total > _MOST_BYTES:
        yield plain, f"expected at most {_MOST_BYTES} bytes in all, got {total}: split it"
