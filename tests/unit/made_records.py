"""Run records made to measure: three epochs, a slow warm-up one and two of a known length."""

from __future__ import annotations

import dataclasses
from typing import Any

from gnn_core.config import RunConfig
from gnn_core.measure.metrics import Tally, split_fields
from gnn_core.measure.resources.record import ProcessResources, ResourceSeries
from gnn_core.measure.run_record import DatasetInfo, EpochRecord, RunRecord

MACHINE = {"cpu_model": "Test CPU", "cores_available": 2, "memory_bytes": 8 * 2**30, "gpus": []}
CLUSTER = {**MACHINE, "cores_available": 64}
CONFIG = RunConfig(dataset="cora").to_dict()
_numbers = iter(range(10_000))


def run(
    strategy: str = "single",
    ranks: int = 1,
    seconds: float = 8.0,
    accuracy: float | None = 0.8,
    *,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A run of three epochs: a slow warm-up one, then `seconds` and `seconds`."""
    number = next(_numbers)
    right = None if accuracy is None else round(accuracy * 1000)
    made = RunRecord(
        run_id=f"{number:08x}" * 4,
        started_at=f"2026-01-02T03:04:{number // 1000:02}.{number % 1000:03}000+00:00",
        finished_at="2026-01-03T00:00:00.000000+00:00",
        strategy=strategy,
        launch_command="typed",
        world_size=ranks,
        hosts=["h"],
        ranks_per_host=[ranks],
        config={**CONFIG, **(config or {})},
        config_digest="d",
        dataset=DatasetInfo("cora", fingerprint="ab", splits={"train": 140, "test": 1000}),
        machine=MACHINE,
        versions={"python": "3.11"},
        commit="c0ffee" * 6,
        dirty=False,
        controller="mpi" if strategy == "horovod" else None,
        status="ok",
        error=None,
        epochs=[epoch(0, 100.0), epoch(1, seconds), epoch(2, seconds)],
        final={} if right is None else dict(split_fields("test", Tally(1.0, right, 1000))),
    )
    return dataclasses.replace(made, **changes)


def epoch(number: int, seconds: float, communicate: float = 0.25) -> EpochRecord:
    parts = {"compute": 0.5, "wait": 0.125, "communicate": communicate}
    return EpochRecord(
        epoch=number,
        train_loss=2.0 / (number + 1),
        train_accuracy=0.5,
        valid_accuracy=None,
        lr=0.01,
        seconds=seconds,
        sections={name: share * seconds for name, share in parts.items()},
        warm_up=number == 0,
        num_targets=140,
        num_sampled_edges=1000,
    )


def used(cores: tuple[float | None, ...] = (0.5, 1.0), **changes: Any) -> ProcessResources:
    """A rank that used so many cores in seconds of a run, and little of anything else."""
    count = len(cores)
    known = [value for value in cores if value is not None]
    made = ProcessResources(
        num_samples=count + 1,
        seconds=float(count),
        sampler_cpu_seconds=0.001,
        cpu_cores_mean=sum(known) / len(known) if known else None,
        cpu_cores_peak=max(known, default=None),
        rss_bytes_peak=2**30,
        file_read_bytes=3_000_000,
        file_written_bytes=1_000_000,
        cgroup_mark="c0",
        cgroup_memory_bytes_peak=2 * 2**30,
        memory_limit_bytes=8 * 2**30,
        throttled_seconds=0.5,
        network_mark="a0",
        network_received_bytes=6_000_000,
        network_sent_bytes=9_000_000,
        loopback_bytes=30_000_000,
        series=ResourceSeries(
            seconds=[float(second + 1) for second in range(count)],
            cpu_cores=list(cores),
            rss_bytes=[2**30] * count,
            file_bytes_per_second=[1_000_000] * count,
            network_bytes_per_second=[2_000_000] * count,
            loopback_bytes_per_second=[5_000_000] * count,
        ),
    )
    return dataclasses.replace(made, **changes)
