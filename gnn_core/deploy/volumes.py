"""Rules for a pod's volumes: their sources, their mounts, and their sizes."""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.manifest_files import Manifests
from gnn_core.deploy.pods import Problems, containers_of
from gnn_core.deploy.quantity import number_of
from gnn_core.deploy.yaml_objects import name_of
from gnn_core.usage import did_you_mean

_SOURCES = (
    "persistentVolumeClaim",
    "emptyDir",
    "configMap",
    "secret",
    "projected",
    "downwardAPI",
    "ephemeral",
    "csi",
    "nfs",
    "hostPath",
    "image",
    "iscsi",
    "fc",
    "flexVolume",
    "azureFile",
    "cephfs",
    "glusterfs",
    "rbd",
    "awsElasticBlockStore",
    "gcePersistentDisk",
    "azureDisk",
    "cinder",
    "flocker",
    "gitRepo",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "scaleIO",
    "storageos",
    "vsphereVolume",
)
_USUAL = _SOURCES[:9]
_PROJECTED = (
    "configMap",
    "secret",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
)


def volumes_problems(
    path: str, pod: dict[str, Any], manifests: Manifests, there: set[str]
) -> Problems:
    """Every volume has one source, and the source is there."""
    claims = _names("PersistentVolumeClaim", manifests, there)
    configs = _names("ConfigMap", manifests, there)
    for index, volume in enumerate(pod.get("volumes") or ()):
        at = f"{path}.volumes[{index}]"
        if len(sources := [name for name in _SOURCES if name in volume]) != 1:
            got = " and ".join(sources) or "none"
            yield at, f"expected one of {', '.join(_USUAL)}, got {got}"
        yield from _source_problems(at, volume)
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is not None and claim not in claims:
            hint = did_you_mean(claim, claims) or ": add it, or say --external-pvc " + claim
            yield (
                f"{at}.persistentVolumeClaim.claimName",
                f"expected a claim among these manifests, got {claim!r}{hint}",
            )
        for one in manifests.of_kind("PersistentVolumeClaim"):
            if claim and name_of(one) == claim and one["spec"].get("volumeMode") == "Block":
                yield (
                    f"{at}.persistentVolumeClaim.claimName",
                    f"expected a claim of volumeMode Filesystem, got {claim!r} of Block",
                )
        config = volume.get("configMap") or {}
        if config.get("optional") is not True and "name" in config:
            if config["name"] not in configs:
                yield (
                    f"{at}.configMap.name",
                    f"no ConfigMap {config['name']!r} is among these manifests: add it, or say "
                    f"--external ConfigMap/{config['name']}",
                )


def _names(kind: str, manifests: Manifests, there: set[str]) -> set[str]:
    """Of the objects of that kind, among the manifests or in the cluster."""
    known = {one.partition("/")[2] for one in there if one.partition("/")[0] == kind}
    return manifests.names(kind) | known


def _source_problems(at: str, volume: dict[str, Any]) -> Problems:
    for kind in ("configMap", "secret", "downwardAPI"):
        for index, item in enumerate((volume.get(kind) or {}).get("items") or ()):
            if problem := _path_problem(item["path"]):
                yield f"{at}.{kind}.items[{index}].path", problem
    for index, one in enumerate((volume.get("projected") or {}).get("sources") or ()):
        given = [name for name in _PROJECTED if name in one]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            yield f"{at}.projected.sources[{index}]", f"expected one source, got {got}"
    for index, item in enumerate((volume.get("downwardAPI") or {}).get("items") or ()):
        if ("fieldRef" in item) == ("resourceFieldRef" in item):
            got = "both" if "fieldRef" in item else "none"
            yield (
                f"{at}.downwardAPI.items[{index}]",
                f"expected fieldRef or resourceFieldRef, got {got}",
            )
    medium = (volume.get("emptyDir") or {}).get("medium", "")
    if medium not in ("", "Memory") and not medium.startswith("HugePages"):
        yield f"{at}.emptyDir.medium", f"expected '' or 'Memory', got {medium!r}"


def _path_problem(path: str) -> str | None:
    if path.startswith("/") or ".." in path.split("/"):
        return f"expected a path in the volume, without .., got {shown(path)}"
    return None


def mounts_problems(path: str, pod: dict[str, Any], added: set[str]) -> Problems:
    """Every mount has a place of its own and a volume; what is read-only leaves room to write.

    `added` are the names of volumes that the pod is given when it is made.
    """
    volumes = {volume["name"] for volume in pod.get("volumes") or ()} | added
    for at, container in containers_of(path, pod):
        mounts = container.get("volumeMounts") or ()
        for index, mount in enumerate(mounts):
            if mount["mountPath"] in [other["mountPath"] for other in mounts[:index]]:
                yield f"{at}.volumeMounts[{index}].mountPath", "it stands twice: remove one"
            if mount["name"] not in volumes:
                yield (
                    f"{at}.volumeMounts[{index}].name",
                    f"no volume has the name {mount['name']!r}"
                    f"{did_you_mean(mount['name'], volumes)}",
                )
        locked = (container.get("securityContext") or {}).get("readOnlyRootFilesystem")
        if locked and "/tmp" not in [mount["mountPath"] for mount in mounts]:
            yield (
                f"{at}.volumeMounts",
                "the root file system is read-only: mount an emptyDir at /tmp",
            )


def memory_problems(path: str, pod: dict[str, Any]) -> Problems:
    """A volume in memory is bounded, and is counted as memory of the container that fills it."""
    for index, volume in enumerate(pod.get("volumes") or ()):
        in_memory = volume.get("emptyDir") or {}
        if in_memory.get("medium") != "Memory":
            continue
        at = f"{path}.volumes[{index}].emptyDir.sizeLimit"
        if "sizeLimit" not in in_memory:
            yield at, "expected a limit of what it takes of the memory, got none: add it"
            continue
        for index_of, container in enumerate(pod["containers"]):
            limit = container.get("resources", {}).get("limits", {}).get("memory")
            if limit and number_of(in_memory["sizeLimit"]) >= number_of(limit):
                yield (
                    at,
                    f"expected less than the memory of containers[{index_of}], {limit}, since it "
                    f"is part of it; got {in_memory['sizeLimit']}",
                )
