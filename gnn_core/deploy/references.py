"""Rules for objects that a pod refers to: without them the API server refuses the pod."""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.manifest_files import Manifests
from gnn_core.deploy.pods import Problems

_LOOKED_UP = {
    "priorityClassName": ("PriorityClass", ("system-cluster-critical", "system-node-critical")),
    "serviceAccountName": ("ServiceAccount", ("default",)),
    "runtimeClassName": ("RuntimeClass", ()),
}


def references_problems(
    path: str, pod: dict[str, Any], manifests: Manifests, there: set[str]
) -> Problems:
    """Each is among the manifests, in every cluster, or in this one by the user's word.

    Args:
        path: of the pod's spec.
        pod: its spec.
        manifests: what is applied together.
        there: objects in the cluster, each as KIND/NAME.
    """
    for field, (kind, everywhere) in _LOOKED_UP.items():
        name = pod.get(field)
        if not name or name in everywhere or name in manifests.names(kind):
            continue
        if f"{kind}/{name}" not in there:
            yield (
                f"{path}.{field}",
                f"expected a {kind} among these manifests, got {name!r}, without which no pod "
                f"comes: add it, or say --external {kind}/{name}",
            )
