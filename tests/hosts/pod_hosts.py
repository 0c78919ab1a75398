"""Pods of an MPIJob on hosts of this machine: what the MPI Operator gives to them, and no cluster.

Each pod is a host of `namespace_hosts` with process identifiers, shared memory, files and a user of
its own. Commands, environment, volumes and mounts are those of the manifest; `IMAGE_FILES` and the
`ENV` of the Dockerfile are what an image would bring. Below them lies this machine's own file
system, read-only, under an overlay that goes with the pod. With RINGSAGE_IMAGE_ROOT there lies the
file system of an image that was built, as it is, instead of both:

    RINGSAGE_IMAGE_ROOT=$(podman image mount ringsage:0.1.0) make test-hosts

What the operator gives: kubeflow/mpi-operator v0.8, pkg/controller/mpi_job_controller.go. What a
cluster does is played too:

- Config map and secret are trees of links (`..data`), and a change of the config map reaches a pod
  only after `CONFIG_SECONDS`.
- Of the other pods a name is known (DNS) as long as they are ready. The host file lists all workers
  that the job is to have, `discover_hosts.sh` those that run, ready or not.
- A pod that is deleted runs its preStop hook, gets SIGTERM, and SIGKILL when its grace is over. One
  that the kubelet ends (`evict`: no hook, no grace) stays as it is, and the operator makes no other
  in its place until it is deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

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
CONFIG_SECONDS = 30.0  # until a change of a config map is seen in a pod; 30 to 90 on a cluster
NOT_READY_SECONDS = 40.0  # until the cluster misses a node that is cut off

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
exec chroot "$root" {process}
"""
# As the image's user, without capabilities, with no variables but those of the container.
_PROCESS = """\
setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --inh-caps=-all \\
    --bounding-set=-all env -i --chdir={folder} {variables} {command}"""


@dataclass(frozen=True)
class Pod:
    """A pod that the operator would make."""

    host: str  # of Hosts, such as h1
    name: str
    role: str  # Launcher or Worker
    spec: dict[str, Any]  # of its template


@dataclass
class _State:
    """What is known of a pod that was started."""

    process: subprocess.Popen[bytes]
    container: dict[str, Any]
    ready: bool = False  # its name is known to the others
    ended: bool = False  # by the kubelet: phase Failed, and the pod stays


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
        self._states: dict[str, _State] = {}
        self._timers: list[threading.Timer] = []
        self._writing = threading.Lock()
        self._make_objects()
        self._tell_names()
        self.num_workers: int = roles["Worker"]["replicas"]
        self._write_config()

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
            process=_process(container, env, words),
        )
        scratch = self._folder / f"{pod.name}-{time.monotonic_ns()}"
        scratch.mkdir()
        own = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        within = ["ip", "netns", "exec", self.hosts.namespace(pod.host), *own]
        with log.open("ab") as into:
            process = subprocess.Popen(
                [*within, "sh", "-c", script, "sh", str(scratch)],
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=into,
                start_new_session=True,
            )
        if first:
            self._states[pod.name] = _State(process, container)
        return process

    def start_worker(self, pod: Pod, patience_seconds: float = 60) -> None:
        """Start a worker as the operator would, and wait until it is ready."""
        if pod.name in self._states and self._states[pod.name].ended:
            raise RuntimeError(f"{pod.name} has ended and stays: the operator makes no other")
        log = self._folder / f"{pod.name}.log"
        process = self.start(pod, log)
        namespace = self.hosts.namespace(pod.host)
        probe = ["ip", "netns", "exec", namespace, "bash", "-c", f"</dev/tcp/127.0.0.1/{PORT}"]
        deadline = time.monotonic() + patience_seconds
        self._change_config()  # it runs
        while subprocess.run(probe, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{pod.name} is not ready: {log.read_text('utf-8')}")
            time.sleep(0.2)
        self._states[pod.name].ready = True
        self._tell_names()

    def scale(self, num_workers: int) -> None:
        """Patch the number of workers; those that join are started by `start_worker`."""
        self.num_workers = num_workers
        self._change_config()

    def crash(self, pod: Pod) -> None:
        """End a pod at once, as its node does; it is gone, and the operator makes another."""
        self.hosts.kill(pod.host)
        self._states[pod.name].process.wait()
        self._forget(pod)

    def unplug(self, pod: Pod) -> None:
        """Cut a pod's node off: it runs on and stays listed; its name is known for less long."""
        self.hosts.set_link(pod.host, up=False)
        self._after(NOT_READY_SECONDS, self._is_missed, self._states[pod.name])

    def evict(self, pod: Pod) -> None:
        """Let the kubelet end a pod at once, as for want of disk: it is Failed and stays."""
        self.hosts.kill(pod.host)
        self._states[pod.name].process.wait()
        self._states[pod.name].ready = False
        self._states[pod.name].ended = True
        self._tell_names()
        self._change_config()

    def delete(self, *pods: Pod) -> None:
        """Delete pods, all at once; waits until the last of them has gone."""
        for pod in pods:
            self._states[pod.name].ready = False
        self._tell_names()
        ending = [threading.Thread(target=self._end, args=(pod,)) for pod in pods]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        for pod in pods:
            self._forget(pod)

    def close(self) -> None:
        """Let nothing change any more by itself."""
        for timer in self._timers:
            timer.cancel()

    def _forget(self, pod: Pod) -> None:
        self._states.pop(pod.name, None)
        self._tell_names()
        self._change_config()

    def _end(self, pod: Pod) -> None:
        """As the kubelet does: the hook, SIGTERM, and SIGKILL when the grace is over."""
        state = self._states[pod.name]
        deadline = time.monotonic() + pod.spec.get("terminationGracePeriodSeconds", 30)
        hook = state.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        if state.process.poll() is None and hook:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._exec(pod, hook["command"], deadline - time.monotonic())
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self._first_process(state).send_signal(signal.SIGTERM)
        try:
            state.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        self.hosts.kill(pod.host)
        state.process.wait()

    def _exec(self, pod: Pod, words: Sequence[str], seconds: float) -> None:
        """Run a command in a container that runs; it ends when the container does."""
        state = self._states[pod.name]
        env = self._environment(pod, state.container, first=True)
        target = f"--target={self._first_process(state).pid}"
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        own = ["nsenter", target, *spaces, "sh", "-c", _process(state.container, env, words)]
        subprocess.run(own, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)

    @staticmethod
    def _first_process(state: _State) -> psutil.Process:
        """The one with number 1 in its container."""
        return psutil.Process(state.process.pid).children()[0]

    def launch(self, log: Path, *more: str, mpirun: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the launcher, with more flags of the trainer and options of mpirun."""
        own = self.launcher.spec["containers"][0]
        changed = dict(own, args=[*own["args"], *more])
        changed["command"] = [own["command"][0], *mpirun, *own["command"][1:]]
        spec = dict(self.launcher.spec, containers=[changed])
        self._write_config()  # a new pod mounts what is there
        return self.start(replace(self.launcher, spec=spec), log)

    def run_init(self, log: Path) -> int:
        """Run the launcher's init containers in turn; the last exit code."""
        code = 0
        for container in self.launcher.spec.get("initContainers", ()):
            code = code or self.start(self.launcher, log, container).wait()
        return code

    def _change_config(self) -> None:
        """Something that the config map lists has changed: pods see it later."""
        self._after(CONFIG_SECONDS, self._write_config)

    def _write_config(self) -> None:
        """Rewrite the config map: all workers in the host file, those that run beside it."""
        slots = self._spec["slotsPerWorker"]
        listed = [self._full_name(pod) for pod in self.workers]
        running = [
            name
            for pod, name in zip(self.workers, listed, strict=True)
            if pod.name in self._states and not self._states[pod.name].ended
        ]
        discover = "".join(f"echo {name}\n" for name in running)
        files = {
            "hostfile": "".join(f"{name} slots={slots}\n" for name in listed[: self.num_workers]),
            "discover_hosts.sh": f"#!/bin/sh\n{discover}",
        }
        modes = {"hostfile": 0o444, "discover_hosts.sh": 0o555}
        with self._writing:
            _write_tree(self._folder / "config", files, modes)

    def _after(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        timer = threading.Timer(seconds, what, arguments)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _is_missed(self, state: _State) -> None:
        state.ready = False
        self._tell_names()

    def _full_name(self, pod: Pod) -> str:
        return f"{pod.name}.{self.name}.default.svc"

    def _tell_names(self) -> None:
        """What a name stands for, as the DNS of the cluster has it, in each pod's own file."""
        lines = ["127.0.0.1 localhost"]
        every = [self.launcher, *self.workers]
        entries = {
            pod.name: f"{NETWORK}.{number} {self._full_name(pod)} {pod.name}"
            for number, pod in enumerate(every, 1)
        }
        known = {pod.name for pod in self.workers if self._is_ready(pod)} | {self.launcher.name}
        for pod in every:
            names = [entries[name] for name in entries if name in known | {pod.name}]
            file = self._folder / f"hosts-{pod.name}"
            file.write_text("\n".join([*lines, *names, ""]), encoding="utf-8")  # in place: mounted

    def _is_ready(self, pod: Pod) -> bool:
        return pod.name in self._states and self._states[pod.name].ready

    def _make_objects(self) -> None:
        """The keys (secret), the list of hosts (config map), and the volume that is claimed."""
        secret, config = self._folder / "secret", self._folder / "config"
        for folder in (self.shared, secret, config):
            folder.mkdir(exist_ok=True)
        shutil.chown(self.shared, USER, USER)  # fsGroup
        key = self._folder / "id_rsa"
        key.unlink(missing_ok=True)
        quiet = ["-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", ""]
        subprocess.run(["ssh-keygen", *quiet, "-f", str(key)], check=True)
        public = key.with_suffix(".pub").read_text("utf-8")
        keys = {"id_rsa": key.read_text("utf-8"), "id_rsa.pub": public, "authorized_keys": public}
        # Only for root does the operator ask for 0600.
        _write_tree(secret, keys, dict.fromkeys(keys, 0o644))

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
        yield _bound("/etc/hosts", self._folder / f"hosts-{pod.name}")
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


def _process(container: dict[str, Any], env: dict[str, str], words: Sequence[str]) -> str:
    """The line of shell that becomes a process of a container."""
    return _PROCESS.format(
        user=USER,
        folder=shlex.quote(container.get("workingDir", "/opt/ringsage")),
        variables=shlex.join(f"{name}={value}" for name, value in env.items()),
        command=shlex.join(words),
    )


def _write_tree(folder: Path, files: dict[str, str], modes: dict[str, int]) -> None:
    """Files as a volume of keys has them: links through `..data`, which is replaced as a whole."""
    data = folder / f"..{time.monotonic_ns()}"
    data.mkdir()
    for name, text in files.items():
        file = data / name
        file.write_text(text, encoding="utf-8")
        file.chmod(modes[name])
        shutil.chown(file, 0, USER)  # fsGroup
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    before = (folder / "..data").resolve() if (folder / "..data").is_symlink() else None
    unfinished = folder / "..data_tmp"
    unfinished.symlink_to(data.name)
    unfinished.replace(folder / "..data")
    if before is not None:
        shutil.rmtree(before)
