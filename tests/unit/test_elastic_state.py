"""What is kept of a run when ranks go and join is the same on all of them, the newcomers too."""

from __future__ import annotations

import dataclasses

import pytest

from gnn_core.measure.metrics import Tally
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import EpochRecord, WorldRecord
from gnn_core.training import describe
from gnn_core.training.elastic_state import ElasticState, RunHistory, shared
from gnn_core.training.world import Stopped, World, WorldChanged
from tests.unit.made_ranks import on_ranks

EPOCH = EpochRecord.of(
    0, Tally(1.5, 3, 4), {"total": 2.0, "other": 0.5}, lr=0.1, warm_up=True, num_sampled_edges=9
)
TWO = WorldRecord(epoch=0, step=0, hosts=["a", "b"], ranks_per_host=[1, 1], seconds_between=None)


def made(place: tuple[int, int] | None, state: bytes = b"") -> ElasticState:
    """What a rank has that stands there; None for one that has only come."""
    history = RunHistory("run", "2026-01-01T00:00:00+00:00")
    if place is not None:
        history.epochs, history.worlds = [EPOCH], [TWO]
        history.step_losses = [float(step) for step in range(place[1])]
        history.resumed_from = {"run_id": "another", "epoch": 3}
    return ElasticState(ResourceSampler(0), history, state, place)


@pytest.mark.parametrize(
    ("places", "root"),
    [
        ([(1, 4), (1, 4)], 0),
        ([(1, 3), (1, 4), None], 1),
        ([None, (1, 9), (2, 0)], 2),
        ([None, None, (0, 0)], 2),
    ],
)
def test_all_take_over_from_who_got_furthest(
    places: list[tuple[int, int] | None], root: int
) -> None:
    kept = [made(place, f"state of {rank}".encode()) for rank, place in enumerate(places)]
    taken = on_ranks(["h"] * len(places), lambda world: shared(kept[world.rank], world))
    for data, history in taken:
        assert data == f"state of {root}".encode()
        assert history == kept[root].history
        assert history is not kept[root].history, "a world that fails leaves the old one as it was"


def test_where_none_has_begun_there_is_nothing_to_take() -> None:
    kept = [made(None), made(None)]
    assert on_ranks(["a", "b"], lambda world: shared(kept[world.rank], world)) == [None] * 2


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (["b"], "on 1 rank without a from epoch 3, step 8, after 0.4 s"),
        (["b", "a", "c"], "on 3 ranks with c from epoch 3, step 8, after 0.4 s"),
        (["b", "c"], "on 2 ranks without a and with c from epoch 3, step 8, after 0.4 s"),
        (["a", "b"], "on 2 ranks from epoch 3, step 8, after 0.4 s"),
    ],
)
def test_who_goes_on_is_reported_in_a_line(hosts: list[str], said: str) -> None:
    world = WorldRecord(
        epoch=2, step=7, hosts=hosts, ranks_per_host=[1] * len(hosts), seconds_between=0.42
    )
    assert describe.new_world(world, TWO).split(maxsplit=2)[2] == said


def test_an_interruption_means_the_same_on_every_rank() -> None:
    def raise_if_interrupted(world: World) -> str:
        world.elastic = True
        world.hosts_changed = world.rank == 0
        world.stop_signal = 15 if asked and world.rank == 1 else None
        assert world.interrupted == (world.rank == 0 or asked)
        try:
            world.raise_if_interrupted()
        except (Stopped, WorldChanged) as reason:
            return type(reason).__name__
        return "nothing"

    asked = False
    assert on_ranks(["a", "b"], raise_if_interrupted) == ["WorldChanged"] * 2
    asked = True
    assert on_ranks(["a", "b"], raise_if_interrupted) == ["Stopped"] * 2
    with pytest.raises(Stopped):  # where ranks cannot go, there is no other reason
        World().raise_if_interrupted()


def test_seconds_of_other_ranks_are_no_speed_of_these() -> None:
    from gnn_core.measure.run_record import measured_epochs
    from tests.unit.made_records import run

    record = run("horovod", 1)
    assert not record.ranks_changed
    first, *rest = record.epochs
    assert rest, "the record has epochs to leave out"
    changed = dataclasses.replace(
        record, worlds=[TWO, dataclasses.replace(TWO, epoch=rest[0].epoch, hosts=["b"])]
    )
    assert changed.ranks_changed
    assert first not in measured_epochs(changed)
    assert measured_epochs(changed) == [epoch for epoch in rest if not epoch.warm_up]
