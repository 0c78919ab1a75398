"""Samples of what a process used: means, peaks and totals stay exact while points are merged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gnn_core.measure.resources.counters import Reading
from gnn_core.measure.resources.history import MOST_POINTS, ResourceHistory
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.strict_json import build

MIB = 2**20


def reading(second: float, cores: float = 1.0, **more: int | float | None) -> Reading:
    """A process that has used `cores` all the time, and sends 10 bytes a second."""
    made = Reading(
        at_seconds=100.0 + second,
        cpu_seconds=7.0 + cores * second,
        rss_bytes=MIB,
        file_read_bytes=5,
        file_written_bytes=int(4 * second),
        network_received_bytes=1000,
        network_sent_bytes=int(10 * second),
    )
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def seen(*readings: Reading, every: float = 1.0, most: int = MOST_POINTS) -> ProcessResources:
    history = ResourceHistory(every, most)
    for one in readings:
        history.add(one)
    summary = history.summary()
    assert summary is not None
    return summary


def test_only_what_passed_between_the_samples_counts() -> None:
    """Counters have a past: 7 s of CPU time and 1000 received bytes are not of this run."""
    found = seen(*(reading(second, 0.5) for second in range(5)))
    assert (found.num_samples, found.seconds) == (5, 4.0)
    assert (found.cpu_cores_mean, found.cpu_cores_peak) == (0.5, 0.5)
    assert (found.file_read_bytes, found.file_written_bytes) == (0, 16)
    assert (found.network_received_bytes, found.network_sent_bytes) == (0, 40)
    assert found.series.seconds == [1, 2, 3, 4]
    assert found.series.network_bytes_per_second == [10, 10, 10, 10]
    assert found.series.file_bytes_per_second == [4, 4, 4, 4]


def test_the_peak_is_between_two_samples_and_the_mean_over_all() -> None:
    busy = [reading(0), reading(1, cpu_seconds=7.0), reading(2, cpu_seconds=9.5)]
    found = seen(*busy, reading(4, cpu_seconds=9.5))
    assert (found.cpu_cores_peak, found.cpu_cores_mean) == (2.5, 0.625)
    high = seen(reading(0), reading(1, rss_bytes=9 * MIB), reading(2, rss_bytes=2 * MIB))
    assert (high.rss_bytes_peak, high.rss_bytes_mean) == (9 * MIB, 4 * MIB)


@pytest.mark.parametrize("count", [2, 3, 60, 61, 62, 119, 120, 121, 122, 240, 1000, 36_000])
def test_a_run_of_any_length_has_few_points_of_equal_length(count: int) -> None:
    peak = count // 2
    found = seen(*(reading(s, rss_bytes=MIB + (s == peak)) for s in range(count)))
    points = found.series.seconds
    assert min(count - 1, MOST_POINTS // 2) <= len(points) <= MOST_POINTS
    assert points[-1] == count - 1 == found.seconds
    lengths = [b - a for a, b in zip([0.0, *points], points, strict=False)]
    assert len(set(lengths[:-1])) <= 1
    assert 0 < lengths[-1] <= lengths[0]
    assert set(found.series.cpu_cores) == {1.0}
    assert found.series.rss_bytes.count(MIB + 1) == 1, "a short peak is not merged away"
    assert {len(values) for values in dataclasses.asdict(found.series).values()} == {len(points)}


def test_memory_does_not_grow_with_the_length_of_a_run() -> None:
    history = ResourceHistory(1.0)
    for second in range(10_000):
        history.add(reading(second))
    assert len(history._kept) <= 2 * MOST_POINTS + 1
    assert len(history._waiting) < 256


def test_a_short_last_interval_makes_no_peak_and_no_point() -> None:
    """Half a tick after the last sample, a tick of the clock would look like many cores."""
    found = seen(reading(0), reading(1), reading(2), reading(2.001, cpu_seconds=9.01, rss_bytes=3))
    assert (found.num_samples, found.cpu_cores_peak) == (4, 1.0)
    assert found.series.seconds == [1, 2.001]
    assert found.series.rss_bytes == [MIB, MIB]
    assert found.rss_bytes_mean == (3 * MIB + 3) // 4


def test_a_run_shorter_than_the_interval_is_measured_all_the_same() -> None:
    found = seen(reading(0), reading(0.01))
    assert (found.cpu_cores_mean, found.cpu_cores_peak) == (1.0, 1.0)
    assert found.series.seconds == [0.01]


def test_what_is_not_reported_or_began_anew_is_none_and_never_0() -> None:
    found = seen(reading(0), reading(1, cpu_seconds=None), reading(2, network_sent_bytes=-5))
    assert found.series.cpu_cores == [None, None]
    assert found.cpu_cores_mean == 1.0, "its first and last sample are known"
    assert found.network_sent_bytes is None
    assert found.series.network_bytes_per_second == [10, None]
    assert (found.throttled_seconds, found.loopback_bytes) == (None, None)
    assert found.cgroup_memory_bytes_peak is None


def test_one_sample_or_none() -> None:
    assert ResourceHistory(1.0).summary() is None
    found = seen(reading(0))
    assert (found.num_samples, found.cpu_cores_mean, found.series.seconds) == (1, None, [])


def test_it_passes_through_json() -> None:
    found = seen(reading(0), reading(1), reading(2))
    assert build(ProcessResources, json.loads(json.dumps(dataclasses.asdict(found)))) == found
