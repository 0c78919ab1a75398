"""Rules of the API server for a container, beyond the types of its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gnn_core.deploy.field_types import expected, is_scalar, shown
from gnn_core.deploy.pods import PROBES, Problems, containers_of, handlers_of
from gnn_core.deploy.quantity import number_of

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_SIZES = ("limits", "requests")
_OWN = ("cpu", "memory", "ephemeral-storage")
_RESOURCE_FIELD = re.compile(
    r"(?:limits|requests)\.(?:cpu|memory|ephemeral-storage|hugepages-[^ ]+)"
)
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "secretKeyRef", "configMapKeyRef", "fileKeyRef")


def container_problems(path: str, container: dict[str, Any]) -> Problems:
    """One container by itself; `path` tells whether it is an init container."""
    yield from _ports_problems(path, container)
    yield from _variables_problems(path, container)
    yield from _handlers_problems(path, container)
    yield from _amounts_problems(path, container)
    yield from _mounts_problems(path, container)
    if ".initContainers[" in path:
        yield from _init_problems(path, container)


def names_problems(path: str, pod: dict[str, Any]) -> Problems:
    """No two containers of a pod, init containers among them, and no two volumes have one name."""
    seen: dict[str, str] = {}
    for at, container in containers_of(path, pod):
        name = container["name"]
        if name in seen:
            yield (
                f"{at}.name",
                f"{name!r} stands twice, here and in {seen[name]}: rename or remove one",
            )
        seen.setdefault(name, at.rpartition(".")[2])
    yield from _twice(f"{path}.volumes", pod.get("volumes") or (), ("name",))


def host_ports_problems(path: str, pod: dict[str, Any]) -> Problems:
    """In the network of the host a port is the host's, and no two containers have the same."""
    seen = set()
    for at, container in containers_of(path, pod):
        for index, port in enumerate(container.get("ports") or ()):
            number = port.get("hostPort", port["containerPort"] if pod.get("hostNetwork") else None)
            key = (number, port.get("protocol", "TCP"), port.get("hostIP"))
            if pod.get("hostNetwork") and number != port["containerPort"]:
                got = f"expected {port['containerPort']}, the containerPort, got {number}"
                yield f"{at}.ports[{index}].hostPort", got
            elif number is not None and key in seen:
                yield f"{at}.ports[{index}].hostPort", f"{number} stands twice: change one"
            seen.add(key)


def lists_problems(path: str, pod: dict[str, Any]) -> Problems:
    """Lists that the API of an MPIJob takes as mappings: no two entries of them have one key.

    In a pod of Kubernetes' own the second variable, or port, of a name may stand.
    """
    for at, container in containers_of(path, pod):
        for name, keys in (
            ("env", ("name",)),
            ("ports", ("containerPort", "protocol")),
            ("volumeDevices", ("devicePath",)),
        ):
            yield from _twice(f"{at}.{name}", container.get(name) or (), keys)
    for name, key in (("hostAliases", "ip"), ("imagePullSecrets", "name")):
        yield from _twice(f"{path}.{name}", pod.get(name) or (), (key,))
    for at, container in containers_of(path, pod):
        resources = container.get("resources") or {}
        for name in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}:
            amounts = {kind: (resources.get(kind) or {}).get(name) for kind in _SIZES}
            if wrong := [kind for kind, amount in amounts.items() if isinstance(amount, float)]:
                yield (
                    f"{at}.resources.{wrong[0]}.{name}",
                    f"expected a whole number or a text in limits and requests, got "
                    f"{amounts[wrong[0]]}: put it in quotes",
                )


def _twice(path: str, entries: Sequence[dict[str, Any]], keys: tuple[str, ...]) -> Problems:
    seen = set()
    for index, one in enumerate(entries):
        value = tuple(one.get(key, "TCP" if key == "protocol" else None) for key in keys)
        if value in seen:
            got = shown(one.get(keys[0]))
            yield f"{path}[{index}].{keys[0]}", f"{got} stands twice: rename or remove one"
        seen.add(value)


def _ports_problems(path: str, container: dict[str, Any]) -> Problems:
    named = [
        (index, one["name"])
        for index, one in enumerate(container.get("ports") or ())
        if one.get("name")
    ]
    for place, (index, name) in enumerate(named):
        if name in [other for _, other in named[:place]]:
            yield f"{path}.ports[{index}].name", f"{name!r} stands twice: rename or remove one"


def _variables_problems(path: str, container: dict[str, Any]) -> Problems:
    for index, one in enumerate(container.get("env") or ()):
        at, source = f"{path}.env[{index}]", one.get("valueFrom")
        if source is not None and one.get("value"):
            yield at, "expected value or valueFrom, got both: remove one"
        if source is None:
            continue
        if len(given := [name for name in _ENV_SOURCES if name in source]) != 1:
            got = " and ".join(given) or "none"
            yield f"{at}.valueFrom", f"expected one of {', '.join(_ENV_SOURCES)}, got {got}"
        if (field := (source.get("fieldRef") or {}).get("fieldPath")) is not None:
            if problem := _field_problem(field):
                yield f"{at}.valueFrom.fieldRef.fieldPath", problem
        if (field := (source.get("resourceFieldRef") or {}).get("resource")) is not None:
            if not _RESOURCE_FIELD.fullmatch(field):
                yield (
                    f"{at}.valueFrom.resourceFieldRef.resource",
                    f"expected limits.cpu, requests.memory or another such, got {shown(field)}",
                )
    for index, one in enumerate(container.get("envFrom") or ()):
        given = [name for name in ("configMapRef", "secretRef") if name in one]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            yield f"{path}.envFrom[{index}]", f"expected configMapRef or secretRef, got {got}"


def _field_problem(field: str) -> str | None:
    found = _SUBSCRIPT.fullmatch(field)
    if found and is_scalar(found[2], "label key"):
        return None
    if found:
        return f"expected {expected('label key')}, got {shown(found[2])}"
    if field in _FIELDS:
        return None
    return (
        f"expected {', '.join(_FIELDS)}, metadata.labels['KEY'] or metadata.annotations['KEY'], "
        f"got {shown(field)}"
    )


def _handlers_problems(path: str, container: dict[str, Any]) -> Problems:
    """A probe or a hook does one thing."""
    for name, one in handlers_of(container):
        possible = [handler for handler in _HANDLERS if handler != "sleep" or "." in name]
        if "." in name:
            possible.remove("grpc")
        if len(given := [handler for handler in possible if handler in one]) != 1:
            got = " and ".join(given) or "none"
            many = "remove all but one" if given else "add one"
            yield f"{path}.{name}", f"expected one of {', '.join(possible)}, got {got}: {many}"
        if name in ("livenessProbe", "startupProbe") and one.get("successThreshold", 1) > 1:
            got = one["successThreshold"]
            yield f"{path}.{name}.successThreshold", f"expected 1, got {got}: leave it out"
        if name == "readinessProbe" and "terminationGracePeriodSeconds" in one:
            at = f"{path}.{name}.terminationGracePeriodSeconds"
            yield at, "a readiness probe ends nothing: leave it out"


def _amounts_problems(path: str, container: dict[str, Any]) -> Problems:
    """Resources have names that Kubernetes knows, and devices are whole."""
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for kind in _SIZES:
        for name, amount in (resources.get(kind) or {}).items():
            at = f"{path}.resources.{kind}.{name}"
            if name in _OWN or name.startswith("hugepages-"):
                continue
            if kind == "requests" and limits.get(name) == amount:  # reported there
                continue
            if not is_scalar(name, "label key") or "/" not in name or name.startswith("requests."):
                yield (
                    at,
                    f"expected {', '.join(_OWN)}, hugepages-SIZE or a device such as "
                    f"nvidia.com/gpu, got {shown(name)}",
                )
            elif number_of(amount) % 1:
                yield at, f"expected a whole number of devices, got {amount}"
            elif kind == "requests" and name not in limits:
                yield at, "expected the same among the limits, got none: add it there"


def _mounts_problems(path: str, container: dict[str, Any]) -> Problems:
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{index}]"
        if ":" in mount["mountPath"]:
            yield f"{at}.mountPath", f"expected a path without :, got {mount['mountPath']!r}"
        for name in ("subPath", "subPathExpr"):
            below = mount.get(name) or ""
            if below.startswith("/") or ".." in below.split("/"):
                yield f"{at}.{name}", f"expected a path in the volume, without .., got {below!r}"
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield f"{at}.subPathExpr", "expected subPath or subPathExpr, got both: remove one"


def _init_problems(path: str, container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """An init container ends, unless it is restarted always: then it is a sidecar."""
    policy = container.get("restartPolicy")
    if policy == "Always":
        return
    if policy is not None:
        yield f"{path}.restartPolicy", f"expected Always or nothing, got {policy!r}"
    for name in (*PROBES, "lifecycle"):
        if name in container:
            yield (
                f"{path}.{name}",
                "an init container without restartPolicy: Always has none: leave it out",
            )
