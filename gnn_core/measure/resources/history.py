"""Readings of counters -> means, peaks, totals and a coarse series, in memory that stays small."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnn_core.measure.resources.counters import Reading
from gnn_core.measure.resources.record import ProcessResources, ResourceSeries

MOST_POINTS = 60


@dataclass(frozen=True)
class _Interval:
    """A reading at the end of an interval, and the most memory that was seen in it."""

    reading: Reading
    rss_bytes: int | None


class ResourceHistory:
    """Takes readings one after the other; however many, it keeps two for each point at most.

    Counters only grow, so that what happened between two readings is their difference and those
    between can be dropped: when there are too many, every second one is.

    Args:
        sample_seconds: from one reading to the next; the last one may come earlier.
        most_points: of the series.
    """

    def __init__(self, sample_seconds: float, most_points: int = MOST_POINTS):
        self._shortest_seconds = sample_seconds / 2
        self._most_points = most_points
        self._kept: list[_Interval] = []
        self._stride = 1  # readings from one kept to the next
        self._waiting: list[Reading] = []  # since the last one kept; fewer than the stride
        self._num_samples = 0
        self._peaks: dict[str, float] = {}
        self._sums: dict[str, tuple[int, int]] = {}  # sum and count

    def add(self, reading: Reading) -> None:
        """Take a reading; it is later than all before."""
        self._num_samples += 1
        if self._kept:
            before = self._waiting[-1] if self._waiting else self._kept[-1].reading
            self._note_rates(before, reading)
        for name in ("rss_bytes", "cgroup_memory_bytes"):
            if (value := getattr(reading, name)) is not None:
                total, count = self._sums.get(name, (0, 0))
                self._sums[name] = total + value, count + 1
                self._peaks[name] = max(value, self._peaks.get(name, value))
        self._waiting.append(reading)
        if not self._kept or len(self._waiting) == self._stride:
            self._kept.append(_together(self._waiting))
            self._waiting = []
        if len(self._kept) > 2 * self._most_points:  # the first one begins the first interval
            self._kept = _in_pairs(self._kept)
            self._stride *= 2

    def summary(self) -> ProcessResources | None:
        """Return what the readings come to, but for what no reading has; None without any."""
        if not self._kept:
            return None
        kept = self._whole()
        first, last = kept[0].reading, kept[-1].reading
        while len(kept) - 1 > self._most_points:
            kept = _in_pairs(kept)

        def grown(name: str) -> int | None:
            growth = _growth(name, first, last)
            return None if growth is None else int(growth)

        throttled = _growth("throttled_seconds", first, last)
        return ProcessResources(
            num_samples=self._num_samples,
            seconds=round(last.at_seconds - first.at_seconds, 3),
            sampler_cpu_seconds=None,
            cpu_cores_mean=_per_second("cpu_seconds", first, last),
            cpu_cores_peak=self._peaks.get("cpu_seconds"),
            rss_bytes_mean=self._mean("rss_bytes"),
            rss_bytes_peak=self._peak("rss_bytes"),
            file_read_bytes=grown("file_read_bytes"),
            file_written_bytes=grown("file_written_bytes"),
            num_major_faults=grown("num_major_faults"),
            cgroup_cpu_cores_mean=_per_second("cgroup_cpu_seconds", first, last),
            cgroup_cpu_cores_peak=self._peaks.get("cgroup_cpu_seconds"),
            num_throttled=grown("num_throttled"),
            throttled_seconds=None if throttled is None else round(throttled, 6),
            cgroup_memory_bytes_mean=self._mean("cgroup_memory_bytes"),
            cgroup_memory_bytes_peak=self._peak("cgroup_memory_bytes"),
            network_received_bytes=grown("network_received_bytes"),
            network_sent_bytes=grown("network_sent_bytes"),
            loopback_bytes=grown("loopback_bytes"),
            series=_series(kept),
        )

    def _note_rates(self, before: Reading, reading: Reading) -> None:
        """Note the most cores in use; over a short time, ticks of the clock would say little."""
        seconds = reading.at_seconds - before.at_seconds
        if seconds < self._shortest_seconds and self._num_samples > 2:
            return
        for name in ("cpu_seconds", "cgroup_cpu_seconds"):
            if (cores := _per_second(name, before, reading)) is not None:
                self._peaks[name] = max(cores, self._peaks.get(name, cores))

    def _whole(self) -> list[_Interval]:
        """Return the readings kept, the latest at the end; a short last interval is no own one."""
        if not self._waiting:
            whole, rest = self._kept[:-1], [self._kept[-1]]
        else:
            whole, rest = list(self._kept), [_together(self._waiting)]
        last = rest[0]
        if len(whole) > 1 and (
            last.reading.at_seconds - whole[-1].reading.at_seconds < self._shortest_seconds
        ):
            rest = [_Interval(last.reading, _most([whole.pop().rss_bytes, last.rss_bytes]))]
        return whole + rest

    def _mean(self, name: str) -> int | None:
        total, count = self._sums.get(name, (0, 0))
        return total // count if count else None

    def _peak(self, name: str) -> int | None:
        return int(self._peaks[name]) if name in self._peaks else None


def _together(readings: Sequence[Reading]) -> _Interval:
    return _Interval(readings[-1], _most(reading.rss_bytes for reading in readings))


def _in_pairs(kept: Sequence[_Interval]) -> list[_Interval]:
    """Return the intervals joined two by two; an odd one at the end stays as it is."""
    merged = [kept[0]]
    for place in range(1, len(kept), 2):
        pair = kept[place : place + 2]
        merged.append(_Interval(pair[-1].reading, _most(one.rss_bytes for one in pair)))
    return merged


def _series(kept: Sequence[_Interval]) -> ResourceSeries:
    steps = [(one.reading, two.reading) for one, two in zip(kept, kept[1:], strict=False)]

    def rates(name: str) -> list[float | None]:
        return [_per_second(name, before, after) for before, after in steps]

    def whole(name: str) -> list[int | None]:
        return [None if rate is None else round(rate) for rate in rates(name)]

    return ResourceSeries(
        seconds=[round(after.at_seconds - kept[0].reading.at_seconds, 3) for _, after in steps],
        cpu_cores=rates("cpu_seconds"),
        rss_bytes=[one.rss_bytes for one in kept[1:]],
        file_bytes_per_second=_added(whole("file_read_bytes"), whole("file_written_bytes")),
        network_bytes_per_second=_added(
            whole("network_received_bytes"), whole("network_sent_bytes")
        ),
        loopback_bytes_per_second=whole("loopback_bytes"),
    )


def _added(some: Sequence[int | None], others: Sequence[int | None]) -> list[int | None]:
    return [
        None if one is None or other is None else one + other
        for one, other in zip(some, others, strict=True)
    ]


def _per_second(name: str, before: Reading, after: Reading) -> float | None:
    growth, seconds = _growth(name, before, after), after.at_seconds - before.at_seconds
    return None if growth is None or seconds <= 0 else round(growth / seconds, 3)


def _growth(name: str, before: Reading, after: Reading) -> float | None:
    """Return how much a counter grew; None where it is unknown, or began anew in between."""
    first: float | None = getattr(before, name)
    last: float | None = getattr(after, name)
    return None if first is None or last is None or last < first else last - first


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
