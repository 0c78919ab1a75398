"""What runs used: cores, memory, network, files and throttling, by strategy and ranks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pandas as pd

from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows import Row, Spread, rows_with_runs
from gnn_core.report.table import (
    GIB,
    MB,
    Column,
    Table,
    distinguishing_columns,
    identity_columns,
    left_out,
    legend,
)

_MEANING = (
    "medians over runs; sampled from the first epoch to the end of the last evaluation "
    "(--sample-seconds)",
    "cores used: CPU seconds per second, mean of a run, all ranks together; of those that the job "
    "may use on all hosts, taken to be like the first",
    "peak memory: largest sample of what the cgroup of a rank (a pod, else its host) held, other "
    "programs in it included, without the file cache that it gives up first; of its limit",
    "network: sent and received by the hosts or pods of all ranks, other programs in them "
    "included, per epoch with its evaluations; loopback: the same between processes of one host",
    "files: read from and written to storage by all ranks in the whole run; what the page cache "
    "had is not read, and a file that is mapped counts when its pages come in",
    "throttled: CPU seconds that a quota held back, summed over cores and cgroups",
)


@dataclass(frozen=True)
class Use:
    """One run over all its ranks; None where not every rank reported its part."""

    cores: float | None
    cores_available: float | None
    peak_memory_bytes: float | None  # of the cgroup that came nearest to its limit
    memory_limit_bytes: float | None  # of the same one
    sent_bytes_per_epoch: float | None
    received_bytes_per_epoch: float | None
    loopback_bytes_per_epoch: float | None
    file_read_bytes: float | None
    file_written_bytes: float | None
    throttled_seconds: float | None


Line = tuple[Row, list[Use]]


def resource_table(records: Sequence[RunRecord]) -> Table:
    """Return what the runs that ended well used; rows without samples stay, and say so."""
    pairs = [(row, runs) for row, runs in rows_with_runs(records) if row.runs]
    good = [run for _, runs in pairs for run in runs if run.status == "ok"]
    without = sum(not run.resources for run in good)
    if without == len(good):
        return Table((), (), (), pd.DataFrame())
    lines = [
        (row, [use_of(run) for run in runs if run.status == "ok" and run.resources])
        for row, runs in pairs
    ]
    distinguishing, machines = distinguishing_columns(lines, lambda line: line[0], precision=True)
    columns: list[Column[Line]] = [
        *identity_columns(lambda line: line[0]),
        Column("runs", "runs", lambda line: len(line[1])),
        _two("cores used", "cores", " of ", "cores_available"),
        _two("peak memory, GiB", "peak_memory_bytes", " of ", "memory_limit_bytes", GIB),
        _two(
            "network out / in, MB/epoch",
            *("sent_bytes_per_epoch", " / ", "received_bytes_per_epoch", MB),
        ),
        Column(
            "loopback, MB/epoch", None, lambda line: _text(line, "loopback_bytes_per_epoch", MB)
        ),
        _two("files read / written, MB", "file_read_bytes", " / ", "file_written_bytes", MB),
        Column("throttled, s", None, lambda line: _text(line, "throttled_seconds")),
        *map(_in_file, Use.__dataclass_fields__),
        *distinguishing,
    ]
    notes = [*_MEANING, *legend(row for row, _ in lines), *(machines if len(machines) > 1 else [])]
    notes += [f"not sampled: {counted(without, 'run')}"] if without else []
    return Table.of(lines, columns, (*notes, *left_out(records)))


def use_of(run: RunRecord) -> Use:
    """Return what all ranks of a run used together."""
    cores = run.machine.get("cores_available")

    def of_networks(name: str) -> float | None:
        total = _total(run, name, lambda rank: rank.network_mark)
        return None if total is None or not run.epochs else total / len(run.epochs)

    memory = [
        (one.cgroup_memory_bytes_peak, one.memory_limit_bytes)
        for one in run.resources
        if one and one.cgroup_memory_bytes_peak is not None and one.memory_limit_bytes
    ]
    peak, limit = max(memory, key=lambda pair: pair[0] / pair[1], default=(None, None))
    return Use(
        cores=_total(run, "cpu_cores_mean"),
        cores_available=float(cores * len(run.hosts)) if isinstance(cores, int | float) else None,
        peak_memory_bytes=peak,
        memory_limit_bytes=limit,
        sent_bytes_per_epoch=of_networks("network_sent_bytes"),
        received_bytes_per_epoch=of_networks("network_received_bytes"),
        loopback_bytes_per_epoch=of_networks("loopback_bytes"),
        file_read_bytes=_total(run, "file_read_bytes"),
        file_written_bytes=_total(run, "file_written_bytes"),
        throttled_seconds=_total(run, "throttled_seconds", lambda rank: rank.cgroup_mark),
    )


def _total(
    run: RunRecord, name: str, shared: Callable[[ProcessResources], Hashable] | None = None
) -> float | None:
    """Return the sum over ranks, or over the places that ranks share (the largest of each).

    Ranks of one place read the same counters, but begin and end a moment apart.
    """
    places: dict[Hashable, float] = {}
    for rank, one in enumerate(run.resources):
        value = None if one is None else getattr(one, name)
        place = rank if one is None or shared is None else shared(one)
        if value is None or place is None:
            return None
        places[place] = max(value, places.get(place, value))
    return sum(places.values()) if places else None


def _over_runs(line: Line, name: str) -> Spread | None:
    return Spread.of(getattr(use, name) for use in line[1])


def _text(line: Line, name: str, unit: float = 1) -> str:
    spread = _over_runs(line, name)
    if spread is None:
        return NOTHING
    whole = name == "cores_available" and spread.middle.is_integer()
    return f"{spread.middle:.0f}" if whole else three_digits(spread.middle / unit)


def _two(heading: str, first: str, join: str, second: str, unit: float = 1) -> Column[Line]:
    """Return a column of two measures."""

    def text(line: Line) -> str:
        parts = _text(line, first, unit), _text(line, second, unit)
        return NOTHING if parts == (NOTHING, NOTHING) else join.join(parts)

    return Column(heading, None, text)


def _in_file(name: str) -> Column[Line]:
    return Column(None, name, lambda line: _over_runs(line, name), spread=True)
