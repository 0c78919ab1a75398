"""Checks the fields of an object: against the shape of its kind, then against Kubernetes' schema.

Called by `validate`, before the rules that compare fields with each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from gnn_core.deploy import kubernetes_schema
from gnn_core.deploy.field_types import compare, shown
from gnn_core.deploy.kinds import SCHEMAS
from gnn_core.deploy.manifest_files import ManifestProblem
from gnn_core.deploy.yaml_objects import Object, title_of
from gnn_core.usage import did_you_mean


def field_problems(file: str, one: Object) -> Iterator[ManifestProblem]:
    """What is wrong with the object's fields, each by itself.

    One problem a path: that of its shape before that of the schema, where that is installed.
    """
    reported: set[str] = set()
    for path, message in _problems(one):
        if path not in reported:
            reported.add(path)
            yield ManifestProblem(file, f"{title_of(one)}: {path}", message)


def _problems(one: Object) -> Iterator[tuple[str, str]]:
    kind = one.get("kind")
    if isinstance(kind, str) and kind in SCHEMAS:
        yield from compare(one, SCHEMAS[kind])
    elif not kubernetes_schema.is_known(one):
        known = [*SCHEMAS, *(kubernetes_schema.kinds() - set(SCHEMAS))]
        hint = did_you_mean(str(kind), known)
        yield "kind", f"expected a kind that can be checked, such as {_SOME}; got {_of(one)}{hint}"
    if kind == "MPIJob":
        yield from _templates_problems(one)
    elif kubernetes_schema.is_known(one):
        yield from kubernetes_schema.object_problems(one)


_SOME = "MPIJob, Job, Deployment, Service, PersistentVolumeClaim or ConfigMap"


def _of(one: Object) -> str:
    version = one.get("apiVersion")
    return shown(one.get("kind")) + (f" of {shown(version)}" if version is not None else "")


def _templates_problems(job: Object) -> Iterator[tuple[str, str]]:
    spec = job.get("spec")
    roles = spec.get("mpiReplicaSpecs") if isinstance(spec, dict) else None
    for role, replicas in (roles if isinstance(roles, dict) else {}).items():
        template = replicas.get("template") if isinstance(replicas, dict) else None
        if template is not None and kubernetes_schema.is_there():
            yield from kubernetes_schema.template_problems(
                template, f"spec.mpiReplicaSpecs.{role}.template"
            )
