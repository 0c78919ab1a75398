"""Pods, whatever kind of object makes them: where they are, their images and their sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.quantity import number_of
from gnn_core.deploy.yaml_objects import Object

Problems = Iterator[tuple[str, str]]
"""(path in the document, message)."""

_PART = "[a-z0-9]+(?:(?:[.]|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)

PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_TEMPLATES = {  # where a kind of object has the templates of its pods, unless in spec.template
    "MPIJob": tuple(f"spec.mpiReplicaSpecs.{role}.template" for role in ("Launcher", "Worker")),
    "CronJob": ("spec.jobTemplate.spec.template",),
    "Pod": ("",),
}


def pods_of(one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, pod's spec) for each template of the object."""
    for place in _TEMPLATES.get(str(one.get("kind")), ("spec.template",)):
        pod: Any = one
        for part in (*place.split("."), "spec") if place else ("spec",):
            pod = pod.get(part) if isinstance(pod, dict) else None
        if isinstance(pod, dict):
            yield f"{place}.spec".removeprefix("."), pod


def containers_of(path: str, pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, container), the one that the operator looks after first."""
    for key in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(key) or ()):
            yield f"{path}.{key}[{index}]", container


def handlers_of(container: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, what it does) for each probe and each hook of the container."""
    lifecycle = container.get("lifecycle") or {}
    for name, one in [
        *((name, container.get(name)) for name in PROBES),
        *((f"lifecycle.{name}", lifecycle.get(name)) for name in ("preStop", "postStart")),
    ]:
        if one is not None:
            yield name, one


def image_problems(path: str, container: dict[str, Any]) -> Problems:
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


def resources_problems(path: str, container: dict[str, Any]) -> Problems:
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


def ports_problems(path: str, container: dict[str, Any]) -> Problems:
    """A probe asks at a port that the container names."""
    ports = container.get("ports") or ()
    known = {port.get("name"): port["containerPort"] for port in ports}
    for kind in PROBES:
        probe = container.get(kind)
        if probe is None:
            continue
        for way in ("tcpSocket", "httpGet"):
            asked = (probe.get(way) or {}).get("port")
            if asked is not None and asked not in known and asked not in known.values():
                has = ", ".join(map(str, known.values())) or "none"
                yield (
                    f"{path}.{kind}.{way}.port",
                    f"expected a port of the container ({has}), got {asked!r}",
                )
