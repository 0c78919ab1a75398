"""Stopwatch: fed with known times, it must give them back, each second once."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from gnn_core.measure.timing import (
    Stopwatch,
    lap_to_vector,
    per_second,
    slowest_lap,
    training_seconds,
)


class Clock:
    """A clock that moves when told to; starts far from 0, as real ones do."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Stopwatch:
    return Stopwatch(clock)


def test_rates_divide_by_elapsed_time_and_not_by_a_reading_of_the_clock(
    clock: Clock, watch: Stopwatch
) -> None:
    """500 targets in 2 s are 250 a second, however late it is."""
    with watch.section("compute"):
        clock.sleep(2.0)
    lap = watch.lap()
    assert per_second(500, lap["total"]) == 250.0
    assert per_second(500, lap["compute"]) == 250.0


def test_a_rate_over_no_time_is_unknown() -> None:
    """Neither infinite nor 0; and time that runs backwards is a bug."""
    assert per_second(10, 0.0) is None
    assert per_second(0, 2.0) == 0.0
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="elapsed seconds"):
            per_second(10, wrong)


def test_nested_sections_are_exclusive(clock: Clock, watch: Stopwatch) -> None:
    """The inner second is the inner section's alone, also when both have one name."""
    with watch.section("compute"):
        clock.sleep(1.0)
        with watch.section("communicate"):
            clock.sleep(2.0)
            with watch.section("wait"):
                clock.sleep(4.0)
        clock.sleep(8.0)
        with watch.section("compute"):
            clock.sleep(16.0)
    clock.sleep(32.0)
    assert watch.lap() == {
        "compute": 25.0,
        "communicate": 2.0,
        "wait": 4.0,
        "other": 32.0,
        "total": 63.0,
    }


def test_sections_add_up_to_the_lap(clock: Clock, watch: Stopwatch) -> None:
    """Also with seconds moved between sections; those of other threads stay outside the sum."""
    for _ in range(3):
        with watch.section("wait"):
            clock.sleep(0.7)
        watch.add("sample", 0.5, out_of="wait")
        watch.add("fetch", 9.0)
        with watch.section("compute"):
            clock.sleep(0.4)
    lap = watch.lap()
    assert lap["overlapped_fetch"] == 27.0
    assert lap["sample"] == pytest.approx(1.5)
    assert lap["wait"] == pytest.approx(0.6)
    inside = [value for name, value in lap.items() if not name.startswith(("overlapped_", "total"))]
    assert sum(inside) == pytest.approx(lap["total"])


def test_a_section_left_by_an_exception_is_closed(clock: Clock, watch: Stopwatch) -> None:
    """The time until the exception counts, and the next section is not nested in it."""
    with pytest.raises(KeyError), watch.section("fetch"):
        clock.sleep(1.0)
        raise KeyError
    with watch.section("compute"):
        clock.sleep(2.0)
    lap = watch.lap()
    assert (lap["fetch"], lap["compute"]) == (1.0, 2.0)


def test_laps_are_apart_and_warm_up_is_marked(clock: Clock) -> None:
    """Each lap begins at 0; the first `warm_up_laps` say so; a restart is no lap."""
    watch = Stopwatch(clock, warm_up_laps=2)
    clock.sleep(5.0)
    watch.restart()
    seen = []
    for seconds in (3.0, 2.0, 1.0):
        with watch.section("compute"):
            clock.sleep(seconds)
        seen.append((watch.warm_up, watch.lap()["total"]))
    assert seen == [(True, 3.0), (True, 2.0), (False, 1.0)]
    assert watch.lap() == {"other": 0.0, "total": 0.0}


def test_a_lap_inside_a_section_is_refused(watch: Stopwatch) -> None:
    """Its seconds would be cut in two laps."""
    with watch.section("evaluate"), pytest.raises(RuntimeError, match="evaluate"):
        watch.lap()


def test_unknown_sections_and_negative_seconds_are_refused(watch: Stopwatch) -> None:
    """A misspelt section would vanish from the table."""
    with pytest.raises(ValueError, match="'comunicate'"), watch.section("comunicate"):
        pass
    with pytest.raises(ValueError, match="'total'"):
        watch.add("total", 1.0)
    with pytest.raises(ValueError, match="'load'"):
        watch.add("sample", 1.0, out_of="load")
    with pytest.raises(ValueError, match="-1"):
        watch.add("sample", -1.0)


def test_training_leaves_out_evaluation_checkpoints_and_set_up(
    clock: Clock, watch: Stopwatch
) -> None:
    """An epoch's seconds are those of training, what no section claimed included."""
    for name, seconds in (
        ("setup", 50.0),
        ("compute", 2.0),
        ("evaluate", 9.0),
        ("checkpoint", 5.0),
    ):
        with watch.section(name):
            clock.sleep(seconds)
    clock.sleep(0.5)
    assert training_seconds(watch.lap()) == pytest.approx(2.5)


def test_the_slowest_rank_keeps_its_own_sections() -> None:
    """Not the largest of each section: that rank would not exist and would add up to too much."""
    quick = {"compute": 1.0, "wait": 6.0, "evaluate": 9.0, "other": 0.0, "total": 16.0}
    slow = {"compute": 7.0, "wait": 1.0, "overlapped_sample": 3.0, "other": 0.5, "total": 8.5}
    gathered = np.stack([lap_to_vector(quick), lap_to_vector(slow)])
    assert gathered.shape == (2, 18) and gathered.dtype == np.float64
    assert slowest_lap(gathered) == slow
    for wrong in (gathered[0], gathered[:, :5], gathered[:0]):
        with pytest.raises(ValueError, match="world_size"):
            slowest_lap(wrong)


def test_seconds_added_by_many_threads_are_all_counted(watch: Stopwatch) -> None:
    """The sampler's threads add while the loop runs."""

    def work() -> None:
        for _ in range(2000):
            watch.add("sample", 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watch.lap()["overlapped_sample"] == 8000.0


def test_the_real_clock_moves() -> None:
    """Without a clock of one's own, seconds are real ones."""
    watch = Stopwatch()
    with watch.section("compute"):
        sum(range(1000))
    lap = watch.lap()
    assert 0 < lap["compute"] <= lap["total"] < 60
