"""A plan -> its runs in the order of their turns, each with a folder of its own for its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.files import file_stem, is_folder
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.settings.flags import write_flags
from gnn_core.sweep.launches import Launch, seen_from_root
from gnn_core.sweep.plan import DataSet, Plan
from gnn_core.sweep.time_left import Kind


@dataclass(frozen=True)
class Turn:
    """One run of a plan."""

    dataset: DataSet
    launch: Launch
    seed: int
    repeat: int  # from 1
    settings: Mapping[str, Any]  # field name -> value, all but where the record goes

    @property
    def kind(self) -> Kind:
        """What it has in common with runs that take as long."""
        return self.dataset.label, self.launch.strategy, self.launch.ranks

    @property
    def digest(self) -> str:
        """Six hex digits of the SHA-256 of the settings, in whatever order they were written."""
        text = json.dumps(dict(self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:6]

    @property
    def place(self) -> Path:
        """Its own folder, below that of the records: another plan's run has another one."""
        graph = file_stem(self.dataset.name)
        who = f"{self.launch.strategy}-{self.launch.ranks}"
        return Path(graph, who, f"seed-{self.seed}-repeat-{self.repeat}-{self.digest}")

    def flags(self, records: Path) -> list[str]:
        """The words after the program, with `records` as the sweep's folder."""
        folder = seen_from_root(records / self.place)
        return [*write_flags(self.settings), "--progress", "off", "--records", str(folder)]

    def command(self, records: Path) -> list[str]:
        """The words that start it. Raises UsageError without its launcher."""
        return self.launch.command(self.flags(records))


def in_order(plan: Plan) -> list[Turn]:
    """Return the runs in the order of their turns, so that whatever slows a machine slows all.

    A round is one run of each launch, on one data set with one seed. Rounds go through the data
    sets, then the seeds, then the repeats. Those of a data set each start with another launch.
    """
    return list(_turns(plan))


def _turns(plan: Plan) -> Iterator[Turn]:
    launches = plan.launches
    rounds = [(repeat, seed) for repeat in range(1, plan.repeats + 1) for seed in plan.seeds]
    for number, (repeat, seed) in enumerate(rounds):
        for at, dataset in enumerate(plan.datasets):
            first = (number + at) % len(launches)
            for one in (*launches[first:], *launches[:first]):
                yield Turn(dataset, one, seed, repeat, plan.settings(dataset, one, seed))


def result_in(folder: Path) -> RunRecord | None:
    """Return the record of the run that has ended in this folder, a good one rather than a failed.

    None when there is none, or when it was stopped: such a run is done again.
    """
    records = read_records(folder)[0] if is_folder(folder) else []
    ended = [record for record in records if record.status != "interrupted"]
    good = [record for record in ended if record.status == "ok"]
    return next(reversed(good or ended), None)
