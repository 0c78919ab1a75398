"""What runs used: cores, memory, network, files and throttling, by strategy and ranks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pandas as pd

from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows.scores import Spread
from gnn_core.report.rows.summary import Row, rows_with_runs
from gnn_core.report.tables.cells import Table, left_out
from gnn_core.report.tables.footprint import GIB
from gnn_core.report.tables.speed import distinguishing_columns, legend, ranks_text, spread_numbers

MB = 10**6
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


def resource_table(records: Sequence[RunRecord]) -> Table:
    """Return what the runs that ended well used; rows without samples stay, and say so."""
    pairs = [
        (row, [run for run in runs if run.status == "ok"])
        for row, runs in rows_with_runs(records)
        if row.runs
    ]
    sampled = [run for _, runs in pairs for run in runs if run.resources]
    if not sampled:
        return Table((), (), (), pd.DataFrame())
    distinguishing, machines = distinguishing_columns(pairs, lambda pair: pair[0], precision=True)
    uses = [[use_of(run) for run in runs if run.resources] for _, runs in pairs]
    notes = [*_MEANING, *legend(row for row, _ in pairs), *(machines if len(machines) > 1 else [])]
    without = sum(len(runs) for _, runs in pairs) - len(sampled)
    notes += [f"not sampled: {counted(without, 'run')}"] if without else []
    return Table(
        headings=(
            *("dataset", "strategy", "ranks", "runs", "cores used", "peak memory, GiB"),
            *("network out / in, MB/epoch", "loopback, MB/epoch", "files read / written, MB"),
            *("throttled, s", *distinguishing),
        ),
        cells=tuple(
            (*_cells(pair[0], some), *(show(pair) for show in distinguishing.values()))
            for pair, some in zip(pairs, uses, strict=True)
        ),
        notes=(*notes, *left_out(records)),
        numbers=pd.DataFrame(
            [_numbers(row, some) for (row, _), some in zip(pairs, uses, strict=True)]
        ),
    )


def use_of(run: RunRecord) -> Use:
    """Return what all ranks of a run used together."""
    cores = run.machine.get("cores_available")
    epochs = len(run.epochs)

    def per_epoch(total: float | None) -> float | None:
        return None if total is None or not epochs else total / epochs

    def of_networks(name: str) -> float | None:
        return per_epoch(_total(run, name, lambda rank: rank.network_mark))

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


def _cells(row: Row, uses: Sequence[Use]) -> tuple[str, ...]:
    def text(name: str, unit: float = 1) -> str:
        spread = _middle(uses, name)
        if spread is None:
            return NOTHING
        whole = name == "cores_available" and spread.middle.is_integer()
        return f"{spread.middle:.0f}" if whole else three_digits(spread.middle / unit)

    def two(first: str, join: str, second: str, unit: float = 1) -> str:
        parts = text(first, unit), text(second, unit)
        return NOTHING if parts == (NOTHING, NOTHING) else join.join(parts)

    return (
        *(row.dataset, row.strategy, ranks_text(row), str(len(uses))),
        two("cores", " of ", "cores_available"),
        two("peak_memory_bytes", " of ", "memory_limit_bytes", GIB),
        two("sent_bytes_per_epoch", " / ", "received_bytes_per_epoch", MB),
        text("loopback_bytes_per_epoch", MB),
        two("file_read_bytes", " / ", "file_written_bytes", MB),
        text("throttled_seconds"),
    )


def _numbers(row: Row, uses: Sequence[Use]) -> dict[str, object]:
    named = {"dataset": row.dataset, "strategy": row.strategy, "ranks": row.ranks}
    values: dict[str, object] = {**named, "runs": len(uses)}
    for name in Use.__dataclass_fields__:
        values |= spread_numbers(name, _middle(uses, name))
    return values


def _middle(uses: Sequence[Use], name: str) -> Spread | None:
    values = [getattr(use, name) for use in uses]
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(statistics.median(known), known[0], known[-1], len(known))
