"""Names that the MPI Operator takes: in the pods that it completes, and for objects it creates.

After newWorker, newLauncherPodTemplate and setupSSHOnPod of its mpi_job_controller.go, release 0.8.
What has one of them already is refused when the operator adds its own, and no pod comes.
"""

from __future__ import annotations

from gnn_core.deploy.manifest_files import Manifests
from gnn_core.deploy.pods import Problems, pods_of
from gnn_core.deploy.yaml_objects import Object, name_of

SSH_DEFAULT = "/root/.ssh"
_KEYS, _CONFIG, _CONFIG_PATH = "ssh-auth", "mpi-job-config", "/etc/mpi"


def volumes_in(job: Object, path: str) -> set[str]:
    """The names of the volumes that the operator adds to the pod at `path`."""
    if job.get("kind") != "MPIJob":
        return set()
    return {_KEYS, _CONFIG} if ".Launcher." in path else {_KEYS}


def pods_problems(job: Object) -> Problems:
    """Volumes and mounts of the first container, where the operator adds keys and host file."""
    ssh = job["spec"].get("sshAuthMountPath", SSH_DEFAULT)
    for path, pod in pods_of(job):
        added = {_KEYS: ssh}
        if ".Launcher." in path:
            added[_CONFIG] = _CONFIG_PATH
        for index, volume in enumerate(pod.get("volumes") or ()):
            if volume["name"] in added:
                yield (
                    f"{path}.volumes[{index}].name",
                    f"the operator adds a volume {volume['name']!r} itself: rename this one",
                )
        for index, mount in enumerate(pod["containers"][0].get("volumeMounts") or ()):
            if mount["mountPath"] in added.values():
                yield (
                    f"{path}.containers[0].volumeMounts[{index}].mountPath",
                    f"the operator mounts its own files at {mount['mountPath']}: choose another "
                    "path",
                )


def objects_problems(job: Object, manifests: Manifests) -> Problems:
    """Other objects of the set that have the name of one that the operator makes."""
    name = name_of(job)
    for kind, taken in (
        ("Service", name),
        ("ConfigMap", f"{name}-config"),
        ("Secret", f"{name}-ssh"),
        ("Job", f"{name}-launcher"),
        ("Pod", f"{name}-worker-0"),
    ):
        if taken in manifests.names(kind):
            yield (
                "metadata.name",
                f"the operator makes a {kind} {taken!r} for it, and one is among these manifests: "
                "rename one of the two",
            )
