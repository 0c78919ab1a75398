"""Manifests to be spoiled: the base's, as objects that may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnn_core.deploy.documents import MANIFESTS, Manifests, read_manifests
from gnn_core.deploy.validate import check

LAUNCHER = "spec.mpiReplicaSpecs.Launcher.template.spec"
WORKER = "spec.mpiReplicaSpecs.Worker.template.spec"


def base() -> list[dict[str, Any]]:
    """The claim and the job of `mpi-operator/base`, read anew."""
    return list(read_manifests(str(MANIFESTS / "base")).objects)


def spoil(objects: list[dict[str, Any]], kind: str, path: str, value: Any = None) -> None:
    """Set what is at the path of the first object of that kind; None removes it."""
    place: Any = next(one for one in objects if one["kind"] == kind)
    *above, last = path.split(".")
    for part in above:
        place = place[int(part) if isinstance(place, list) else part]
    key: Any = int(last) if isinstance(place, list) else last
    if value is None:
        del place[key]
    elif isinstance(place, list) and key == len(place):
        place.append(value)
    else:
        place[key] = value


def told(objects: list[dict[str, Any]], external: Sequence[str] = ()) -> list[str]:
    """What is wrong with them, as lines."""
    return [str(finding) for finding in check([Manifests("f", objects)], set(external))]
