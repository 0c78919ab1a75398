"""Rules for a container that runs a sweep: a valid plan, and records on a persistent volume."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from gnn_core.deploy.manifest_files import Manifests
from gnn_core.deploy.pods import Problems, containers_of
from gnn_core.deploy.programs import dataset_problem, read_command
from gnn_core.deploy.yaml_objects import name_of
from gnn_core.sweep.plan import read_plan
from gnn_core.usage import UsageError

_PROGRAM = "gnn_core/sweep/__main__.py"


def plan_problems(path: str, pod: dict[str, Any], manifests: Manifests) -> Problems:
    """The plan, where a ConfigMap among the manifests has it."""
    volumes = {one["name"]: one for one in pod.get("volumes") or ()}
    for at, container in containers_of(path, pod):
        command = read_command(container)
        named = [PurePosixPath(word) for word in command.flags if not word.startswith("-")]
        if command.program != _PROGRAM or not named:
            continue
        mounts = container.get("volumeMounts") or ()
        folders = {PurePosixPath(one["mountPath"]): volumes.get(one["name"], {}) for one in mounts}
        kept = [folder for folder, one in folders.items() if "persistentVolumeClaim" in one]
        config = (folders.get(named[0].parent) or {}).get("configMap") or {}
        for one in manifests.of_kind("ConfigMap"):
            if name_of(one) == config.get("name"):
                text = (one.get("data") or {}).get(named[0].name)
                for problem in _problems(text, named[0].name, kept):
                    yield f"{at}.command", f"{named[0]}: {problem}"


def _problems(text: str | None, name: str, kept: list[PurePosixPath]) -> Iterator[str]:
    if text is None:
        yield f"its ConfigMap has no {name}: add it, or name another file"
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            plan = read_plan(file)
        except UsageError as error:
            yield str(error).removeprefix(f"{file}: ")
            return
    for dataset in plan.datasets:
        if problem := dataset_problem(dataset.name):
            yield f"datasets: {problem}"
    if not any(plan.records.is_relative_to(folder) for folder in kept):
        where = " or ".join(map(str, kept)) or "a claim, which the container does not mount"
        here = Path.cwd()  # where the plan's reader takes another folder to be
        got = plan.records.relative_to(here) if plan.records.is_relative_to(here) else plan.records
        yield f"records: expected a folder in {where}, got {got}"
