"""What runs held in memory, and what else of their machines they used.

Memory: the graph once per host, and what each rank has to itself. Use: cores, memory, network,
files and throttling, by strategy and ranks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pandas as pd

from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.report.rows import Row, Spread, rows_with_runs, settings_of
from gnn_core.report.table import (
    GIB,
    MB,
    Column,
    Table,
    distinguishing_columns,
    gib_text,
    graph_mark,
    left_out,
    legend,
    row_columns,
    settings_column,
)
from gnn_core.strategies import order_of

_TWO_BYTE_FEATURES = re.compile(r"feature_dtype=b?float16\b")
_HELD_MEANING = (
    "in GiB; graph: the arrays that training reads (offsets, neighbours, features, labels, "
    "splits), computed from their counts",
    "PSS, at the end of a run, divides shared pages among their users: its sum is what the ranks "
    "hold together, while RSS counts the graph in each of them",
    "own per rank: (sum of PSS - one graph per host) / ranks",
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one run; None where the record does not say."""

    graph: int | None  # on one host
    pss: int | None  # summed over ranks
    largest_peak_rss: int | None  # of any rank
    own_per_rank: float | None  # PSS without the graph; negative when parts were never read


def memory_table(records: Sequence[RunRecord]) -> Table:
    """Return the memory of each run that ended well, in GiB."""
    runs = sorted((run for run in records if run.status == "ok"), key=_place)
    lines = [(run, footprint(run)) for run in runs]
    notes = [*_HELD_MEANING]
    untold = [run for run in runs if run.dataset.feature_bytes is None]
    if any(graph_bytes(run.dataset) is not None for run in untold):
        notes.append(_feature_note(untold))
    if any((one.own_per_rank or 0) < 0 for _, one in lines):
        notes.append("below 0: parts of the graph were not in memory at the end of the run")

    def gib(heading: str, name: str) -> Column[tuple[RunRecord, Footprint]]:
        return Column(heading, name, lambda line: getattr(line[1], name), gib_text)

    columns: list[Column[tuple[RunRecord, Footprint]]] = [
        Column("dataset", None, lambda line: line[0].dataset.name),
        Column("strategy", None, lambda line: line[0].strategy),
        Column("ranks", None, lambda line: _ranks(line[0])),
        gib("graph", "graph"),
        gib("sum of PSS", "pss"),
        gib("largest peak RSS", "largest_peak_rss"),
        gib("own per rank", "own_per_rank"),
        *settings_column(
            lines,
            lambda line: settings_of(line[0]) | {"graph": graph_mark(line[0].dataset.fingerprint)},
            lambda line: line[0].dataset.name,
            precision=True,
        ),
    ]
    return Table.of(lines, columns, (*notes, *left_out(records)))


def footprint(run: RunRecord) -> Footprint:
    """Return what a run held; a sum is known only when every rank reported its part."""
    graph = graph_bytes(run.dataset, run.config.get("table_dtype", "stored"))
    peaks = [rank.peak_rss_bytes for rank in run.memory if rank.peak_rss_bytes is not None]
    parts = [rank.pss_bytes for rank in run.memory if rank.pss_bytes is not None]
    pss = sum(parts) if len(parts) == run.world_size else None
    own = None
    if pss is not None and graph is not None:
        own = (pss - graph * len(run.hosts)) / run.world_size
    return Footprint(graph, pss, max(peaks, default=None), own)


def graph_bytes(dataset: DatasetInfo, table_dtype: str = "stored") -> int | None:
    """Return the size of the arrays that training reads, from their counts; None when unknown."""
    nodes, edges, features = dataset.num_nodes, dataset.num_edges, dataset.num_features
    if nodes is None or edges is None or features is None:
        return None
    wide = 8 if nodes >= 2**31 else 4
    label_and_split = 4 + 1
    feature_bytes = dataset.feature_bytes if table_dtype == "stored" else None
    if feature_bytes is None:
        feature_bytes = _feature_bytes(dataset, table_dtype) * features * nodes
    return 8 * (nodes + 1) + wide * edges + feature_bytes + label_and_split * nodes


def _feature_bytes(dataset: DatasetInfo, table_dtype: str) -> int:
    two = table_dtype != "stored" or _TWO_BYTE_FEATURES.search(dataset.name)
    return 2 if two else 4


def _feature_note(runs: Sequence[RunRecord]) -> str:
    sizes = sorted(
        {_feature_bytes(run.dataset, run.config.get("table_dtype", "stored")) for run in runs}
    )
    counted = " or ".join(str(size) for size in sizes)
    named = ", by the data set's name and --table-dtype," if 2 in sizes else ""
    return (
        f"an older record does not tell the size of the features: counted{named} with {counted} "
        "bytes per number"
    )


def _place(run: RunRecord) -> tuple[str, int, int, str]:
    return run.dataset.name, order_of(run.strategy), run.world_size, run.started_at


def _ranks(run: RunRecord) -> str:
    hosts = f" ({'+'.join(map(str, run.ranks_per_host))})" if len(run.hosts) > 1 else ""
    return f"{run.world_size}{hosts}"


_USE_MEANING = (
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


Used = tuple[Row, list[Use]]


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
    columns: list[Column[Used]] = [
        *row_columns(lambda line: line[0]),
        Column("runs", "runs", lambda line: len(line[1])),
        _two("cores used", "cores", " of ", "cores_available"),
        _two("peak memory, GiB", "peak_memory_bytes", " of ", "memory_limit_bytes", GIB),
        _two(
            "network out / in, MB/epoch",
            *("sent_bytes_per_epoch", " / ", "received_bytes_per_epoch", MB),
        ),
        Column(
            "loopback, MB/epoch", None, lambda line: _use_text(line, "loopback_bytes_per_epoch", MB)
        ),
        _two("files read / written, MB", "file_read_bytes", " / ", "file_written_bytes", MB),
        Column("throttled, s", None, lambda line: _use_text(line, "throttled_seconds")),
        *map(_in_file, Use.__dataclass_fields__),
        *distinguishing,
    ]
    notes = [
        *_USE_MEANING,
        *legend(row for row, _ in lines),
        *(machines if len(machines) > 1 else []),
    ]
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


def _over_runs(line: Used, name: str) -> Spread | None:
    return Spread.of(getattr(use, name) for use in line[1])


def _use_text(line: Used, name: str, unit: float = 1) -> str:
    spread = _over_runs(line, name)
    if spread is None:
        return NOTHING
    whole = name == "cores_available" and spread.middle.is_integer()
    return f"{spread.middle:.0f}" if whole else three_digits(spread.middle / unit)


def _two(heading: str, first: str, join: str, second: str, unit: float = 1) -> Column[Used]:
    """Return a column of two measures."""

    def text(line: Used) -> str:
        parts = _use_text(line, first, unit), _use_text(line, second, unit)
        return NOTHING if parts == (NOTHING, NOTHING) else join.join(parts)

    return Column(heading, None, text)


def _in_file(name: str) -> Column[Used]:
    return Column(None, name, lambda line: _over_runs(line, name), spread=True)
