"""The clock of a parameter server: bounded staleness, and each part exactly once, whoever goes."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn_core.param_server.clock import Clock, Part

SCHEDULES_OF_EXAMPLE = 10


def simulate(staleness: float, slices: int, steps: int, rng: random.Random) -> Counter[Part]:
    """Workers that take, finish, go and come in any order; how often each part was counted."""
    clock = Clock(slices, staleness)
    clock.begin(0, steps)
    counted: Counter[Part] = Counter()
    held: dict[int, Part] = {}  # as the workers see it
    lost: list[tuple[int, Part]] = []  # taken for lost, but still computing
    num_workers = rng.randint(1, 4)
    for _ in range(5_000):
        if clock.over:
            break
        worker = rng.randrange(num_workers)
        what = rng.random()
        if what < 0.05 and worker in held:
            lost.append((worker, held.pop(worker)))
            clock.lose(worker)
        elif what < 0.1:
            num_workers += num_workers < 6
        elif what < 0.15 and lost:  # what it computed arrives, long after
            late_worker, part = lost.pop(rng.randrange(len(lost)))
            counted[part] += clock.done(late_worker + 100, part)
        elif worker in held:
            part = held.pop(worker)
            counted[part] += clock.done(worker, part)
        elif (part := clock.take(worker)) is not None:
            held[worker] = part
        whole = next(
            step
            for step in range(steps + 1)
            if any(counted[Part(step, one)] == 0 for one in range(slices))
        )
        assert clock.finished == whole
        for part in held.values():  # no worker is further ahead of the slowest
            assert part.step - whole <= staleness
        clock.release(whole)
    assert clock.over
    return counted


@settings(max_examples=1_000, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2, 5, math.inf]),
    st.integers(1, 3),
    st.integers(1, 6),
)
def test_no_worker_runs_ahead_in_10000_schedules(
    seed: int, staleness: float, slices: int, steps: int
) -> None:
    rng = random.Random(seed)
    for _ in range(SCHEDULES_OF_EXAMPLE):
        counted = simulate(staleness, slices, steps, rng)
        parts = {Part(step, one) for step in range(steps) for one in range(slices)}
        assert {part for part, times in counted.items() if times} == parts
        assert set(counted[part] for part in parts) == {1}


def in_turn(clock: Clock, workers: int) -> list[list[Part | None]]:
    """What each worker is given, where all of them finish at the same time."""
    rounds = []
    while not clock.over:
        parts = [clock.take(worker) for worker in range(workers)]
        rounds.append(parts)
        for worker, part in enumerate(parts):
            if part is not None:
                clock.done(worker, part)
        clock.release(clock.finished)
    return rounds


def test_workers_keep_their_slices_and_know_what_follows() -> None:
    clock = Clock(2, 0)
    clock.begin(3, 6)
    assert clock.take(0) == (3, 0) and clock.expected(0) == (4, 0)
    assert clock.take(1) == (3, 1) and clock.expected(1) == (4, 1)
    assert clock.take(0) == (3, 0)  # it has not heard the answer
    clock.done(0, Part(3, 0))
    assert clock.take(0) is None
    clock.done(1, Part(3, 1))
    assert clock.take(1) is None  # until the step is released
    clock.release(4)
    assert clock.take(1) == (4, 1)
    assert in_turn(clock, 2)[-1] == [(5, 0), (5, 1)]
    assert clock.missing == {0: 6}


def test_one_worker_alone_computes_all_slices() -> None:
    clock = Clock(4, 0)
    clock.begin(0, 3)
    parts = [part for (part,) in in_turn(clock, 1)]
    assert [part.step for part in parts if part] == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(parts)) == 12


@pytest.mark.parametrize("staleness", [0, 1, 3, math.inf])
def test_the_fast_worker_gets_as_far_as_it_may(staleness: float) -> None:
    clock = Clock(2, staleness)
    clock.begin(0, 8)
    assert clock.take(0) == (0, 0)  # and is never done
    furthest = 0
    while (part := clock.take(1)) is not None:
        furthest = max(furthest, part.step)
        clock.done(1, part)
    assert furthest == min(7, staleness)
    if staleness:
        assert max(clock.missing) == furthest
        assert sum(clock.missing.values()) == 2 * (furthest + 1)


def test_what_a_lost_worker_held_is_computed_next() -> None:
    clock = Clock(2, 4)
    clock.begin(0, 8)
    assert clock.take(0) == (0, 0) and clock.take(1) == (0, 1)
    clock.done(1, Part(0, 1))
    assert clock.lose(0) == (0, 0)
    assert clock.take(1) == (0, 0)
    assert clock.attempts[Part(0, 0)] == 2
    clock.done(1, Part(0, 0))
    assert clock.take(1) == (1, 0) and clock.finished == 1
    assert not clock.done(0, Part(0, 0))  # late, and counted already


def test_a_stop_lets_the_steps_that_were_begun_end() -> None:
    clock = Clock(2, 2)
    clock.begin(0, 100)
    for part in ((0, 0), (1, 0), (2, 0)):
        assert clock.take(0) == part
        clock.done(0, Part(*part))
    clock.drain()
    rest = []
    while (part := clock.take(1)) is not None:
        rest.append(part)
        clock.done(1, part)
    assert rest == [(0, 1), (1, 1), (2, 1)]
    assert clock.over and clock.finished == 3


def test_a_stop_before_the_first_step_ends_at_once() -> None:
    clock = Clock(2, 0)
    clock.begin(5, 9)
    clock.drain()
    assert clock.over and clock.finished == 5
