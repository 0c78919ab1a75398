"""Pods of an MPIJob on hosts of this machine: what the MPI Operator gives to them, and no cluster.

Each pod is a host of `namespace_hosts` with process identifiers, shared memory, files and a user of
its own. Commands, environment, volumes and mounts are those of the manifest; `IMAGE_FILES` and the
`ENV` of the Dockerfile are what an image would bring. Below them lies this machine's own file
system, read-only, under an overlay that goes with the pod. With RINGSAGE_IMAGE_ROOT there lies the
file system of an image that was built, as it is, instead of both:

    RINGSAGE_IMAGE_ROOT=$(podman image mount ringsage:0.1.0) make test-hosts

What the operator gives: kubeflow/mpi-operator v0.8, pkg/controller/mpi_job_controller.go.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.hosts.namespace_hosts import NETWORK, Hosts

ROOT = Path(__file__).resolve().parents[2]
IMAGE_FILES = {  # path in the image -> here, as the Dockerfile copies them
    "/opt/ringsage": ROOT,
    "/etc/ssh/ringsage_sshd_config": ROOT / "mpi-operator" / "sshd_config",
    "/etc/ssh/ssh_config.d/ringsage.conf": ROOT / "mpi-operator" / "ssh_config",
}
IMAGE_ROOT = os.environ.get("RINGSAGE_IMAGE_ROOT", "")
USER = 1000
PORT = 2222
SSHD = "/usr/sbin/sshd"

# $1: scratch folder. A container's file system, then its process: the one with number 1 in there.
_CONTAINER = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 pod "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay -o "lowerdir={image},upperdir=$1/upper,workdir=$1/work" pod "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
hostname {name}
{files}
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs \\
    --inh-caps=-all --bounding-set=-all env -i --chdir={folder} {variables} {command}
"""


@dataclass(frozen=True)
class Pod:
    """A pod that the operator would make."""

    host: str  # of Hosts, such as h1
    name: str
    role: str  # Launcher or Worker
    spec: dict[str, Any]  # of its template


def obstacle() -> str | None:
    """Why pods cannot be made on hosts of this machine; None where they can."""
    missing = [tool for tool in ("setpriv", "chroot", "ssh-keygen") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: install util-linux and openssh-client"
    if "overlay" not in Path("/proc/filesystems").read_text("utf-8"):
        return "this kernel has no overlay file system"
    if IMAGE_ROOT:
        if any(not Path(IMAGE_ROOT + path).exists() for path in (*IMAGE_FILES, SSHD)):
            raise ValueError(
                "RINGSAGE_IMAGE_ROOT: expected the root folder of an image that "
                f"mpi-operator/image.sh has built, got {IMAGE_ROOT}: mount or unpack one there"
            )
        return None
    if not Path(SSHD).exists():
        return f"{SSHD} not found: install openssh-server (no daemon of it has to run)"
    for needed in (ROOT, Path(sys.prefix)):
        if needed.is_relative_to("/tmp"):
            return f"{needed}: a pod has a /tmp of its own: test a checkout elsewhere"
        if needed.stat().st_dev != Path("/").stat().st_dev:
            return f"{needed}: on another file system than the root, which pods are made of"
    return None


class PodHosts:
    """The pods of one MPIJob.

    Args:
        job: the MPIJob of a manifest.
        hosts: one for the launcher, and one for each worker; more are for workers that join.
        folder: for the volume that all pods share, the operator's secret and its config map. The
            cache of a pod stays there too, where its next one finds what numba has compiled.
        uid: of the batch Job that the launcher's pods are of; another one is another job.
        revision: the commit that the image is told of when it is built.
    """

    def __init__(self, job: dict[str, Any], hosts: Hosts, folder: Path, uid: str, revision: str):
        self.hosts, self._folder, self._uid = hosts, folder, uid
        self._image = _image_variables(revision)
        self.name: str = job["metadata"]["name"]
        self._spec = job["spec"]
        roles = self._spec["mpiReplicaSpecs"]
        specs = {role: roles[role]["template"]["spec"] for role in ("Launcher", "Worker")}
        names = [f"{self.name}-worker-{number}" for number in range(len(hosts.names) - 1)]
        self.launcher = Pod(hosts.names[0], f"{self.name}-launcher", "Launcher", specs["Launcher"])
        self.workers = [
            Pod(host, name, "Worker", specs["Worker"])
            for host, name in zip(hosts.names[1:], names, strict=True)
        ]
        self.shared = folder / "shared"
        self._make_objects()
        self.list_workers(self.workers[: roles["Worker"]["replicas"]])

    def start(
        self, pod: Pod, log: Path, container: dict[str, Any] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a container of a pod (None: its first, as the operator completes it)."""
        first = container is None
        container = container or pod.spec["containers"][0]
        env = self._environment(pod, container, first)
        words = [*container["command"], *container.get("args", ())]
        words = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in words]
        script = _CONTAINER.format(
            name=pod.name,
            image=IMAGE_ROOT or "/",
            files="\n".join(self._files(pod, container, first)),
            user=USER,
            folder=shlex.quote(container.get("workingDir", "/opt/ringsage")),
            variables=shlex.join(f"{name}={value}" for name, value in env.items()),
            command=shlex.join(words),
        )
        scratch = self._folder / f"{pod.name}-{time.monotonic_ns()}"
        scratch.mkdir()
        own = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        within = ["ip", "netns", "exec", self.hosts.namespace(pod.host), *own]
        with log.open("ab") as into:
            return subprocess.Popen(
                [*within, "sh", "-c", script, "sh", str(scratch)],
                stdin=subprocess.DEVNULL, stdout=into, stderr=into, start_new_session=True,
            )  # fmt: skip

    def start_worker(self, pod: Pod, patience_seconds: float = 60) -> None:
        """Start a worker, and wait until its readiness probe would find it ready."""
        log = self._folder / f"{pod.name}.log"
        process = self.start(pod, log)
        namespace = self.hosts.namespace(pod.host)
        probe = ["ip", "netns", "exec", namespace, "bash", "-c", f"</dev/tcp/127.0.0.1/{PORT}"]
        deadline = time.monotonic() + patience_seconds
        while subprocess.run(probe, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{pod.name} is not ready: {log.read_text('utf-8')}")
            time.sleep(0.2)

    def launch(self, log: Path, *more: str, mpirun: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the launcher, with more flags of the trainer and options of mpirun."""
        own = self.launcher.spec["containers"][0]
        changed = dict(own, args=[*own["args"], *more])
        changed["command"] = [own["command"][0], *mpirun, *own["command"][1:]]
        spec = dict(self.launcher.spec, containers=[changed])
        return self.start(replace(self.launcher, spec=spec), log)

    def run_init(self, log: Path) -> int:
        """Run the launcher's init containers in turn; the last exit code."""
        code = 0
        for container in self.launcher.spec.get("initContainers", ()):
            code = code or self.start(self.launcher, log, container).wait()
        return code

    def list_workers(self, workers: Sequence[Pod]) -> None:
        """Tell the launcher which workers there are.

        The operator does so when their number is patched, and when one of them begins or ends.
        """
        names = [f"{pod.name}.{self.name}.default.svc" for pod in workers]
        slots = self._spec["slotsPerWorker"]
        hostfile = "".join(f"{name} slots={slots}\n" for name in names)
        discover = "".join(f"echo {name}\n" for name in names)
        _write(self._folder / "config" / "hostfile", hostfile, 0o444)
        _write(self._folder / "config" / "discover_hosts.sh", f"#!/bin/sh\n{discover}", 0o555)

    def _make_objects(self) -> None:
        """The keys (secret), the list of hosts (config map), and the volume that is claimed."""
        secret, config = self._folder / "secret", self._folder / "config"
        for folder in (self.shared, secret, config):
            folder.mkdir(exist_ok=True)
        shutil.chown(self.shared, USER, USER)  # fsGroup
        key = secret / "id_rsa"
        key.unlink(missing_ok=True)
        quiet = ["-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", ""]
        subprocess.run(["ssh-keygen", *quiet, "-f", str(key)], check=True)
        shutil.copy(secret / "id_rsa.pub", secret / "authorized_keys")
        for file in secret.iterdir():
            shutil.chown(file, 0, USER)
            file.chmod(0o644)  # only for root does the operator ask for 0600
        lines = ["127.0.0.1 localhost"]
        for number, pod in enumerate([self.launcher, *self.workers], 1):
            lines.append(f"{NETWORK}.{number} {pod.name}.{self.name}.default.svc {pod.name}")
        _write(self._folder / "hosts", "\n".join([*lines, ""]), 0o644)

    def _environment(self, pod: Pod, container: dict[str, Any], first: bool) -> dict[str, str]:
        """Variables of the image, of the manifest, and of the operator in the first container."""
        env = {**self._image, "HOME": "/home/mpiuser", "HOSTNAME": pod.name}
        for one in container.get("env", ()):
            env[one["name"]] = one.get("value", self._uid)  # of fields there is that one
        if first:
            env["K_MPI_JOB_ROLE"] = pod.role.lower()
        if first and pod.role == "Launcher":
            env |= {
                "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
                "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
                "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
                "OMPI_MCA_orte_set_default_slots": str(self._spec["slotsPerWorker"]),
                "NVIDIA_VISIBLE_DEVICES": "",
                "NVIDIA_DRIVER_CAPABILITIES": "",
            }
        return env

    def _files(self, pod: Pod, container: dict[str, Any], first: bool) -> Iterator[str]:
        """Lines of shell that complete the file system below $root."""
        if not IMAGE_ROOT:
            yield from _image_files()
        yield _bound("/etc/hosts", self._folder / "hosts")
        if first:
            yield _bound(self._spec["sshAuthMountPath"], self._folder / "secret")
            if pod.role == "Launcher":
                yield _bound("/etc/mpi", self._folder / "config")
        volumes = {one["name"]: one for one in pod.spec["volumes"]}
        for mount in container.get("volumeMounts", ()):
            path, volume = mount["mountPath"], volumes[mount["name"]]
            if "persistentVolumeClaim" in volume:
                yield _bound(path, self.shared, writable=True)
            elif mount["name"] == "cache":
                empty = self._folder / "cache" / pod.name
                empty.mkdir(parents=True, exist_ok=True)
                shutil.chown(empty, USER, USER)
                yield _bound(path, empty, writable=True)
            else:
                size = volume["emptyDir"].get("sizeLimit", "1Gi").removesuffix("i").lower()
                yield f'mkdir -p "$root{path}"'
                yield f'mount -t tmpfs -o mode=1777,size={size} empty "$root{path}"'


def _image_files() -> Iterator[str]:
    """Lines of shell that make of this machine's file system what an image would be."""
    user = f"mpiuser:x:{USER}:{USER}::/home/mpiuser:/bin/bash"
    yield f"sed -i '/^[^:]*:[^:]*:{USER}:/d; $a {user}' \"$root/etc/passwd\""
    yield f'install -d -o {USER} -g {USER} "$root/home/mpiuser" "$root/home/mpiuser/.ssh"'
    for path in {sys.prefix, sys.base_prefix}:  # the programs of .venv name where they lie
        for above in Path(path).parents:
            yield f'chmod o+x "$root{above}"'
        yield _bound(path, Path(path))
    for path, here in IMAGE_FILES.items():
        yield _bound(path, here)


def _image_variables(revision: str) -> dict[str, str]:
    """What the last stage of the Dockerfile sets, of an image that was built with that revision."""
    stage = (ROOT / "mpi-operator" / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    given = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for line in re.findall(r"^ENV (.*)", stage, re.MULTILINE):
        for word in shlex.split(line):
            name, _, value = word.partition("=")
            known = {**given, "REVISION": revision}
            given[name] = re.sub(r"\$\{(\w+)\}", lambda found, k=known: k[found[1]], value)
    return given


def _bound(path: str, here: Path, writable: bool = False) -> str:
    """A line of shell that shows a file or folder of this machine at a path of the pod."""
    target = f'"$root{path}"'
    make = (
        f"mkdir -p {target}" if here.is_dir() else f'mkdir -p "$(dirname {target})"; : >> {target}'
    )
    lock = "" if writable else f"; mount -o remount,bind,ro {target}"
    return f"{make}; mount --bind {shlex.quote(str(here))} {target}{lock}"


def _write(file: Path, text: str, mode: int) -> None:
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.chmod(mode)
    unfinished.replace(file)
