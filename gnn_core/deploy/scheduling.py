"""Rules of the API server for tolerations, spread, affinity and a pod's network."""

from __future__ import annotations

import ipaddress
from typing import Any

from gnn_core.deploy.field_types import expected, is_scalar, shown
from gnn_core.deploy.pods import Problems

_MOST_NAMESERVERS = 3


def tolerations_problems(path: str, pod: dict[str, Any]) -> Problems:
    """A toleration says no more than its operator and its effect have a use for."""
    for index, one in enumerate(pod.get("tolerations") or ()):
        at, operator = f"{path}.tolerations[{index}]", one.get("operator", "Equal")
        if one.get("key") and not is_scalar(one["key"], "label key"):
            yield f"{at}.key", f"expected {expected('label key')}, got {shown(one['key'])}"
        if not one.get("key") and operator != "Exists":
            yield f"{at}.operator", f"expected Exists where there is no key, got {operator}"
        if operator == "Exists" and one.get("value"):
            yield (
                f"{at}.value",
                f"expected none, since operator Exists compares none, got {one['value']!r}: "
                "leave it out, or say operator Equal",
            )
        elif operator == "Equal" and not is_scalar(one.get("value", ""), "label"):
            yield f"{at}.value", f"expected {expected('label')}, got {shown(one['value'])}"
        if "tolerationSeconds" in one and one.get("effect") != "NoExecute":
            yield (
                f"{at}.tolerationSeconds",
                f"expected effect NoExecute beside it, got {one.get('effect', 'none')}: leave it "
                "out, or change the effect",
            )


def spread_problems(path: str, pod: dict[str, Any]) -> Problems:
    """Constraints on how pods are spread do not contradict each other, nor themselves."""
    seen = set()
    for index, one in enumerate(pod.get("topologySpreadConstraints") or ()):
        at = f"{path}.topologySpreadConstraints[{index}]"
        key = (one["topologyKey"], one["whenUnsatisfiable"])
        if key in seen:
            yield at, f"{key[0]} with {key[1]} stands twice: remove one"
        seen.add(key)
        if "minDomains" in one and one["whenUnsatisfiable"] != "DoNotSchedule":
            yield f"{at}.minDomains", "expected whenUnsatisfiable: DoNotSchedule beside it"
        selector = one.get("labelSelector")
        yield from selector_problems(f"{at}.labelSelector", selector or {})
        keys = one.get("matchLabelKeys") or ()
        if keys and selector is None:
            yield f"{at}.matchLabelKeys", "expected a labelSelector beside it, got none: add it"
        chosen = {*(selector or {}).get("matchLabels", {})}
        chosen |= {each["key"] for each in (selector or {}).get("matchExpressions", ())}
        for place, label in enumerate(keys):
            if label in chosen or label in keys[:place]:
                yield (
                    f"{at}.matchLabelKeys[{place}]",
                    f"expected a label that labelSelector does not name, got {label!r}: leave it "
                    "out here or there",
                )


def affinity_problems(path: str, pod: dict[str, Any]) -> Problems:
    """Expressions have the values that their operators compare."""
    affinity = pod.get("affinity") or {}
    node = affinity.get("nodeAffinity") or {}
    at = f"{path}.affinity.nodeAffinity"
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    terms = [
        (f"{at}.{required}.nodeSelectorTerms[{index}]", term)
        for index, term in enumerate((node.get(required) or {}).get("nodeSelectorTerms", ()))
    ]
    terms += [
        (f"{at}.{preferred}[{index}].preference", one["preference"])
        for index, one in enumerate(node.get(preferred) or ())
    ]
    weighed = [(f"{at}.{preferred}", node.get(preferred) or ())]
    for where, term in terms:
        for index, one in enumerate(term.get("matchExpressions") or ()):
            yield from _expression_problems(f"{where}.matchExpressions[{index}]", one)
    for name in ("podAffinity", "podAntiAffinity"):
        at, of_pods = f"{path}.affinity.{name}", affinity.get(name) or {}
        weighed.append((f"{at}.{preferred}", of_pods.get(preferred) or ()))
        for index, term in enumerate(of_pods.get(required) or ()):
            where = f"{at}.{required}[{index}].labelSelector"
            yield from selector_problems(where, term.get("labelSelector") or {})
    for where, entries in weighed:
        for index, one in enumerate(entries):
            if not 1 <= one["weight"] <= 100:
                yield f"{where}[{index}].weight", f"expected 1 to 100, got {one['weight']}"


def selector_problems(path: str, selector: dict[str, Any]) -> Problems:
    """The expressions of a selector of labels."""
    for index, one in enumerate(selector.get("matchExpressions") or ()):
        yield from _expression_problems(f"{path}.matchExpressions[{index}]", one)


def _expression_problems(path: str, one: dict[str, Any]) -> Problems:
    operator, values = one["operator"], one.get("values") or []
    if operator in ("In", "NotIn") and not values:
        yield f"{path}.values", f"expected one or more with operator {operator}, got none: add them"
    elif operator in ("Exists", "DoesNotExist") and values:
        yield f"{path}.values", f"expected none with operator {operator}, got {shown(values)}"
    elif operator in ("Gt", "Lt") and not (
        len(values) == 1 and values[0].removeprefix("-").isdigit()
    ):
        yield f"{path}.values", f"expected one whole number in quotes, got {shown(values)}"


def network_problems(path: str, pod: dict[str, Any]) -> Problems:
    """A pod that uses no DNS of the cluster says which one it does use; addresses are addresses."""
    config = pod.get("dnsConfig") or {}
    servers = config.get("nameservers") or []
    at = f"{path}.dnsConfig.nameservers"
    if pod.get("dnsPolicy") == "None" and not servers:
        yield at, "dnsPolicy None: expected one or more, got none: add them, or leave dnsPolicy out"
    if len(servers) > _MOST_NAMESERVERS:
        yield at, f"expected at most {_MOST_NAMESERVERS}, got {len(servers)}"
    places = [(f"{at}[{index}]", one) for index, one in enumerate(servers)]
    places += [
        (f"{path}.hostAliases[{index}].ip", one["ip"])
        for index, one in enumerate(pod.get("hostAliases") or ())
    ]
    for where, address in places:
        if not is_address(address):
            yield where, f"expected an IP address, got {shown(address)}"
    if pod.get("hostPID") and pod.get("shareProcessNamespace"):
        yield f"{path}.shareProcessNamespace", "hostPID is true as well: leave one of them out"


def is_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
