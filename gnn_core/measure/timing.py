"""Where the seconds of a run went, and the only place where a rate is computed.

One Stopwatch per rank, one lap per epoch. Nested sections are exclusive: seconds spent in an inner
section are not counted in the outer one, so the sections of a lap never add up to more than the
lap. Seconds of another thread run beside the lap, not inside it, and are kept apart.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt

SECTIONS = (
    "sample",  # neighbours drawn
    "fetch",  # feature rows read, batch turned into tensors
    "compute",  # forward, backward, optimiser step
    "communicate",  # gradients and tallies between ranks
    "wait",  # idle until the loader had the next batch
    "evaluate",
    "checkpoint",
    "setup",
)
NOT_TRAINING = ("evaluate", "checkpoint", "setup")
OVERLAPPED = "overlapped_"
"""Prefix of seconds that another thread spent while the lap went on."""

_LAP_KEYS = (*SECTIONS, "other", "total", *(OVERLAPPED + name for name in SECTIONS))


def per_second(count: float, seconds: float) -> float | None:
    """Return count / seconds; None for 0 s. `seconds` is elapsed time, never a reading of a clock.

    Raises ValueError for negative or non-finite seconds.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"expecting elapsed seconds of 0 or more, got {seconds}")
    return count / seconds if seconds else None


class Traced(Protocol):
    """Called with each piece of time that a stopwatch has counted."""

    def __call__(self, name: str, began: float, ended: float, beside: bool = False) -> None:
        """Seconds of the stopwatch's clock; `beside` the lap, on another thread."""


class Stopwatch:
    """Splits elapsed time over SECTIONS; `clock` returns seconds and only ever grows.

    `traced`, where it is set, is told of each piece of time.

    The first `warm_up_laps` laps (compilation, cold page cache) are recorded like all others and
    marked, so that a summary can leave them out.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, *, warm_up_laps: int = 1
    ) -> None:
        """Start the first lap now."""
        self._clock = clock
        self._warm_up_laps = warm_up_laps
        self._laps = 0
        self._open: list[str] = []
        self._overlapped: dict[str, float] = {}
        self._overlapped_lock = threading.Lock()
        self.traced: Traced | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the present lap and begin it anew; it is not counted as a lap."""
        self._seconds: dict[str, float] = {}
        with self._overlapped_lock:
            self._overlapped = {}
        self._lap_began = self._mark = self._clock()

    @property
    def warm_up(self) -> bool:
        """Whether the lap now running is a warm-up lap; read it before `lap()`."""
        return self._laps < self._warm_up_laps

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` as `name`, and not as the section around it.

        Belongs to the thread of the training loop. Raises ValueError for an unknown name.
        """
        _require_section(name)
        self._charge()
        began = self._mark
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            if self.traced is not None:
                self.traced(name, began, self._mark)

    def add(
        self, name: str, seconds: float, out_of: str | None = None, ended: float | None = None
    ) -> None:
        """Count `seconds` that were measured elsewhere.

        With `out_of`, they passed inside that section of this lap and move from it to `name`.
        Without, they passed on another thread beside the lap (the sampler's): they are reported as
        `overlapped_<name>` and take no part in the sum. Any thread may call the second form.
        `ended`: when they had passed, by this clock, if that is known and is to be traced.
        Raises ValueError for an unknown name or negative or non-finite seconds.
        """
        _require_section(name)
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"expecting elapsed seconds of 0 or more, got {seconds}")
        if out_of is None:
            with self._overlapped_lock:
                self._overlapped[name] = self._overlapped.get(name, 0.0) + seconds
            if self.traced is not None and ended is not None:
                self.traced(name, ended - seconds, ended, beside=True)
            return
        _require_section(out_of)
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._seconds[out_of] = self._seconds.get(out_of, 0.0) - seconds

    def spent(self, name: str) -> float:
        """Seconds of a section in the lap so far; of the training loop's thread, outside of it."""
        return self._seconds.get(name, 0.0)

    def lap(self) -> dict[str, float]:
        """End the lap; return section -> seconds, with "other" and "total", and start the next.

        "total" is the wall-clock time of the lap, "other" what no section claimed; all entries but
        "total" and the `overlapped_` ones add up to "total". Raises RuntimeError inside a section.
        """
        if self._open:
            raise RuntimeError(f"a lap cannot end inside section {self._open[-1]!r}")
        now = self._clock()
        with self._overlapped_lock:
            overlapped, self._overlapped = self._overlapped, {}
        total = now - self._lap_began
        # Two clocks never agree to the last digit: moving seconds `out_of` a section may leave
        # a hair less than nothing there.
        seconds = {name: max(0.0, value) for name, value in self._seconds.items()}
        result = {name: seconds[name] for name in SECTIONS if name in seconds}
        result["other"] = max(0.0, total - sum(seconds.values()))
        result["total"] = total
        result.update((OVERLAPPED + name, value) for name, value in overlapped.items())
        self._seconds = {}
        self._lap_began = self._mark = now
        self._laps += 1
        return result

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._mark
        self._mark = now


def training_seconds(lap: Mapping[str, float]) -> float:
    """Return the seconds of a lap without evaluation, checkpoints and set-up."""
    return lap["total"] - sum(lap.get(name, 0.0) for name in NOT_TRAINING)


def lap_to_vector(lap: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return a lap as float64 [18] in a fixed order, so that one allgather collects all ranks."""
    return np.array([lap.get(key, 0.0) for key in _LAP_KEYS], dtype=np.float64)


def slowest_lap(vectors: npt.ArrayLike) -> dict[str, float]:
    """Return the lap of the rank that trained longest, from float64 [world_size, 18].

    The sections stay together with the rank they were measured on: the largest of each section
    over all ranks would describe a rank that does not exist. Raises ValueError for another shape.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != len(_LAP_KEYS):
        raise ValueError(
            f"expecting laps of shape [world_size, {len(_LAP_KEYS)}], got {rows.shape}"
        )
    laps = [dict(zip(_LAP_KEYS, (float(value) for value in row), strict=True)) for row in rows]
    slowest = max(laps, key=training_seconds)
    kept = {"other", "total"}
    return {key: value for key, value in slowest.items() if value or key in kept}


def _require_section(name: str) -> None:
    if name not in SECTIONS:
        raise ValueError(f"expecting a section of {', '.join(SECTIONS)}, got {name!r}")
