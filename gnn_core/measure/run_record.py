"""RunRecord and its parts: the schema of what a run writes.

A number is only as good as what is known of its origin, so the configuration, the machine, the
versions and the commit stand next to the measurements. `records` writes and reads it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from gnn_core.measure.feature_reads import FeatureReads
from gnn_core.measure.metrics import SPLITS, Tally
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.timing import training_seconds
from gnn_core.strategies import STRATEGIES

SCHEMA_VERSION = 1
STATUSES = ("ok", "failed", "interrupted")


class DescribedGraph(Protocol):
    """What a record wants to know of a graph; `gnn_core.data.graph.Graph` has it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def num_nodes(self) -> int: ...  # noqa: D102
    @property
    def num_edges(self) -> int: ...  # noqa: D102
    @property
    def num_features(self) -> int: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    @property
    def feature_bytes(self) -> int: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def split(self, name: str, /) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class DatasetInfo:
    """The graph a run trained on; only `name` is known of one that could not be opened."""

    name: str
    num_nodes: int | None = None
    num_edges: int | None = None
    num_features: int | None = None
    num_classes: int | None = None
    fingerprint: str | None = None  # hex, from the checksums of the prepared files
    # Split name -> number of its targets: nodes, or edges for link prediction.
    splits: dict[str, int] = field(default_factory=dict)
    feature_bytes: int | None = None  # as they are stored; None in older records

    @classmethod
    def of(cls, graph: DescribedGraph, splits: Mapping[str, int] | None = None) -> DatasetInfo:
        """Return the description of an opened graph; its splits are of nodes unless given."""
        return cls(
            name=graph.name,
            num_nodes=int(graph.num_nodes),
            num_edges=int(graph.num_edges),
            num_features=int(graph.num_features),
            num_classes=int(graph.num_classes),
            fingerprint=graph.fingerprint,
            splits=dict(splits or {name: len(graph.split(name)) for name in SPLITS}),
            feature_bytes=int(graph.feature_bytes),
        )


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one rank in bytes at its end; None where the system does not report it."""

    peak_rss_bytes: int | None = None
    pss_bytes: int | None = None  # shared pages divided among the processes that share them


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch over all ranks; `seconds` and `sections` are of the rank that took longest."""

    epoch: int  # from 0
    train_loss: float | None  # mean per target, while training
    train_accuracy: float | None  # fraction, while training
    valid_accuracy: float | None  # fraction; None when the epoch was not evaluated
    lr: float
    seconds: float  # training only: no evaluation, checkpoint, set-up
    sections: dict[str, float]  # what `Stopwatch.lap` returned, without "total"
    warm_up: bool
    num_targets: int  # real ones, over all ranks
    num_sampled_edges: int  # over all ranks
    valid_mrr: float | None = None  # of link prediction, on a part of the split
    valid_loss: float | None = None  # mean per target of what was evaluated
    # Of each rank (Keras: replica), since the epoch began, or since a resume or a change of ranks
    # within it: input nodes read and edges sampled. Empty in older records.
    rank_rows: list[int] = field(default_factory=list)
    rank_edges: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        epoch: int,
        tally: Tally,
        lap: Mapping[str, float],
        *,
        lr: float,
        warm_up: bool,
        num_sampled_edges: int,
        valid_accuracy: float | None = None,
        valid_mrr: float | None = None,
        valid_loss: float | None = None,
        rank_rows: Sequence[int] = (),
        rank_edges: Sequence[int] = (),
    ) -> EpochRecord:
        """Return the record of an epoch from the merged tally and the slowest rank's lap."""
        return cls(
            epoch=epoch,
            train_loss=tally.loss,
            train_accuracy=tally.accuracy,
            valid_accuracy=valid_accuracy,
            valid_mrr=valid_mrr,
            valid_loss=valid_loss,
            lr=lr,
            seconds=training_seconds(lap),
            sections={name: seconds for name, seconds in lap.items() if name != "total"},
            warm_up=warm_up,
            num_targets=tally.count,
            num_sampled_edges=num_sampled_edges,
            rank_rows=list(rank_rows),
            rank_edges=list(rank_edges),
        )


@dataclass(frozen=True, kw_only=True)
class WorldRecord:
    """The ranks of an elastic run, from one step on until the next world or the end."""

    epoch: int  # from 0, of the first step they took together
    step: int  # from 0, within that epoch
    hosts: list[str]  # short names, in order of their first rank
    ranks_per_host: list[int]  # beside `hosts`
    seconds_between: float | None  # from the change until training went on; None for the first


@dataclass(frozen=True, kw_only=True)
class ExchangeRecord:
    """Rows of features that came from other ranks while training, of a run with --partitions.

    Counts of rows and bytes are sums over the ranks, which all took the same number of steps; of an
    elastic or resumed run they are those of its last world.
    """

    parts: int
    method: str  # that cut the graph
    transport: str  # what carried the rows; "none" where each rank held all parts
    steps: int
    input_rows: int  # that the steps read, each row once a step and rank
    remote_rows: int  # of them of parts that the rank does not hold
    needed_rows: int  # remote rows, each once a window of steps
    cached_rows: int  # of them found in the cache
    rows_received: int  # of features, with those that the cache began with
    bytes_sent: int  # rows, ids and counts
    rounds: int  # of three collectives each
    seconds: float  # of the slowest rank in the exchange, beside the training
    # Of the adjacency; older records have none of these.
    topology: str = "whole"  # on every host; "parts": the owners draw neighbours
    sampled_nodes: int = 0  # of parts that the rank does not hold, whose neighbours were drawn
    sampling_bytes: int = 0  # sent: ids of nodes and of neighbours, and counts
    sampling_rounds: int = 0  # of three collectives each
    sampling_seconds: float = 0.0  # as `seconds`

    @classmethod
    def of(cls, ranks: Sequence[Mapping[str, Any]]) -> ExchangeRecord:
        """Return the record of what each rank has counted."""
        sums = [
            *("input_rows", "remote_rows", "needed_rows", "cached_rows"),
            *("rows_received", "bytes_sent", "sampled_nodes", "sampling_bytes"),
        ]
        added = {name: sum(rank[name] for rank in ranks) for name in sums}
        slowest = {
            name: max(rank[name] for rank in ranks) for name in ("seconds", "sampling_seconds")
        }
        return cls(**{**ranks[0], **added, **slowest})

    @property
    def hit_rate(self) -> float | None:
        """Share of the rows that a window needed which the cache had."""
        return self.cached_rows / self.needed_rows if self.needed_rows else None


@dataclass(frozen=True, kw_only=True)
class ParameterServerRecord:
    """What the servers and workers of a parameter server did, in all since the run began."""

    servers: int
    chunks: list[int]  # of the parameters, that each server holds
    staleness: str  # of --staleness
    compress: str  # of --compress
    pushes: int  # slices of steps whose gradients were applied, each once
    bytes_pulled: int  # of weights, by all workers
    bytes_pushed: int  # of gradients
    # How many slices were computed while so many older steps were unfinished; text, since JSON
    # has no other names.
    unfinished_steps: dict[str, int]
    # How many were applied after so many updates by others since their weights were read.
    updates_between: dict[str, int]
    lost_workers: int
    lost_servers: int  # whose standby took over
    repeated_parts: int  # slices handed out again, since their worker was lost


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, as it is written to and read from one JSON line (results/README.md explains it)."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    started_at: str  # UTC, ISO 8601
    strategy: str  # one of gnn_core.strategies.STRATEGIES
    launch_command: str  # what was typed, launcher included
    world_size: int  # of an elastic run: of its last world, as are hosts, memory and resources
    hosts: list[str]  # short names, in order of their first rank
    ranks_per_host: list[int]  # beside `hosts`
    config: dict[str, Any]  # RunConfig.to_dict()
    config_digest: str  # RunConfig.digest(): the settings that change the loss curve
    dataset: DatasetInfo
    machine: dict[str, Any]  # gnn_core.measure.machine.hardware(), of rank 0's host
    versions: dict[str, str]
    commit: str | None = None
    dirty: bool | None = None  # None outside git
    controller: str | None = None  # one of the strategy's; None where none is known
    finished_at: str | None = None
    status: str = "failed"  # until it is known better: a record begun and never finished
    error: str | None = "the run did not reach its end"
    epochs: list[EpochRecord] = field(default_factory=list)
    step_losses: list[float | None] | None = None  # one mean loss per step, all ranks together
    memory: list[ProcessMemory] = field(default_factory=list)  # one per rank
    # One per rank, None for one that could not sample; empty when none was to.
    resources: list[ProcessResources | None] = field(default_factory=list)
    final: dict[str, float | int | None] = field(default_factory=dict)  # split_fields, best_epoch
    training_seconds: float | None = None
    evaluation_seconds: float | None = None
    resumed_from: dict[str, Any] | None = None  # {"run_id": ..., "epoch": ...}
    worlds: list[WorldRecord] = field(default_factory=list)  # of an elastic run only
    assigned_by: str | None = None  # who computes which target: "slices" | "locality" | "owner"
    num_parameters: int | None = None
    allreduce_bytes_per_step: int | None = None
    # Of --precision bf16: "multiplied_as" is "bf16" or "fp32"; in torch also what the slowest rank
    # measured, "bf16_gflops" and "fp32_gflops". None on a GPU with torch.
    bf16_products: dict[str, Any] | None = None
    feature_reads: list[FeatureReads] = field(default_factory=list)  # one per rank, if on disk
    exchange: ExchangeRecord | None = None  # with --partitions; absent from older records
    parameter_server: ParameterServerRecord | None = None  # absent from older records
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for a strategy, status, controller, time or world that cannot be."""
        for name, value, allowed in (
            ("strategy", self.strategy, tuple(STRATEGIES)),
            ("status", self.status, STATUSES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
        controllers = (*STRATEGIES[self.strategy].controllers, None)
        if self.controller not in controllers:
            raise ValueError(
                f"controller: expected one of {controllers} of {self.strategy}, got "
                f"{self.controller!r}"
            )
        if self.world_size < 1 or sum(self.ranks_per_host) != self.world_size:
            raise ValueError(
                f"expected ranks_per_host to add up to world_size {self.world_size}, "
                f"got {self.ranks_per_host}"
            )
        for name, time in (("started_at", self.started_at), ("finished_at", self.finished_at)):
            if time is not None and not _is_time(time):
                raise ValueError(f"{name}: expected UTC, ISO 8601, got {time!r}")
        if len(self.hosts) != len(self.ranks_per_host):
            raise ValueError(f"{len(self.hosts)} hosts, {len(self.ranks_per_host)} ranks_per_host")

    @property
    def same_curve(self) -> bool:
        """Whether its loss curve is that of one process with the same settings."""
        exact = {"staleness": "0", "compress": "none"}
        is_exact = all(self.config.get(name, value) == value for name, value in exact.items())
        return STRATEGIES[self.strategy].same_curve and is_exact

    @property
    def ranks_changed(self) -> bool:
        """Whether ranks went or joined on the way: its seconds belong to no number of ranks."""
        return len(self.worlds) > 1

    def finished(self, status: str, error: str | None = None, **changes: Any) -> RunRecord:
        """Return the record of the ended run, with `changes` to any other fields.

        A failed or interrupted run keeps what it measured until then; `error` is cut to one line.
        """
        if error is not None:
            error = " ".join(error.split())[:500]
        if status != "ok" and not error:
            error = {"interrupted": "stopped from outside"}.get(status, "no reason was given")
        return dataclasses.replace(
            self, status=status, error=error, finished_at=utc_now(), **changes
        )


def measured_epochs(run: RunRecord) -> list[EpochRecord]:
    """Return the epochs of a run that are not warm-up; of an elastic one, of its last world."""
    first = run.worlds[-1].epoch if run.worlds else 0
    return [epoch for epoch in run.epochs if not epoch.warm_up and epoch.epoch >= first]


def epoch_seconds(run: RunRecord) -> float | None:
    """Return the median seconds of the epochs of a run that are not warm-up; None without any."""
    seconds = [epoch.seconds for epoch in measured_epochs(run)]
    return statistics.median(seconds) if seconds else None


def count_ranks(rank_hosts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return `hosts` and `ranks_per_host` from the name of each rank's host."""
    names = [name.split(".")[0] for name in rank_hosts]
    hosts = list(dict.fromkeys(names))
    return hosts, [names.count(host) for host in hosts]


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def utc_now() -> str:
    """Return the present time, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
