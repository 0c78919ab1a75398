"""The learning rate: known values, at any step, without having been at the steps before."""

from __future__ import annotations

import math

import pytest

from gnn_core.config import RunConfig
from gnn_core.schedule import Schedule

STEPS = 10  # per epoch


def rates(schedule: Schedule) -> list[float]:
    """Every rate of a run, step by step."""
    return [
        schedule.rate(epoch, step, STEPS)
        for epoch in range(schedule.epochs)
        for step in range(STEPS)
    ]


def test_constant_is_constant() -> None:
    assert set(rates(Schedule(0.01, "constant", 5))) == {0.01}


def test_cosine_falls_from_the_base_to_nothing() -> None:
    schedule = Schedule(0.4, "cosine", 8)
    assert schedule.rate(0, 0, STEPS) == 0.4
    assert schedule.rate(2, 0, STEPS) == pytest.approx(0.4 * (1 + math.sqrt(0.5)) / 2)
    assert schedule.rate(4, 0, STEPS) == pytest.approx(0.2)
    assert schedule.rate(6, 0, STEPS) == pytest.approx(0.4 * (1 - math.sqrt(0.5)) / 2)
    falling = rates(schedule)
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 0.001


def test_step_multiplies_every_so_many_epochs() -> None:
    schedule = Schedule(1.0, "step", 7, step_epochs=3, gamma=0.1)
    per_epoch = [schedule.rate(epoch, 0, STEPS) for epoch in range(7)]
    assert per_epoch == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    assert schedule.rate(2, STEPS - 1, STEPS) == 1  # not before the epoch is over


@pytest.mark.parametrize("kind", ["constant", "cosine", "step"])
def test_warm_up_rises_by_equal_steps_and_ends_at_the_base(kind: str) -> None:
    """The first step trains already, the last one of the warm-up with the full rate."""
    schedule = Schedule(0.5, kind, 10, warmup_epochs=2, step_epochs=3, gamma=0.5)
    rising = rates(schedule)[: 2 * STEPS]
    assert rising == pytest.approx([0.5 * (n + 1) / (2 * STEPS) for n in range(2 * STEPS)])
    assert rising[-1] == schedule.rate(2, 0, STEPS) == 0.5


def test_after_the_warm_up_cosine_takes_the_epochs_that_are_left() -> None:
    schedule = Schedule(1.0, "cosine", 10, warmup_epochs=2)
    assert schedule.rate(6, 0, STEPS) == pytest.approx(0.5)
    assert schedule.rate(9, STEPS - 1, STEPS) < 0.001


def test_after_the_warm_up_steps_are_counted_from_its_end() -> None:
    schedule = Schedule(1.0, "step", 10, warmup_epochs=2, step_epochs=3, gamma=0.1)
    assert schedule.rate(4, STEPS - 1, STEPS) == 1
    assert schedule.rate(5, 0, STEPS) == pytest.approx(0.1)


def test_the_rate_depends_on_progress_and_not_on_the_length_of_a_step() -> None:
    """With half the batch there are twice the steps; the same share of the run, the same rate."""
    schedule = Schedule(0.3, "cosine", 6, warmup_epochs=1)
    for step in range(STEPS):
        assert schedule.rate(3, step, STEPS) == pytest.approx(schedule.rate(3, 2 * step, 2 * STEPS))


def test_a_schedule_is_read_from_the_configuration() -> None:
    config = RunConfig(
        dataset="synthetic",
        lr=0.02,
        lr_schedule="step",
        lr_step_epochs=4,
        lr_gamma=0.25,
        warmup_epochs=2,
        epochs=12,
    )
    expected = Schedule(0.02, "step", 12, warmup_epochs=2, step_epochs=4, gamma=0.25)
    assert Schedule.of(config, world_size=8) == expected


def test_scaling_multiplies_by_the_ranks_and_only_when_asked() -> None:
    asked = RunConfig(dataset="synthetic", lr=0.02, epochs=3, warmup_epochs=1, scale_lr=True)
    assert Schedule.of(asked, world_size=8).base == pytest.approx(0.16)
    assert Schedule.of(asked, world_size=8).rate(2, 0, STEPS) == pytest.approx(0.16)
    not_asked = RunConfig(dataset="synthetic", lr=0.02, epochs=3)
    assert Schedule.of(not_asked, world_size=8).rate(0, 0, STEPS) == 0.02
