"""Checks manifests without a cluster: their fields, our rules, and one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gnn_core.deploy import (
    containers,
    kubernetes_schema,
    mpijob_rules,
    operator_names,
    pods,
    references,
    scheduling,
    security,
    services,
    storage,
    sweep_rules,
    volumes,
    workloads,
)
from gnn_core.deploy.field_checks import field_problems
from gnn_core.deploy.kinds import OF_NO_NAMESPACE
from gnn_core.deploy.manifest_files import ManifestProblem, Manifests
from gnn_core.deploy.yaml_objects import Object, name_of, title_of, without_nulls

Rule = tuple[Callable[..., pods.Problems], tuple[Any, ...]]
_WRONG_TYPE_ERRORS = (KeyError, TypeError, AttributeError, ValueError, IndexError)


def check(sets: Sequence[Manifests], there: set[str]) -> list[ManifestProblem]:
    """Everything that is wrong in the sets, each being applied as a whole, in one namespace.

    `there` are objects that are in the cluster already, each as KIND/NAME.
    """
    plain = [Manifests(one.file, [without_nulls(each) for each in one.objects]) for one in sets]
    findings = [finding for one in plain for finding in _check_set(one, there)]
    return [*findings, *_contradictions(plain)]


def _check_set(manifests: Manifests, there: set[str]) -> Iterator[ManifestProblem]:
    """What is wrong in one of them."""
    if not manifests.objects:
        yield ManifestProblem(manifests.file, "", "expected objects of Kubernetes, got none")
    titles = [title_of(one) for one in manifests.objects]
    for title in sorted({title for title in titles if titles.count(title) > 1}):
        yield ManifestProblem(manifests.file, title, "it stands twice: remove one")
    spaces = {
        str(one["metadata"].get("namespace", "(the current one)"))
        for one in manifests.objects
        if one.get("kind") not in OF_NO_NAMESPACE and isinstance(one.get("metadata"), dict)
    }
    if len(spaces) > 1:
        got = ", ".join(sorted(spaces))
        yield ManifestProblem(
            manifests.file,
            "metadata.namespace",
            f"expected one namespace, got {got}: pods see the claims of their own alone",
        )
    structures = [list(field_problems(manifests.file, one)) for one in manifests.objects]
    for one, broken in zip(manifests.objects, structures, strict=True):
        yield from broken
        known = {finding.path for finding in broken}
        for path, message in _meanings(one, manifests, there, any(structures)):
            finding = ManifestProblem(manifests.file, f"{title_of(one)}: {path}", message)
            if finding.path not in known:
                yield finding


def _meanings(one: Object, manifests: Manifests, there: set[str], broken: bool) -> pods.Problems:
    """What the rules say. Of an object that is broken they say what they can."""
    rules: list[Rule] = []
    try:
        rules = list(_rules_for(one, manifests, there))
    except _WRONG_TYPE_ERRORS:
        if not broken:
            raise
    for rule, arguments in rules:
        try:
            yield from list(rule(*arguments))
        except _WRONG_TYPE_ERRORS:
            if not broken and kubernetes_schema.is_there():  # an error in the rule
                raise
            if not broken:
                how = kubernetes_schema.HOW
                yield "", f"expected fields of the types of Kubernetes, got others; {how}"
            # else the field of a wrong type is reported already


def _rules_for(one: Object, manifests: Manifests, there: set[str]) -> Iterator[Rule]:
    kind = str(one.get("kind"))
    for path, pod in pods.pods_of(one):
        yield volumes.volumes_problems, (path, pod, manifests, there)
        yield references.references_problems, (path, pod, manifests, there)
        yield volumes.mounts_problems, (path, pod, operator_names.volumes_in(one, path))
        yield sweep_rules.plan_problems, (path, pod, manifests)
        for of_pod in _OF_PODS:
            yield of_pod, (path, pod)
        if kind == "MPIJob":
            yield containers.lists_problems, (path, pod)
        for at, container in pods.containers_of(path, pod):
            for of_container in _OF_CONTAINERS:
                yield of_container, (at, container)
    for of_kind in _OF_KINDS.get(kind, ()):
        yield of_kind, (one,)
    if kind == "MPIJob":
        yield operator_names.objects_problems, (one, manifests)
    if kind in ("Service", *workloads.ALWAYS_RUNNING):
        yield services.selected_problems, (one, manifests)


_OF_PODS = (
    security.restricted_problems,
    volumes.memory_problems,
    containers.names_problems,
    containers.host_ports_problems,
    scheduling.tolerations_problems,
    scheduling.spread_problems,
    scheduling.affinity_problems,
    scheduling.network_problems,
)
_OF_CONTAINERS = (
    pods.image_problems,
    pods.resources_problems,
    pods.ports_problems,
    containers.container_problems,
    mpijob_rules.commands_problems,
)
_OF_KINDS: dict[str, tuple[Callable[[Object], pods.Problems], ...]] = {
    "MPIJob": (
        mpijob_rules.replicas_problems,
        mpijob_rules.queue_problems,
        mpijob_rules.ssh_problems,
        mpijob_rules.program_problems,
        operator_names.pods_problems,
    ),
    "Job": (workloads.job_problems,),
    "CronJob": (workloads.cron_problems,),
    "Service": (services.service_problems,),
    "PersistentVolumeClaim": (storage.volume_problems,),
    "PersistentVolume": (storage.volume_problems,),
    "ConfigMap": (storage.data_problems,),
    "Secret": (storage.data_problems,),
    **dict.fromkeys(workloads.ALWAYS_RUNNING, (workloads.running_problems,)),
}


def _contradictions(sets: Sequence[Manifests]) -> Iterator[ManifestProblem]:
    """Objects of one name that are not the same: applied after each other, one replaces the other.

    Or is refused, since most of an MPIJob and of a claim cannot be changed.
    """
    first: dict[tuple[str, str], tuple[Manifests, Object]] = {}
    for manifests in sets:
        for one in manifests.objects:
            key = (str(one.get("kind")), name_of(one))
            others, other = first.setdefault(key, (manifests, one))
            if others is not manifests and other != one:
                path = _first_difference(one, other)
                yield ManifestProblem(
                    manifests.file,
                    f"{title_of(one)}: {path}",
                    f"it is another one than in {others.file}: give one of them another name, or "
                    "apply only one of the two",
                )


def _first_difference(one: Any, other: Any, path: str = "") -> str:
    """The path to the first value that is not the same in both."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*one, *(key for key in other if key not in one)):
            if one.get(key) != other.get(key):
                at = f"{path}.{key}" if path else str(key)
                return _first_difference(one.get(key), other.get(key), at)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (mine, yours) in enumerate(zip(one, other, strict=True)):
            if mine != yours:
                return _first_difference(mine, yours, f"{path}[{index}]")
    return path
