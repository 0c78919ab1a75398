"""Rules of the API server for a Service, and for objects that select pods."""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.field_types import is_scalar, shown
from gnn_core.deploy.manifest_files import Manifests
from gnn_core.deploy.pods import Problems
from gnn_core.deploy.scheduling import is_address
from gnn_core.deploy.workloads import ALWAYS_RUNNING
from gnn_core.deploy.yaml_objects import Object

_OUTSIDE = ("NodePort", "LoadBalancer")
_NODE_PORTS = range(30000, 32768)  # unless the server was started with others


def service_problems(one: Object) -> Problems:
    """Its type, its address and its ports agree."""
    spec = one["spec"]
    kind, address = spec.get("type", "ClusterIP"), spec.get("clusterIP", "")
    if address not in ("", "None") and not is_address(address):
        hint = ", did you mean None?" if address.lower() == "none" else ": leave it out"
        yield "spec.clusterIP", f"expected None or an IP address, got {address!r}{hint}"
    if address == "None" and kind in _OUTSIDE:
        yield "spec.clusterIP", f"expected an address with type {kind}, got None: leave it out"
    if kind == "ExternalName" and not spec.get("externalName"):
        yield "spec.externalName", "expected a name with type ExternalName, got none: add it"
    if kind == "ExternalName" and address:
        yield "spec.clusterIP", f"expected none with type ExternalName, got {address!r}"
    if not spec.get("ports") and kind != "ExternalName" and address != "None":
        yield "spec.ports", "expected one or more, got none: add them, or say clusterIP: None"
    if "externalTrafficPolicy" in spec and kind not in _OUTSIDE:
        yield "spec.externalTrafficPolicy", f"expected none with type {kind}: leave it out"
    yield from _ports_problems(spec.get("ports") or (), kind)


def _ports_problems(ports: Any, kind: str) -> Problems:
    names: set[str] = set()
    numbers, node_ports = set(), set()
    for index, port in enumerate(ports):
        at, name = f"spec.ports[{index}]", port.get("name")
        protocol = port.get("protocol", "TCP")
        if name is None and len(ports) > 1:
            yield f"{at}.name", "expected a name, since there are several, got none: add it"
        if name in names:
            yield f"{at}.name", f"{name!r} stands twice: rename or remove one"
        elif (port["port"], protocol) in numbers:
            yield f"{at}.port", f"{port['port']} of {protocol} stands twice: change or remove one"
        names.add(name)
        numbers.add((port["port"], protocol))
        target = port.get("targetPort")
        if isinstance(target, str) and not is_scalar(target, "portname"):
            yield f"{at}.targetPort", f"expected a port's name or its number, got {shown(target)}"
        if (number := port.get("nodePort")) is None:
            continue
        if kind not in _OUTSIDE:
            yield f"{at}.nodePort", f"expected none with type {kind}, got {number}: leave it out"
        elif (number, protocol) in node_ports:
            yield f"{at}.nodePort", f"{number} stands twice: change one"
        elif number not in _NODE_PORTS:
            got = f"expected {_NODE_PORTS[0]} to {_NODE_PORTS[-1]}, got {number}"
            yield f"{at}.nodePort", got
        node_ports.add((number, protocol))


def selected_problems(one: Object, manifests: Manifests) -> Problems:
    """What an object selects is there."""
    wanted, path = one["spec"].get("selector") or {}, "spec.selector"
    if one["kind"] in ALWAYS_RUNNING:
        if "matchLabels" not in wanted:
            return
        wanted, path = wanted["matchLabels"], "spec.selector.matchLabels"
        others = [one]
    else:
        if not wanted:  # its endpoints are another object's
            return
        others = [other for kind in ALWAYS_RUNNING for other in manifests.of_kind(kind)]
    found = [
        template["spec"]
        for template in (other["spec"]["template"] for other in others)
        if wanted and wanted.items() <= template.get("metadata", {}).get("labels", {}).items()
    ]
    if not found:
        yield path, f"no pod of these manifests has the labels {wanted}: correct one of the two"
        return
    for index, port in enumerate(one["spec"].get("ports") or ()):
        has = [each for container in found[0]["containers"] for each in container.get("ports", ())]
        known = [*(each["containerPort"] for each in has), *(each.get("name") for each in has)]
        if (target := port.get("targetPort", port["port"])) not in known:
            yield (
                f"spec.ports[{index}].targetPort",
                f"expected a port of the pod ({', '.join(map(str, known))}), got {target!r}",
            )
