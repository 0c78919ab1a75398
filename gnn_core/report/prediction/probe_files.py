"""The file that a probe leaves -> measurements: seconds of an allreduce by ranks and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.files import read_regular
from gnn_core.measure.strict_json import WrongShape, build, parse
from gnn_core.report.rows import machine_words
from gnn_core.usage import UsageError

_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Probe:
    """Allreduces between the ranks of one job; the lists have an entry for each message size."""

    strategy: str
    controller: str | None
    num_ranks: int
    hosts: list[str]
    ranks_per_host: list[int]
    message_bytes: list[int]
    repetitions: list[int]
    lower_quartile_seconds: list[float]  # of the slowest rank of each repetition
    median_seconds: list[float]
    upper_quartile_seconds: list[float]

    def __post_init__(self) -> None:
        """Raise ValueError for lists of several lengths, and times that are none."""
        times = (self.lower_quartile_seconds, self.median_seconds, self.upper_quartile_seconds)
        if {len(some) for some in (self.repetitions, *times)} != {len(self.message_bytes)}:
            raise ValueError("expected as many repetitions and seconds as message_bytes")
        if not all(math.isfinite(value) and value > 0 for some in times for value in some):
            raise ValueError("expected seconds that are finite and above 0")
        if self.num_ranks < 1 or not self.message_bytes or min(self.message_bytes) < 0:
            raise ValueError("expected 1 rank or more, and sizes of 0 bytes or more")


@dataclass(frozen=True)
class ProbeFile:
    """A probe and where it comes from."""

    path: Path
    probe: Probe
    machine: str  # in words, as `summary.machine_words` tells it
    load_average: float | None  # of the minute before it began


def read_probes(paths: Sequence[Path], strategy: str) -> list[ProbeFile]:
    """Return the probes of a strategy in these files, fewest ranks first.

    Raises UsageError: a file cannot be read, is no probe, or is one of another strategy; or none of
    them is of several ranks.
    """
    files = [_read(path) for path in paths]
    for file in files:
        if file.probe.strategy != strategy:
            raise UsageError(
                f"expected a probe of {strategy}, got one of {file.probe.strategy} in {file.path}: "
                f"choose with --strategy, or measure anew"
            )
    if all(file.probe.num_ranks < 2 for file in files):
        names = ", ".join(str(path) for path in paths)
        raise UsageError(
            f"expected a probe of 2 ranks or more, got 1 rank in {names}: nothing travels there; "
            "start it under horovodrun -np 2"
        )
    return sorted(files, key=lambda file: file.probe.num_ranks)


def _read(path: Path) -> ProbeFile:
    try:
        values = parse(read_regular(path, _MOST_BYTES).decode("utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("machine"), dict):
            raise WrongShape("not a benchmark file")
        if "probe" not in values:
            raise WrongShape("a benchmark file, but of something else")
        probe = build(Probe, values["probe"], "probe")
    except (WrongShape, UnicodeDecodeError) as problem:
        raise UsageError(
            f"{path}: expected what horovod_gnn/probe.py --json FILE writes, got: {problem}"
        ) from None
    load: Any = values["machine"].get("load_average")
    is_number = isinstance(load, int | float)
    return ProbeFile(path, probe, machine_words(values["machine"]), load if is_number else None)
