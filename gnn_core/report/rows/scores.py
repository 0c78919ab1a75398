"""What a run is judged by, and how far seeds lie apart in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_core.measure.run_record import RunRecord

TASKS = {"node": "node classification", "link": "link prediction"}
"""Value of `--task` -> its name in a caption."""


@dataclass(frozen=True)
class Spread:
    """A middle value, and how far the runs behind it lie apart."""

    middle: float
    low: float
    high: float
    count: int


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task of a configuration, a key of TASKS."""
    return "link" if config.get("task") == "link" else "node"


def by_task(records: Sequence[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Return the records of each task, node classification first, beside the task's name.

    Scores, targets and seconds of two tasks cannot be compared, so no table and no chart holds
    both. The name is empty where all records are of one task and need no caption.
    """
    parts = [
        (name, [run for run in records if task_of(run.config) == task])
        for task, name in TASKS.items()
    ]
    parts = [part for part in parts if part[1]]
    return parts if len(parts) > 1 else [("", runs) for _, runs in parts]


def score_name(run: RunRecord) -> str:
    """Return what the task of a run is judged by: `accuracy`, or `mrr` for link prediction."""
    return "mrr" if task_of(run.config) == "link" else "accuracy"


def accuracy_over_seeds(runs: Iterable[RunRecord]) -> Spread | None:
    """Return mean and standard deviation over seeds of the test score; None when unknown.

    The score is an accuracy, or the mean reciprocal rank where links were predicted.

    Runs of one seed are one observation: repeating it would make the deviation look smaller.
    """
    by_seed: dict[Any, list[float]] = {}
    for run in runs:
        value = run.final.get(f"test_{score_name(run)}")
        if run.status == "ok" and value is not None:
            by_seed.setdefault(run.config.get("seed"), []).append(value)
    if not by_seed:
        return None
    means = [statistics.fmean(values) for values in by_seed.values()]
    middle = statistics.fmean(means)
    deviation = statistics.stdev(means) if len(means) > 1 else 0.0
    return Spread(middle, middle - deviation, middle + deviation, len(means))
