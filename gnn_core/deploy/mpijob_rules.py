"""Rules for an MPIJob: what it needs for its ranks to meet, train, and keep their record.

The first rules are the operator's own, applied after the API server has accepted the object; the
others compare fields with each other. Called by `validate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gnn_core.config import RunConfig
from gnn_core.deploy.elastic import DISCOVER, ELASTIC, elastic_problems
from gnn_core.deploy.manifest_files import MANIFESTS
from gnn_core.deploy.operator_names import SSH_DEFAULT
from gnn_core.deploy.pods import Problems, containers_of
from gnn_core.deploy.programs import (
    PREDICT,
    Command,
    dataset_problem,
    read_command,
    read_flags,
    read_prediction,
    strategy_of,
    unknown_flags,
)
from gnn_core.deploy.quantity import number_of
from gnn_core.deploy.yaml_objects import Object, name_of
from gnn_core.usage import UsageError

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MOST_LABEL = 63
_USER = 1000  # of the Dockerfile
_SSHD = ["/usr/sbin/sshd", "-De", "-f", "/etc/ssh/ringsage_sshd_config"]
_SPECS = "spec.mpiReplicaSpecs"
_MAIN = f"{_SPECS}.Launcher.template.spec.containers[0]"
_QUEUE = "kueue.x-k8s.io/queue-name"
GPU = "nvidia.com/gpu"


def name_problem(name: str, num_workers: int) -> str | None:
    """What is wrong with a job's name, if anything is: its pods' names are host names."""
    for host in (f"{name}-worker-{max(num_workers, 1) - 1}", f"{name}-launcher"):
        if not _LABEL.fullmatch(host) or len(host) > _MOST_LABEL:
            return (
                f"expected a-z, 0-9 and - after a letter, at most {_MOST_LABEL} characters with "
                f"what the operator appends, got the host name {host!r} ({len(host)} characters): "
                "choose another name"
            )
    return None


def replicas_problems(job: Object) -> Problems:
    """One launcher, workers, and names that can be host names."""
    roles = job["spec"]["mpiReplicaSpecs"]
    num_launchers = roles.get("Launcher", {}).get("replicas", 1)
    if num_launchers != 1:
        yield f"{_SPECS}.Launcher.replicas", f"expected 1, got {num_launchers}: set it to 1"
    for role in ("Launcher", "Worker"):
        pod = roles.get(role, {}).get("template", {}).get("spec", {})
        at = f"{_SPECS}.{role}.template.spec"
        if "restartPolicy" in pod:
            yield (
                f"{at}.restartPolicy",
                f"the operator overrides it: write it above, as {_SPECS}.{role}.restartPolicy",
            )
    num_workers = roles.get("Worker", {}).get("replicas", 1)
    if problem := name_problem(name_of(job), num_workers):
        yield "metadata.name", problem


def queue_problems(job: Object) -> Problems:
    """Kueue suspends its jobs itself; whoever writes it down suspends the job at the next apply."""
    queue = (job["metadata"].get("labels") or {}).get(_QUEUE)
    if queue and "suspend" in (job["spec"].get("runPolicy") or {}):
        yield (
            "spec.runPolicy.suspend",
            f"Kueue sets it by itself for the queue {queue!r}; applied again, this would delete "
            "the pods of a running job, or start one that waits: leave it out",
        )


def ssh_problems(job: Object) -> Problems:
    """Workers run sshd, as whom and where the launcher looks for it, and say when it answers."""
    spec = job["spec"]
    mounted = spec.get("sshAuthMountPath", SSH_DEFAULT)
    home = f"{_of_file('sshd_config', 'HostKey').rpartition('/')[0]}"
    if mounted != home:
        yield "spec.sshAuthMountPath", f"expected {home}, where the image looks, got {mounted}"
    for role in ("Launcher", "Worker"):
        pod = spec["mpiReplicaSpecs"][role]["template"]["spec"]
        context = pod.get("securityContext", {}) | pod["containers"][0].get("securityContext", {})
        if (user := context.get("runAsUser")) not in (None, 0, _USER):
            yield (
                f"{_SPECS}.{role}.template.spec.securityContext.runAsUser",
                f"expected {_USER}, whom the image has a home for, got {user}: ssh knows no other",
            )
    worker = spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    at = f"{_SPECS}.Worker.template.spec.containers[0]"
    words = [*(worker.get("command") or ()), *(worker.get("args") or ())]
    if words[:4] != _SSHD:
        got = " ".join(words) or "none"
        yield f"{at}.command", f"expected {' '.join(_SSHD)}, got {got}"
        return
    port = int(_of_file("sshd_config"))
    if words[4:]:
        yield f"{at}.command", f"expected no more than sshd's file, got {' '.join(words[4:])}"
    ports: dict[str | None, int] = {}
    for one in worker.get("ports") or ():  # of two of a name, reported elsewhere, the first
        ports.setdefault(one.get("name"), one["containerPort"])
    if port not in ports.values():
        got = ", ".join(map(str, ports.values())) or "none"
        yield f"{at}.ports", f"expected {port}, sshd's, got {got}: correct containerPort"
    probe = worker.get("readinessProbe")
    asked = ((probe or {}).get("tcpSocket") or {}).get("port")
    if probe and ports.get(asked, asked) != port:
        yield f"{at}.readinessProbe", f"expected a tcpSocket at {port}, sshd's, got {asked}"
    if not probe and spec.get("launcherCreationPolicy") == "WaitForWorkersReady":
        yield (
            f"{at}.readinessProbe",
            f"expected tcpSocket at {port}, got none: workers are ready before sshd answers",
        )


def _of_file(name: str, key: str = "Port") -> str:
    """A setting of the ssh files that the image is built with."""
    text = (MANIFESTS / name).read_text("utf-8")
    found = re.search(rf"^\s*{key}\s+(\S+)", text, re.MULTILINE)
    assert found is not None
    return found[1]


def program_problems(job: Object) -> Problems:
    """What the launcher starts is here, takes its flags, and fits the workers."""
    spec = job["spec"]
    launcher = spec["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    slots: int = spec.get("slotsPerWorker", 1)
    num_workers: int = spec["mpiReplicaSpecs"]["Worker"]["replicas"]
    if slots < 1 or num_workers < 1:  # reported already, and nothing fits none
        return
    command = read_command(launcher["containers"][0])
    if not command.launcher:
        got = command.program or "no command"
        yield f"{_MAIN}.command", f"expected mpirun or horovodrun, got {got}"
    # Ranks of a launcher that works, too, come first.
    roles = ("Launcher", "Worker") if spec.get("runLauncherAsWorker") else ("Worker",)
    size = (num_workers + len(roles) - 1) * slots
    elastic = ELASTIC in command.options
    if elastic:
        yield from ((f"{_MAIN}.command", one) for one in elastic_problems(command, slots, size))
    elif command.launcher == "horovodrun":
        yield (
            f"{_MAIN}.command",
            f"horovodrun: expected {ELASTIC}={DISCOVER}, got none: without it horovodrun starts "
            "all ranks in the launcher's pod; use mpirun",
        )
    elif command.num_ranks is not None and command.num_ranks != str(size):
        yield (
            f"{_MAIN}.command",
            f"-np: expected {size}, workers x slots, got {command.num_ranks}: leave -np out, "
            "mpirun starts a rank in every slot",
        )
    if command.program == PREDICT:
        yield from _prediction_problems(spec, command, roles)
    elif strategy := strategy_of(command):
        yield from _training_problems(spec, command, roles, strategy, size)


def _training_problems(
    spec: dict[str, Any], command: Command, roles: tuple[str, ...], strategy: str, size: int
) -> Problems:
    """The trainer takes its flags with so many ranks, and what it keeps outlives the pods."""
    try:
        config = read_flags(strategy, command.flags, size)
        if ELASTIC in command.options:
            config.validate_elastic()
    except UsageError as error:
        yield f"{_MAIN}.args", str(error)
        return
    yield from _graph_problems(spec, config.dataset, config.cache_dir)
    for role in roles:
        yield from _machine_problems(role, spec, config)
    files = {
        "--dataset": config.dataset if config.dataset.startswith("/") else None,
        "--records": config.records,
        "--checkpoint-dir": config.checkpoint_dir,
        "--tensorboard": config.tensorboard,
        "--cache-dir": config.cache_dir or "",
    }
    yield from _kept_problems(spec["mpiReplicaSpecs"][roles[0]]["template"]["spec"], files)
    if config.checkpoint_dir and not config.resume:
        if spec.get("runPolicy", {}).get("backoffLimit", 6):
            yield (
                f"{_MAIN}.args",
                "--checkpoint-dir without --resume: a launcher that is started again would refuse "
                "what the first one has saved: add --resume",
            )


def _prediction_problems(
    spec: dict[str, Any], command: Command, roles: tuple[str, ...]
) -> Problems:
    """The same of predict.py; settings that the checkpoint holds are not known here."""
    try:
        request = read_prediction(command.flags)
    except UsageError as error:
        yield f"{_MAIN}.args", str(error)
        return
    if request.dataset:
        yield from _graph_problems(spec, request.dataset, request.place.cache_dir)
    for role in roles:
        yield from _machine_problems(role, spec, request.place)
    files = {
        "--checkpoint-dir": str(request.checkpoint_dir),
        "--output": str(request.output),
        "--cache-dir": None if request.export else request.place.cache_dir or "",
    }
    may_be_files = {
        "--dataset": request.dataset,
        "--nodes": request.nodes,
        "--papers": request.papers,
        "--candidates": request.candidates,
    }
    files |= {flag: name for flag, name in may_be_files.items() if name and name.startswith("/")}
    yield from _kept_problems(spec["mpiReplicaSpecs"][roles[0]]["template"]["spec"], files)


def _graph_problems(spec: dict[str, Any], dataset: str, cache_dir: str | None) -> Problems:
    """The data set is known, and init containers prepare no other."""
    if problem := dataset_problem(dataset):
        yield f"{_MAIN}.args", f"--dataset: {problem}"
        return
    launcher = spec["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    wanted = ["prepare", dataset]
    if cache_dir:
        wanted.append(f"--cache-dir={cache_dir}")
    for path, container in containers_of(f"{_SPECS}.Launcher.template.spec", launcher):
        command = read_command(container)
        if command.program == "gnn_core/data/datasets.py" and not set(wanted) <= set(command.flags):
            yield (
                f"{path}.command",
                f"expected {' '.join(wanted)}, the graph that is read, got "
                f"{' '.join(command.flags)}",
            )


def _machine_problems(role: str, spec: dict[str, Any], config: RunConfig) -> Problems:
    """Ranks have the cores, the GPUs and the shared memory that they are to use."""
    path = f"{_SPECS}.{role}.template.spec.containers[0]"
    at, slots = f"{path}.resources.limits", spec.get("slotsPerWorker", 1)
    worker = spec["mpiReplicaSpecs"][role]["template"]["spec"]["containers"][0]
    limits = worker.get("resources", {}).get("limits", {})
    cores = number_of(limits.get("cpu", 0))
    if cores and config.threads * slots > cores:
        yield (
            f"{at}.cpu",
            f"expected at least {config.threads * slots}, {slots} slots x {config.threads} "
            f"threads, got {cores}: raise it, or lower OMP_NUM_THREADS or --threads",
        )
    mounted = [mount["mountPath"] for mount in worker.get("volumeMounts") or ()]
    if "/dev/shm" not in mounted:
        yield (
            f"{path}.volumeMounts",
            "expected an emptyDir in memory at /dev/shm, where ranks of a pod meet; got none, "
            "which leaves 64 MiB",
        )
    locked = (worker.get("securityContext") or {}).get("readOnlyRootFilesystem")
    if locked and "/home/mpiuser/.cache" not in mounted:
        yield (
            f"{path}.volumeMounts",
            "the root file system is read-only: mount an emptyDir at /home/mpiuser/.cache, where "
            "numba keeps what it compiles: no rank starts without",
        )
    num_gpus = int(number_of(limits.get(GPU, 0)))
    if num_gpus not in (0, slots):
        yield f"{at}.{GPU}", f"expected {slots}, one for each slot, got {num_gpus}"
    if config.device == "cuda" and not num_gpus:
        yield f"{at}.{GPU}", f"--device cuda: expected {slots}, got none: add it"
    if config.device == "cpu" and num_gpus:
        yield f"{at}.{GPU}", f"--device cpu: expected none, got {num_gpus}: leave it out"


def _kept_problems(worker: dict[str, Any], files: dict[str, str | None]) -> Problems:
    """Rank 0's pod: what it reads is there, what it writes outlives it, on a claim alone.

    Args:
        worker: its spec.
        files: flag -> file or folder; None: the flag is not given.
    """
    kept = {one["name"] for one in worker.get("volumes") or () if "persistentVolumeClaim" in one}
    mounts = [
        one["mountPath"].rstrip("/")
        for one in worker["containers"][0].get("volumeMounts") or ()
        if one["name"] in kept and not one.get("readOnly")
    ]
    for flag, folder in files.items():
        if folder is None or any(f"{folder}/".startswith(f"{mount}/") for mount in mounts):
            continue
        where = " or ".join(mounts) or "a claim, which the worker does not mount"
        got = folder or "the default"
        yield f"{_MAIN}.args", f"{flag}: expected a path in {where}, got {got}"


def commands_problems(path: str, container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Any container: its program is one of the image's, and has the flags."""
    command = read_command(container)
    for problem in command.problems:
        yield f"{path}.command", problem
    if command.program != PREDICT and strategy_of(command) is None:
        for flag in unknown_flags(command):
            yield f"{path}.command", f"{command.program} has no flag {flag}"
    name = prepared_dataset(command)
    if name and (unknown := dataset_problem(name)):
        yield f"{path}.command", unknown


def prepared_dataset(command: Command) -> str | None:
    """What `gnn_core.data.datasets prepare` is to prepare; None for another program."""
    if command.program != "gnn_core/data/datasets.py":
        return None
    plain = [word for word in command.flags if not word.startswith("--")]
    return plain[1] if plain[:1] == ["prepare"] and len(plain) > 1 else None
