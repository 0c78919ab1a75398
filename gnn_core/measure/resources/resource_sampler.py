"""A thread that samples the CPU, memory and traffic of its process, and sums them up at the end.

It opens about six small files, divides a few numbers and sleeps. It computes nothing for the
training and takes no lock of it; what it costs is measured in every run: the CPU time of this
thread alone (`time.thread_time`) stands in the record as `sampler_cpu_seconds`, and two runs,
with `--sample-seconds 0` and without, show the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

from gnn_core.measure.resources.counters import Counters
from gnn_core.measure.resources.history import ResourceHistory
from gnn_core.measure.resources.record import ProcessResources

_PATIENCE_SECONDS = 5.0  # for a file system that hangs: a run does not wait for its samples


class ResourceSampler:
    """Samples from `start` to `stop`, once; nothing in it raises.

    Args:
        sample_seconds: from one sample to the next; 0 takes none.
        counters: makes what is read.
    """

    def __init__(self, sample_seconds: float, counters: Callable[[], Counters] = Counters):
        self._sample_seconds = sample_seconds
        self._make_counters = counters
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: ProcessResources | None = None  # set by the thread as its last act

    def start(self) -> None:
        """Take the first sample, and go on; where it does so already, do nothing."""
        if self._sample_seconds <= 0 or self._thread is not None:
            return
        thread = threading.Thread(target=self._watch, name="resource sampler", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads are allowed
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Take the last sample."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)

    def summary(self) -> ProcessResources | None:
        """Return what was seen; None where nothing was, or before the end."""
        return self._seen

    def _watch(self) -> None:
        begun = time.thread_time()
        # A kernel may write what none has written before: then there are no samples, but a run.
        with contextlib.suppress(Exception):
            counters, history = self._make_counters(), ResourceHistory(self._sample_seconds)
            more = True
            while more:
                history.add(counters.read(time.monotonic()))
                more = not self._ended.wait(self._sample_seconds)
            history.add(counters.read(time.monotonic()))
            seen = history.summary()
            assert seen is not None
            self._seen = dataclasses.replace(
                seen,
                sampler_cpu_seconds=round(time.thread_time() - begun, 6),
                cgroup_mark=counters.cgroup_mark,
                cpu_source=counters.cpu_source,
                memory_source=counters.memory_source,
                memory_limit_bytes=counters.memory_limit_bytes,
                network_mark=counters.network_mark,
            )
