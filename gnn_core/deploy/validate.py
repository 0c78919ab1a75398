"""Checks manifests without a cluster: their structure, their meaning, and one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gnn_core.deploy import meaning, pods
from gnn_core.deploy.documents import Finding, Manifests, Object, name_of, title_of
from gnn_core.deploy.structure import structure_findings

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
    for one in manifests.objects:
        broken = list(structure_findings(manifests.file, one))
        yield from broken
        told = {finding.path for finding in broken}
        for path, message in _meanings(one, manifests, external, bool(broken)):
            finding = Finding(manifests.file, f"{title_of(one)}: {path}", message)
            if finding.path not in told:
                yield finding


def _meanings(one: Object, manifests: Manifests, external: set[str], broken: bool) -> pods.Told:
    rules: list[tuple[Callable[..., pods.Told], tuple[Any, ...]]] = []
    for path, pod in pods.pods_of(one):
        rules += [
            (pods.user_told, (path, pod)),
            (pods.volumes_told, (path, pod, manifests, external)),
            (pods.memory_told, (path, pod)),
            (pods.names_told, (path, pod)),
        ]
        for at, container in pods.containers_of(path, pod):
            for rule in (pods.image_told, pods.resources_told, pods.ports_told):
                rules.append((rule, (at, container)))
            rules.append((meaning.commands_told, (at, container)))
    if one.get("kind") == "MPIJob":
        for whole in (meaning.replicas_told, meaning.ssh_told, meaning.program_told):
            rules.append((whole, (one,)))
    if one.get("kind") in ("Deployment", "Service"):
        rules.append((_selector_told, (one, manifests)))
    for rule, arguments in rules:
        try:
            yield from list(rule(*arguments))
        except _STUMBLES:
            if not broken:  # a slip of the rule; else what it stumbles over is told already
                raise


def _selector_told(one: Object, manifests: Manifests) -> pods.Told:
    """What an object selects is there."""
    spec = one["spec"]
    wanted, path = spec.get("selector") or {}, "spec.selector"
    if one["kind"] == "Deployment":
        wanted, path = wanted.get("matchLabels") or {}, "spec.selector.matchLabels"
        others = [one]
    else:
        others = [other for other in manifests.objects if other is not one]
    templates = [(other.get("spec") or {}).get("template") or {} for other in others]
    labels = [(each.get("metadata") or {}).get("labels") or {} for each in templates]
    if not wanted or not any(wanted.items() <= each.items() for each in labels):
        yield path, f"no pod of these manifests has the labels {wanted}: correct one of the two"


def _contradictions(sets: Sequence[Manifests]) -> Iterator[Finding]:
    """Objects of one name that are not the same: applied after each other, one replaces the other.

    Or is refused, since most of an MPIJob and of a claim cannot be changed.
    """
    first: dict[tuple[str, str, str], tuple[str, Object]] = {}
    for manifests in sets:
        for one in manifests.objects:
            namespace = str((one.get("metadata") or {}).get("namespace", ""))
            key = (str(one.get("kind")), namespace, name_of(one))
            file, other = first.setdefault(key, (manifests.file, one))
            if other != one:
                path = _first_difference(one, other)
                yield Finding(
                    manifests.file,
                    f"{title_of(one)}: {path}",
                    f"it is another one than in {file}: give one of them another name, or apply "
                    "only one of the two",
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
