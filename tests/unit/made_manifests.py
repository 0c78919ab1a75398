"""Manifests to be spoiled: the base's, as objects that may be changed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnn_core.deploy.manifest_files import MANIFESTS, Manifests, read_manifests
from gnn_core.deploy.validate import check

LAUNCHER = "spec.mpiReplicaSpecs.Launcher.template.spec"
WORKER = "spec.mpiReplicaSpecs.Worker.template.spec"


@functools.cache
def _read(folder: Path) -> Manifests:
    return read_manifests(str(folder))


def objects_of(folder: Path) -> list[dict[str, Any]]:
    """The objects of a folder of manifests, for the caller to change."""
    return copy.deepcopy(list(_read(folder).objects))


def base() -> list[dict[str, Any]]:
    """The claim and the job of `mpi-operator/base`, for the caller to change."""
    return objects_of(MANIFESTS / "base")


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


def reported(objects: list[dict[str, Any]], there: Sequence[str] = ()) -> list[str]:
    """What is wrong with them, as lines; `there`: objects in the cluster, as KIND/NAME."""
    return [str(finding) for finding in check([Manifests("f", objects)], set(there))]


JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  backoffLimit: 3
  podFailurePolicy:
    rules:
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
    - {action: FailJob, onExitCodes: {operator: In, values: [1, 2]}}
  template:
    metadata: {labels: {app: j}}
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: c
        image: i:1
        command: [sleep, "1"]
        env: [{name: A, value: "1"}]
        ports: [{name: http, containerPort: 80}]
        resources: {limits: {cpu: 1, memory: 1Gi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: v, mountPath: /v}]
      volumes: [{name: v, emptyDir: {}}]
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: c
        image: i:1
        command: [tensorboard]
        ports: [{name: http, containerPort: 6006}]
        resources: {limits: {cpu: 1, memory: 1Gi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
SERVICE = (
    """
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: http}]}
---"""
    + DEPLOYMENT
)
