"""Checks manifests without a cluster: their structure, their meaning, and one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gnn_core.deploy import meaning, pods, sweeps
from gnn_core.deploy.documents import Finding, Manifests
from gnn_core.deploy.objects import Object, name_of, title_of
from gnn_core.deploy.structure import structure_findings

Rule = tuple[Callable[..., pods.Told], tuple[Any, ...]]
_OF_NO_NAMESPACE = ("Namespace", "PersistentVolume")
_STUMBLES = (KeyError, TypeError, AttributeError, ValueError, IndexError)


def check(sets: Sequence[Manifests], external: set[str]) -> list[Finding]:
    """Everything that is wrong in the sets, each being applied as a whole, in one namespace.

    `external` are the names of claims that are in the cluster already.
    """
    findings = [finding for one in sets for finding in check_set(one, external)]
    return [*findings, *_contradictions(sets)]


def check_set(manifests: Manifests, external: set[str]) -> Iterator[Finding]:
    """What is wrong in one of them."""
    if not manifests.objects:
        yield Finding(manifests.file, "", "expected objects of Kubernetes, got none")
    titles = [title_of(one) for one in manifests.objects]
    for title in sorted({title for title in titles if titles.count(title) > 1}):
        yield Finding(manifests.file, title, "it stands twice: remove one")
    spaces = {
        str(one["metadata"].get("namespace", "(the current one)"))
        for one in manifests.objects
        if one.get("kind") not in _OF_NO_NAMESPACE and isinstance(one.get("metadata"), dict)
    }
    if len(spaces) > 1:
        got = ", ".join(sorted(spaces))
        yield Finding(
            manifests.file,
            "metadata.namespace",
            f"expected one namespace, got {got}: pods see the claims of their own alone",
        )
    structures = [list(structure_findings(manifests.file, one)) for one in manifests.objects]
    for one, broken in zip(manifests.objects, structures, strict=True):
        yield from broken
        told = {finding.path for finding in broken}
        for path, message in _meanings(one, manifests, external, any(structures)):
            finding = Finding(manifests.file, f"{title_of(one)}: {path}", message)
            if finding.path not in told:
                yield finding


def _meanings(one: Object, manifests: Manifests, external: set[str], broken: bool) -> pods.Told:
    """What the rules say. Of an object that is broken they say what they can."""
    rules: list[Rule] = []
    try:
        rules = list(_rules_for(one, manifests, external))
    except _STUMBLES:
        if not broken:
            raise
    for rule, arguments in rules:
        try:
            yield from list(rule(*arguments))
        except _STUMBLES:
            if not broken:  # a slip of the rule; else what it stumbles over is told already
                raise


def _rules_for(one: Object, manifests: Manifests, external: set[str]) -> Iterator[Rule]:
    for path, pod in pods.pods_of(one):
        yield pods.volumes_told, (path, pod, manifests, external)
        yield sweeps.plan_told, (path, pod, manifests)
        for of_pod in (pods.user_told, pods.memory_told, pods.names_told):
            yield of_pod, (path, pod)
        for at, container in pods.containers_of(path, pod):
            for of_container in (pods.image_told, pods.resources_told, pods.ports_told):
                yield of_container, (at, container)
            yield meaning.commands_told, (at, container)
    if one.get("kind") == "MPIJob":
        for of_job in (meaning.replicas_told, meaning.ssh_told, meaning.program_told):
            yield of_job, (one,)
    if one.get("kind") in ("Deployment", "Service"):
        yield _selector_told, (one, manifests)


def _selector_told(one: Object, manifests: Manifests) -> pods.Told:
    """What an object selects is there."""
    wanted, path = one["spec"].get("selector") or {}, "spec.selector"
    others = manifests.of_kind("Deployment")
    if one["kind"] == "Deployment":
        wanted, path = wanted.get("matchLabels") or {}, "spec.selector.matchLabels"
        others = [one]
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


def _contradictions(sets: Sequence[Manifests]) -> Iterator[Finding]:
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
                yield Finding(
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
