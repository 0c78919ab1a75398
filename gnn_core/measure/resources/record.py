"""What a rank used while it trained: the part of a record that `resource_sampler` fills.

A process has its own CPU time, memory and files. Its cgroup (a pod, a container, a job of a
scheduler; else the whole host) and its network it may share with other ranks and other programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ResourceSeries:
    """Points of a drawing, one per interval, at most 60; None if not reported."""

    seconds: list[float]  # end of each interval, from the first sample on; the first begins at 0
    cpu_cores: list[float | None]  # of the process, mean over the interval
    rss_bytes: list[int | None]  # of the process, largest sample in the interval
    file_bytes_per_second: list[int | None]  # of the process, read and written
    network_bytes_per_second: list[int | None]  # received and sent, without loopback
    loopback_bytes_per_second: list[int | None]  # sent


@dataclass(frozen=True, kw_only=True)
class ProcessResources:
    """One rank from its first epoch to the end of its last evaluation.

    Cores are CPU seconds per second, of all threads. None where the system does not report it.
    """

    num_samples: int
    seconds: float  # from the first sample to the last
    sampler_cpu_seconds: float | None  # what the samples themselves cost, counted in `cpu_cores_*`
    # Of this process.
    cpu_cores_mean: float | None = None
    cpu_cores_peak: float | None = None  # largest mean between two samples
    rss_bytes_mean: int | None = None  # over the samples
    rss_bytes_peak: int | None = (
        None  # largest sample; `ProcessMemory.peak_rss_bytes` misses nothing
    )
    file_read_bytes: int | None = None  # from storage: what was in the page cache is not counted
    file_written_bytes: int | None = None  # to storage, at the time of the write call
    num_major_faults: int | None = None  # pages that had to come from storage
    # Of its cgroup, else of its host. Ranks of one `cgroup_mark` count the same.
    cgroup_mark: str | None = None  # 8 hex digits
    cpu_source: str | None = None  # cgroup v2, cgroup v1 or host
    cgroup_cpu_cores_mean: float | None = None
    cgroup_cpu_cores_peak: float | None = None
    num_throttled: int | None = None  # periods in which the CPU quota was used up
    throttled_seconds: float | None = None  # summed over cores, so more than the clock's at times
    memory_source: str | None = None  # as cpu_source
    cgroup_memory_bytes_mean: int | None = None  # in use, without the cache that is easily given up
    cgroup_memory_bytes_peak: int | None = None
    memory_limit_bytes: int | None = None  # of the cgroup and those above it, else of the host
    # Of its network namespace. Ranks of one `network_mark` count the same.
    network_mark: str | None = None  # 8 hex digits
    network_received_bytes: int | None = None  # without loopback
    network_sent_bytes: int | None = None
    loopback_bytes: int | None = None  # sent: ranks of one host talk over it
    series: ResourceSeries = field(
        default_factory=lambda: ResourceSeries(
            seconds=[],
            cpu_cores=[],
            rss_bytes=[],
            file_bytes_per_second=[],
            network_bytes_per_second=[],
            loopback_bytes_per_second=[],
        )
    )
