"""Makes an MPIJob out of those in `mpi-operator`: the same job with other numbers."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gnn_core.data.catalog import PUBLISHED
from gnn_core.deploy.manifest_files import MANIFESTS, read_manifests
from gnn_core.deploy.mpijob_rules import GPU, name_problem
from gnn_core.deploy.overlay import containers_in
from gnn_core.deploy.pods import image_problem
from gnn_core.deploy.programs import IN_IMAGE, TRAINERS, dataset_problem, read_flags
from gnn_core.deploy.quantity import is_quantity, number_of
from gnn_core.deploy.yaml_objects import Object
from gnn_core.usage import UsageError


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What a job is to be like."""

    workers: int  # pods
    slots: int  # ranks of each
    dataset: str
    image: str
    strategy: str  # of TRAINERS
    gpus: int  # of each rank: 0 or 1
    threads: int  # cores of each rank
    memory: str  # of each worker, such as 8Gi
    name: str | None
    pvc: str | None  # a claim that is in the cluster already
    queue: str | None  # of Kueue
    elastic: bool  # workers may go and join
    flags: Sequence[str]  # of the trainer

    @property
    def job_name(self) -> str:
        """As given, or made of what the job is."""
        words = f"{self.strategy}-{self.dataset}-{self.workers}x{self.slots}".lower()
        return self.name or re.sub(r"[^a-z0-9]+", "-", words)

    def problems(self) -> list[str]:
        """Every problem, each as one clause."""
        found = [
            f"--{name}: expected 1 or more, got {value}"
            for name, value in (
                ("workers", self.workers),
                ("slots", self.slots),
                ("threads", self.threads),
            )
            if value < 1
        ]
        for name, given in (("name", self.name), ("pvc", self.pvc), ("queue", self.queue)):
            if given == "":
                found.append(f"--{name}: expected a name, got an empty one: leave the flag out")
        if problem := image_problem(self.image):
            found.append(f"--image: {problem}")
        if problem := dataset_problem(self.dataset):
            found.append(f"--dataset: {problem}")
        if problem := name_problem(self.job_name, self.workers):
            found.append(f"--name: {problem}")
        if not is_quantity(self.memory) or number_of(self.memory) <= number_of("1Gi"):
            found.append(
                f"--memory: expected more than 1Gi, which /dev/shm may take of it, got "
                f"{self.memory!r}"
            )
        if self.gpus and TRAINERS[self.strategy].framework == "keras":
            found.append(f"--gpus: {self.strategy} has none to use: its TensorFlow is a CPU build")
        if self.elastic:
            found += self._elastic_problems()
        if not found:
            try:
                config = read_flags(
                    self.strategy, self.trainer_flags([]), self.workers * self.slots
                )
                if self.elastic:
                    config.validate_elastic()
            except UsageError as error:
                found.append(str(error))
        return found

    def _elastic_problems(self) -> list[str]:
        found = []
        if not TRAINERS[self.strategy].elastic:
            found.append(f"--elastic: expected --strategy horovod, got {self.strategy}")
        if self.slots > 1:
            found.append(
                f"--elastic: expected --slots 1, got {self.slots}: when a rank fails, Horovod "
                "leaves out its whole host; give more --threads, or more --workers"
            )
        if self.queue:
            found.append(
                "--elastic: expected no --queue: Kueue admits a number of workers that then stays"
            )
        return found

    def trainer_flags(self, usual: Sequence[str]) -> list[str]:
        """The flags of the trainer: those of the strategy, the `usual` ones, then the user's.

        The trainer takes the last of two: what the user gives is what counts.
        """
        entry = PUBLISHED.get(self.dataset)
        by_hand = entry is not None and not entry.is_fetched
        return [
            f"--dataset={self.dataset}",
            *(f"{flag}={value}" for flag, value in TRAINERS[self.strategy].arguments.items()),
            *usual,
            *(["--data-root=/shared/data"] if by_hand else []),
            *(["--device=cuda"] if self.gpus else []),
            *self.flags,
        ]


def make_job(settings: JobSettings) -> list[Object]:
    """The job, after its claim if it brings one. Raises UsageError naming all problems at once."""
    if problems := settings.problems():
        raise UsageError("; ".join(problems))
    if not (MANIFESTS / "base").is_dir():
        raise UsageError(
            f"expected the manifests in {MANIFESTS}, found none: run in the repository"
        )
    made_of = MANIFESTS / ("overlays/elastic" if settings.elastic else "base")
    base = read_manifests(str(made_of))
    job = copy.deepcopy(base.of_kind("MPIJob")[0])
    job["metadata"]["name"] = settings.job_name
    if settings.queue:
        job["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": settings.queue}
    job["spec"]["slotsPerWorker"] = settings.slots
    roles = job["spec"]["mpiReplicaSpecs"]
    roles["Worker"]["replicas"] = settings.workers
    pods = [roles[role]["template"]["spec"] for role in ("Launcher", "Worker")]
    for container in containers_in(job):
        container["image"] = settings.image
    for volume in (one for pod in pods for one in pod["volumes"]):
        if settings.pvc and "persistentVolumeClaim" in volume:
            volume["persistentVolumeClaim"]["claimName"] = settings.pvc
    _fill_launcher(pods[0], settings)
    _fill_worker(pods[1], settings)
    return [job] if settings.pvc else [*base.of_kind("PersistentVolumeClaim"), job]


def _fill_launcher(pod: Object, settings: JobSettings) -> None:
    graph, launcher = pod["initContainers"][0], pod["containers"][0]
    graph["command"][-1] = settings.dataset
    graph["resources"] = _of_size("1", settings.memory)  # a large graph is prepared there
    usual = [flag for flag in launcher["args"] if not flag.startswith("--dataset=")]
    launcher["command"][-1] = f"{IN_IMAGE}/{TRAINERS[settings.strategy].program}"
    launcher["args"] = settings.trainer_flags(usual)
    graph["args"] += [flag for flag in launcher["args"] if flag.startswith("--data-root=")]
    threads = next(one for one in launcher["env"] if one["name"] == "OMP_NUM_THREADS")
    threads["value"] = str(settings.threads)


def _fill_worker(pod: Object, settings: JobSettings) -> None:
    size = _of_size(settings.slots * settings.threads, settings.memory)
    if settings.gpus:
        for amounts in size.values():
            amounts[GPU] = settings.slots
        pod["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    pod["containers"][0]["resources"] = size


def _of_size(cpu: int | str, memory: str) -> Object:
    return {kind: {"cpu": cpu, "memory": memory} for kind in ("requests", "limits")}
