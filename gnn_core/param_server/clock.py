"""The clock of a parameter server: who may compute which part of which step, and when.

A step of the run, its global batch cut into slices, is one tick. A part is handed out only while no
step older than `staleness` ticks is unfinished (stale synchronous parallel, Ho et al., NIPS 2013):
weights that are read for step t contain the updates of all steps up to t - staleness - 1. With
staleness 0 this is synchronous training, without a bound it is asynchronous.

Nothing here waits or knows of a network: `coordinator` calls it under its lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple


class Part(NamedTuple):
    """A slice of the global batch of one step."""

    step: int  # within the epoch
    slice: int


class Clock:
    """Hands out the parts of one epoch after the other, each to be done exactly once.

    Args:
        slices: into which the global batch of each step is cut.
        staleness: steps that a part may be ahead of the oldest unfinished one; inf: any number.
    """

    def __init__(self, slices: int, staleness: float):
        self.slices, self.staleness = slices, staleness
        self.missing: Counter[int] = Counter()  # unfinished older steps when a part was begun
        self.begin(0, 0)

    def begin(self, first_step: int, num_steps: int) -> None:
        """Begin an epoch, or go on with it at `first_step`."""
        self.finished = first_step  # steps before it are done
        self.released = first_step if self.staleness == 0 else num_steps
        self.attempts: Counter[Part] = Counter()  # how often each part was handed out
        self._end = num_steps
        self._opened = first_step  # steps before it have their parts in one of these:
        self._free: set[Part] = set()
        self._held: dict[int, Part] = {}  # worker -> what it computes
        self._expected: dict[int, Part] = {}  # worker -> what it may draw ahead
        self._done: dict[int, set[int]] = {}  # step -> slices

    @property
    def over(self) -> bool:
        """Whether all parts of the epoch, or of the steps begun before `drain`, are done."""
        return self.finished >= self._end

    def take(self, worker: int) -> Part | None:
        """What this worker is to compute now; None: nothing may be begun yet.

        One that holds a part already is given the same again: it has not heard the answer.
        """
        if worker in self._held:
            return self._held[worker]
        part = self._choose(worker)
        if part is not None:
            self._free.discard(part)
            self._held[worker] = part
            self.attempts[part] += 1
            self.missing[part.step - self.finished] += 1
            self._expect(worker, part)
        return part

    def expected(self, worker: int) -> Part | None:
        """What it will probably be given next."""
        return self._expected.get(worker)

    def done(self, worker: int, part: Part) -> bool:
        """Count a part as done; False if it is already, by another worker."""
        if self._held.get(worker) == part:
            del self._held[worker]
        slices = self._done.setdefault(part.step, set())
        if part.step < self.finished or part.slice in slices:
            return False
        slices.add(part.slice)
        self._free.discard(part)
        while len(self._done.get(self.finished, ())) == self.slices:
            del self._done[self.finished]
            self.finished += 1
        return True

    def release(self, step: int) -> None:
        """Let the steps up to `step` be begun: with staleness 0 each waits for this."""
        self.released = max(self.released, step)

    def lose(self, worker: int) -> Part | None:
        """Forget a worker; the part that it held, which another one will be given."""
        self._expected.pop(worker, None)
        part = self._held.pop(worker, None)
        if part is None or part in self._held.values() or self._is_done(part):
            return None
        self._free.add(part)
        return part

    def drain(self) -> None:
        """Let the epoch end with the steps that have been begun."""
        begun = [part.step for part in self.attempts]
        self._end = min(self._end, max([self.finished - 1, *begun]) + 1)

    def _is_done(self, part: Part) -> bool:
        return part.step < self.finished or part.slice in self._done.get(part.step, ())

    def _may_begin(self, part: Part) -> bool:
        step = part.step
        return step <= min(self.finished + self.staleness, self.released) and step < self._end

    def _choose(self, worker: int) -> Part | None:
        returned = [part for part in self._free if self.attempts[part] and self._may_begin(part)]
        if returned:  # others wait for what a lost worker held
            return min(returned)
        mine = self._expected.get(worker)
        if mine is not None and mine in self._free and self._may_begin(mine):
            return mine
        reserved = set(self._expected.values())
        while True:
            allowed = sorted(filter(self._may_begin, self._free))
            unreserved = [part for part in allowed if part not in reserved]
            if unreserved:
                return unreserved[0]
            if not self._may_begin(Part(self._opened, 0)):
                return allowed[0] if allowed else None
            self._open()

    def _expect(self, worker: int, part: Part) -> None:
        """Reserve a part of a later step, of the same slice if that is free."""
        self._expected.pop(worker, None)
        reserved = set(self._expected.values())
        while True:
            later = [one for one in self._free - reserved if one.step > part.step]
            if later:
                first = min(one.step for one in later)
                of_step = sorted(one for one in later if one.step == first)
                same = [one for one in of_step if one.slice == part.slice]
                self._expected[worker] = (same or of_step)[0]
                return
            if self._opened >= self._end:
                return
            self._open()

    def _open(self) -> None:
        self._free.update(self._parts(self._opened))
        self._opened += 1

    def _parts(self, step: int) -> Iterator[Part]:
        return (Part(step, one) for one in range(self.slices))
