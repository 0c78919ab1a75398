"""What the training loop asks of the other ranks, on this process alone and on all of them."""

# ruff: noqa: E402
from __future__ import annotations

import signal
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.training.world import Stopped
from gnn_core.usage import SharedUsageError, UsageError
from horovod_gnn.parallel import SingleProcess

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_sum_adds_up_every_rank_in_place(either: SingleProcess, dtype: torch.dtype) -> None:
    tensor = (torch.arange(1000) + 7 * either.rank).to(dtype)
    result = either.sum_(tensor)
    others = sum(7 * rank for rank in range(either.world_size))
    assert torch.equal(tensor, (torch.arange(1000) * either.world_size + others).to(dtype))
    assert result is tensor


def test_sum_takes_a_single_number_and_keeps_the_shape(either: SingleProcess) -> None:
    assert either.sum_(torch.tensor([2.5])).tolist() == [2.5 * either.world_size]
    assert either.sum_(torch.ones(3, 2, 2)).shape == (3, 2, 2)


def test_sums_of_another_size_may_follow_each_other(either: SingleProcess) -> None:
    for size in (5, 1, 300_000, 5):
        assert float(either.sum_(torch.ones(size)).sum()) == size * either.world_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_broadcast_brings_the_tensor_of_any_root(either: SingleProcess, dtype: torch.dtype) -> None:
    for root in range(either.world_size):
        tensor = torch.full((4, 3), either.rank, dtype=dtype)
        result = either.broadcast_(tensor, root)
        assert torch.equal(tensor, torch.full((4, 3), root, dtype=dtype))
        assert result is tensor


def test_broadcast_comes_from_rank_0_unless_another_is_named(either: SingleProcess) -> None:
    assert either.broadcast_(torch.tensor([either.rank + 1])).tolist() == [1]


def test_arrays_are_summed_over_the_ranks_and_left_as_they_were(either: SingleProcess) -> None:
    mine = np.array([either.rank, 0.1, 2.0**53])
    total = either.sum(mine)
    size = either.world_size
    assert total.tolist() == pytest.approx([size * (size - 1) / 2, 0.1 * size, 2.0**53 * size])
    assert total.dtype == np.float64
    assert mine.tolist() == [either.rank, 0.1, 2.0**53]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_the_array_of_any_root_comes_to_all(either: SingleProcess, dtype: type) -> None:
    for root in range(either.world_size):
        found = either.broadcast(np.full((4, 3), either.rank, dtype), root)
        assert found.dtype == dtype
        assert (found == np.full((4, 3), root)).all()


@pytest.mark.parametrize("length", [0, 1, 7, 1_000_003])
def test_bytes_of_any_length_come_from_rank_0(either: SingleProcess, length: int) -> None:
    theirs = np.random.default_rng(length).bytes(length)
    assert either.broadcast_bytes(theirs if either.rank == 0 else b"") == theirs


def test_gather_gives_every_rank_all_values_in_the_order_of_ranks(either: SingleProcess) -> None:
    mine = {"rank": either.rank, "text": "größer ✓", "values": [0.1, None, True] * either.rank}
    everyone = either.gather(mine)
    assert [theirs["rank"] for theirs in everyone] == list(range(either.world_size))
    assert everyone[either.rank] == mine
    assert [len(theirs["values"]) for theirs in everyone] == [
        3 * rank for rank in range(either.world_size)
    ]


def test_gather_takes_nothing_and_much(either: SingleProcess) -> None:
    assert either.gather(None) == [None] * either.world_size
    sizes = [200_000 * rank for rank in range(either.world_size)]
    assert [len(text) for text in either.gather("x" * sizes[either.rank])] == sizes


def test_nobody_passes_a_barrier_before_the_last_one_has_come(either: SingleProcess) -> None:
    time.sleep(0.05 * either.rank)
    came = time.monotonic()  # one clock for all processes of a machine
    either.barrier()
    passed = time.monotonic()
    assert passed >= max(either.gather(came))


def test_without_a_problem_all_agree(either: SingleProcess) -> None:
    either.require_agreement(None)


def test_the_problem_of_all_is_reported_once_and_by_itself(either: SingleProcess) -> None:
    with pytest.raises(SharedUsageError) as caught:
        either.require_agreement("the disk is full")
    assert str(caught.value) == "the disk is full"


def test_the_problem_of_one_rank_is_raised_on_every_rank_and_names_it(
    either: SingleProcess,
) -> None:
    last = either.world_size - 1
    with pytest.raises(UsageError, match="the disk is full") as caught:
        either.require_agreement("the disk is full" if either.rank == last else None)
    if last > 0:
        place = f"rank {last} ({either.rank_hosts[last]}): the disk is full"
        assert str(caught.value) == place
    assert set(either.gather(str(caught.value))) == {str(caught.value)}


def test_different_problems_are_all_reported(either: SingleProcess) -> None:
    with pytest.raises(UsageError) as caught:
        either.require_agreement(f"no room for number {either.rank}")
    for rank in range(either.world_size):
        assert f"no room for number {rank}" in str(caught.value)


def test_ranks_know_their_places(together: SingleProcess) -> None:
    assert together.gather(together.rank) == list(range(together.world_size))
    assert len(together.rank_hosts) == together.world_size
    assert together.single_host == (len(set(together.rank_hosts)) == 1)
    on_my_host = [
        place
        for place, host in zip(
            together.gather(together.local_rank), together.rank_hosts, strict=True
        )
        if host == together.rank_hosts[together.rank]
    ]
    assert sorted(on_my_host) == list(range(len(on_my_host)))
    assert together.controller in ("mpi", "gloo")


def test_what_one_rank_refuses_all_refuse(either: SingleProcess) -> None:
    last = either.world_size - 1
    reached = False
    with pytest.raises(SharedUsageError, match="no GPU here"):
        with either.errors_on_all_ranks():
            if either.rank == last:
                raise UsageError("no GPU here")
            reached = True
    assert reached == (either.rank != last)
    with either.errors_on_all_ranks():
        pass


def test_a_signal_to_one_rank_is_heard_by_all(together: SingleProcess) -> None:
    together.stop_together()  # nobody was asked to
    if together.rank == together.world_size - 1:
        together.stop_signal = signal.SIGTERM
    with pytest.raises(Stopped):
        together.stop_together()
    assert together.stops_together
    together.stop_signal = None
    together.stop_together()
    assert not together.stops_together
