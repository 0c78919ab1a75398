"""Compares an object with what may stand in its kind: our shapes, then Kubernetes' own schema."""

from __future__ import annotations

from collections.abc import Iterator

from gnn_core.deploy import standard
from gnn_core.deploy.kinds import SCHEMAS
from gnn_core.deploy.manifest_files import ManifestProblem
from gnn_core.deploy.objects import Object, title_of
from gnn_core.deploy.shapes import compare, shown
from gnn_core.usage import did_you_mean


def structure_findings(file: str, one: Object) -> Iterator[ManifestProblem]:
    """What is wrong with the object's fields, as long as nobody asks what they mean.

    Of each path once: first what our shapes say, then the schema, where that is installed.
    """
    told: set[str] = set()
    for path, message in _told(one):
        if path not in told:
            told.add(path)
            yield ManifestProblem(file, f"{title_of(one)}: {path}", message)


def _told(one: Object) -> Iterator[tuple[str, str]]:
    kind = one.get("kind")
    if isinstance(kind, str) and kind in SCHEMAS:
        yield from compare(one, SCHEMAS[kind])
    elif not standard.is_known(one):
        known = [*SCHEMAS, *(standard.kinds() - set(SCHEMAS))]
        hint = did_you_mean(str(kind), known)
        yield "kind", f"expected a kind that can be checked, such as {_SOME}; got {_of(one)}{hint}"
    if kind == "MPIJob":
        yield from _templates_problems(one)
    elif standard.is_known(one):
        yield from standard.object_problems(one)


_SOME = "MPIJob, Job, Deployment, Service, PersistentVolumeClaim or ConfigMap"


def _of(one: Object) -> str:
    version = one.get("apiVersion")
    return shown(one.get("kind")) + (f" of {shown(version)}" if version is not None else "")


def _templates_problems(job: Object) -> Iterator[tuple[str, str]]:
    spec = job.get("spec")
    roles = spec.get("mpiReplicaSpecs") if isinstance(spec, dict) else None
    for role, replicas in (roles if isinstance(roles, dict) else {}).items():
        template = replicas.get("template") if isinstance(replicas, dict) else None
        if template is not None and standard.is_there():
            yield from standard.template_problems(template, f"spec.mpiReplicaSpecs.{role}.template")
