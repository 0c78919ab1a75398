"""What a pod of ours must be, whatever kind of object makes it: who it runs as, what it may use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gnn_core.deploy.documents import Manifests
from gnn_core.deploy.objects import Object
from gnn_core.deploy.quantity import number_of
from gnn_core.deploy.shapes import shown
from gnn_core.usage import did_you_mean

Told = Iterator[tuple[str, str]]
"""(path in the document, message)."""

_PART = "[a-z0-9]+(?:(?:[.]|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_SOURCES = ("persistentVolumeClaim", "emptyDir", "configMap", "secret", "hostPath")


def pods_of(one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, pod's spec) for each template of the object."""
    spec = one.get("spec")
    places = ["template"]
    if one.get("kind") == "MPIJob":
        places = [f"mpiReplicaSpecs.{role}.template" for role in ("Launcher", "Worker")]
    for place in places:
        pod: Any = spec
        for part in (*place.split("."), "spec"):
            pod = pod.get(part) if isinstance(pod, dict) else None
        if isinstance(pod, dict):
            yield f"spec.{place}.spec", pod


def containers_of(path: str, pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, container), the one that the operator looks after first."""
    for key in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(key) or ()):
            yield f"{path}.{key}[{index}]", container


def image_told(path: str, container: dict[str, Any]) -> Told:
    """An image has a tag, and one that goes on meaning the same."""
    if problem := image_problem(container["image"]):
        yield f"{path}.image", problem


def image_problem(image: str) -> str | None:
    """What is wrong with the image's name, if anything is."""
    if not (found := _IMAGE.fullmatch(image)):
        return (
            "expected repository:tag, small letters in the repository, such as "
            f"registry.example/me/ringsage:0.1.0, got {shown(image)}: correct it"
        )
    if not found["digest"] and found["tag"] in (None, "latest"):
        return (
            f"expected repository:tag with a tag of its own, not latest, got {image!r}: add the "
            "version"
        )
    return None


def user_told(path: str, pod: dict[str, Any]) -> Told:
    """Nothing runs as root."""
    above = pod.get("securityContext") or {}
    for at, container in containers_of(path, pod):
        context = above | (container.get("securityContext") or {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            got = ", ".join(f"{key} {context.get(key)}" for key in ("runAsNonRoot", "runAsUser"))
            yield (
                f"{at}.securityContext",
                f"expected runAsNonRoot true and a runAsUser such as 1000, got {got}",
            )
        if context.get("privileged"):
            yield f"{at}.securityContext.privileged", "expected false, got true: leave it out"


def resources_told(path: str, container: dict[str, Any]) -> Told:
    """Requests equal limits: a pod that may be squeezed measures its neighbours."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in ("cpu", "memory"):
        if name not in limits:
            yield f"{path}.resources.limits.{name}", "expected a limit, got none: add it"
    for name in {*limits, *requests}:
        given, most = requests.get(name, limits.get(name)), limits.get(name)
        if most is not None and number_of(given) != number_of(most):
            yield (
                f"{path}.resources.requests.{name}",
                f"expected the limit, {most}, got {given}: make them equal",
            )


def volumes_told(path: str, pod: dict[str, Any], manifests: Manifests, external: set[str]) -> Told:
    """Every mount has its place and its volume, every volume one source that is there."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or ()}
    claims = manifests.names("PersistentVolumeClaim") | external
    for index, volume in enumerate(pod.get("volumes") or ()):
        at = f"{path}.volumes[{index}]"
        if len(sources := [name for name in _SOURCES if name in volume]) != 1:
            got = " and ".join(sources) or "none"
            yield at, f"expected one of {', '.join(_SOURCES)}, got {got}"
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is not None and claim not in claims:
            hint = did_you_mean(claim, claims) or ": add it, or say --external-pvc " + claim
            yield (
                f"{at}.persistentVolumeClaim.claimName",
                f"expected a claim among these manifests, got {claim!r}{hint}",
            )
        config = (volume.get("configMap") or {}).get("name")
        if config is not None and config not in manifests.names("ConfigMap"):
            yield (
                f"{at}.configMap.name",
                f"no ConfigMap {config!r} is among these manifests: add it",
            )
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


def memory_told(path: str, pod: dict[str, Any]) -> Told:
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


def ports_told(path: str, container: dict[str, Any]) -> Told:
    """A probe asks at a port that the container names."""
    ports = container.get("ports") or ()
    known = {port.get("name"): port["containerPort"] for port in ports}
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe is None:
            continue
        if not {"tcpSocket", "httpGet", "exec"} & probe.keys():
            yield f"{path}.{kind}", "expected tcpSocket, httpGet or exec, got none of them: add one"
        for way in ("tcpSocket", "httpGet"):
            asked = (probe.get(way) or {}).get("port")
            if asked is not None and asked not in known and asked not in known.values():
                has = ", ".join(map(str, known.values())) or "none"
                yield (
                    f"{path}.{kind}.{way}.port",
                    f"expected a port of the container ({has}), got {asked!r}",
                )


def names_told(path: str, pod: dict[str, Any]) -> Told:
    """No two containers, volumes or variables have one name."""
    for key in ("containers", "initContainers", "volumes"):
        yield from _twice(f"{path}.{key}", pod.get(key) or ())
    for at, container in containers_of(path, pod):
        yield from _twice(f"{at}.env", container.get("env") or ())


def _twice(path: str, named: Any) -> Told:
    seen: set[str] = set()
    for index, one in enumerate(named):
        if one["name"] in seen:
            yield f"{path}[{index}].name", f"{one['name']!r} stands twice: rename or remove one"
        seen.add(one["name"])
