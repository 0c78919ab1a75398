"""A plan of many runs, read from YAML and checked whole: every problem is reported at once.

Keys, all of which may be left out:

    strategies        list of names (default: all)
    ranks             how many each has that can have several (default: [1, 2])
    datasets          names, or mappings of a `name` and settings that only its runs have
    seeds, repeats    lists of whole numbers and a whole number (default: [0], 3)
    epochs, threads   of every run (default: 4, of which the first warms up, and 1)
    scaling           strong: the global batch stays; weak: it is local_batch_size times the ranks
    flags             further settings of every run, as a mapping or as a list of flags
    records           folder (default: results/sweeps/<name of the plan's file>)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gnn_core.config import UsageError, parse_config
from gnn_core.files import path_problem
from gnn_core.settings.flags import write_flags
from gnn_core.settings.options import show
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.launches import Launch, chosen
from gnn_core.sweep.plan_keys import Keys
from gnn_core.usage import shown

SCALINGS = ("strong", "weak")
_MOST_RANKS, _MOST_RUNS = 65_536, 10_000
FEWEST_EPOCHS = 2  # the first warms up and is not counted
_OWN = {
    "dataset": "name it under datasets",
    "seed": "the plan has the key seeds for it",
    "records": "the plan has the key records for it",
    **dict.fromkeys(
        ("strategy", "replicas", "world_size"), "the plan has the keys strategies and ranks for it"
    ),
}
_OWN_OF_ALL = {**_OWN, **{name: f"the plan has the key {name}" for name in ("epochs", "threads")}}
_WEAK = {"global_batch_size": "with scaling: weak it is local_batch_size times the ranks"}


@dataclass(frozen=True)
class DataSet:
    """A data set, and what its runs have beside the settings of the plan, or instead of them."""

    name: str
    settings: Mapping[str, Any]  # field name -> value

    @property
    def label(self) -> str:
        """For a line of progress: `cora`, or `cit-hepth task=link`."""
        return " ".join([self.name, *(f"{key}={show(one)}" for key, one in self.settings.items())])


@dataclass(frozen=True)
class Plan:
    """What is to be run (see the module); complete and checked."""

    strategies: tuple[str, ...]
    ranks: tuple[int, ...]
    datasets: tuple[DataSet, ...]
    seeds: tuple[int, ...]
    repeats: int
    epochs: int
    threads: int
    scaling: str  # one of SCALINGS
    local_batch_size: int | None  # targets per rank and step, with weak scaling
    flags: Mapping[str, Any]  # field name -> value
    records: Path

    @property
    def launches(self) -> list[Launch]:
        """Strategies at their numbers of ranks, in the order of the plan's first round."""
        return chosen(self.strategies, self.ranks)

    def settings(self, dataset: DataSet, launch: Launch, seed: int) -> dict[str, Any]:
        """Every setting of a run but the folder of its record (field name -> value)."""
        given = {**self.flags, **dataset.settings}
        epochs = given.get("epochs", self.epochs)
        settings = {
            "dataset": dataset.name,
            "epochs": epochs,
            "threads": self.threads,
            "seed": seed,
            "eval_every": epochs,  # at the end alone, unless the plan says otherwise
            **given,
        }
        if self.local_batch_size is not None:
            settings["global_batch_size"] = self.local_batch_size * launch.ranks
        return settings


_KEYS = tuple(field.name for field in fields(Plan))


def read_plan(path: Path) -> Plan:
    """Read a plan; raises UsageError that names all its problems in one line."""
    keys = Keys(path, _KEYS)
    ranks = keys.wholes("ranks", (1, 2), 1, _MOST_RANKS)
    scaling = keys.text("scaling", "strong", SCALINGS)
    of_scaling = _WEAK if scaling == "weak" else {}
    plan = Plan(
        strategies=keys.names("strategies", tuple(STRATEGIES)),
        ranks=tuple(sorted(set(ranks))),
        datasets=tuple(_datasets(keys, {**_OWN, **of_scaling})),
        seeds=keys.wholes("seeds", (0,), 0, 2**63 - 1),
        repeats=keys.whole("repeats", 3, 1),
        epochs=keys.whole("epochs", 4, FEWEST_EPOCHS),
        threads=keys.whole("threads", 1, 1),
        scaling=scaling,
        local_batch_size=_local_batch_size(keys, scaling),
        flags=keys.settings("flags", keys.value("flags"), {**_OWN_OF_ALL, **of_scaling}),
        records=_records(keys, f"results/sweeps/{path.stem}"),
    )
    runs = len(plan.launches) * len(plan.datasets) * len(plan.seeds) * plan.repeats
    if runs > _MOST_RUNS:  # each is looked at below
        raise UsageError(f"{path}: expected at most {_MOST_RUNS} runs, got {runs}: lower repeats")
    problems = list(dict.fromkeys([*keys.problems, *_problems_of_runs(plan)]))
    if problems:
        raise UsageError(f"{path}: {'; '.join(problems)}")
    return plan


def _datasets(keys: Keys, own: Mapping[str, str]) -> Iterator[DataSet]:
    seen: list[DataSet] = []
    for entry in keys.entries("datasets", ["synthetic"]):
        given = dict(entry) if isinstance(entry, dict) else {"name": entry}
        name = given.pop("name", None)
        if not isinstance(name, str) or not name.strip():
            keys.problems.append(
                f"datasets: expected a name or {{name: cora, ...}}, got {shown(entry)}"
            )
            continue
        dataset = DataSet(name, keys.settings(f"datasets: {name}", given, own))
        if dataset.settings.get("epochs", FEWEST_EPOCHS) < FEWEST_EPOCHS:
            keys.problems.append(
                f"datasets: {name}: epochs: expected a whole number from {FEWEST_EPOCHS}, since "
                f"the first warms up, got {dataset.settings['epochs']}"
            )
        elif dataset in seen:
            keys.problems.append(f"datasets: {dataset.label} is given twice, keep one")
        seen.append(dataset)
        yield dataset


def _records(keys: Keys, default: str) -> Path:
    text = keys.text("records", default)
    if problem := path_problem(text):
        keys.problems.append(f"records: {problem}")
        return Path(text)
    return Path(text).expanduser().absolute()


def _local_batch_size(keys: Keys, scaling: str) -> int | None:
    given = keys.value("local_batch_size")
    if scaling == "weak" and given is None:
        keys.problems.append("scaling: weak needs local_batch_size, the targets per rank and step")
    elif scaling != "weak" and given is not None:
        keys.problems.append("local_batch_size: only scaling: weak uses it: leave one of them out")
    elif given is not None:
        return keys.whole("local_batch_size", 1, 1)
    return None


def _problems_of_runs(plan: Plan) -> Iterator[str]:
    """Yield what each run would refuse, in its words; most problems are those of many runs."""
    for dataset in plan.datasets:
        for launch in plan.launches:
            settings = plan.settings(dataset, launch, plan.seeds[0])
            try:
                parse_config(write_flags(settings), "sweep").validate_world(launch.ranks)
            except UsageError as problem:
                yield from str(problem).split("; ")
