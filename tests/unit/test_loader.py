"""The loader: every target once, equal steps on all ranks, the same batches whoever asks."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gnn_core import seeding
from gnn_core.data import loader as module
from gnn_core.data.batch import Batch
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader, equal_slices, rank_slice
from gnn_core.data.sampler import Sampler
from tests.patience import patient
from tests.unit.made_graphs import edge_set, oddities, with_train
from tests.unit.second_implementations import uneven

PATIENCE_SECONDS = patient(10)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return with_train(num_nodes=150, num_train=100)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Demand that each test ends, and its threads with it. One that hangs ends the whole run."""
    faulthandler.dump_traceback_later(6 * PATIENCE_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    assert prefetch_threads() == []


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ringsage-prefetch"]


def epoch_of(graph: Graph, epoch: int = 0, first_step: int = 0, **settings: Any) -> list[Batch]:
    """All batches of an epoch; unless told otherwise 16 targets a step, fan-outs 3 and 2."""
    return list(loader_of(graph, **settings).batches(epoch, first_step))


def loader_of(graph: Graph, **settings: Any) -> Loader:
    chosen = {"fanouts": (3, 2), "global_batch_size": 16, "seed": 1, "prefetch": 0, **settings}
    return Loader(graph, chosen.pop("split", "train"), **chosen)


def real_targets(batches: list[Batch]) -> list[int]:
    return [node for batch in batches for node in batch.targets[: batch.num_real].tolist()]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    """Two lists of batches agree in every bit, the time they took aside."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        for name in ("num_real", "num_global_real", "epoch", "step", "key"):
            assert getattr(mine, name) == getattr(theirs, name)
        for name in ("input_nodes", "targets", "labels"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
        for my_block, their_block in zip(mine.blocks, theirs.blocks, strict=True):
            assert my_block.num_src == their_block.num_src
            assert np.array_equal(my_block.offsets, their_block.offsets)
            assert np.array_equal(my_block.columns, their_block.columns)


# --- the order of an epoch ----------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_split_and_epoch(graph: Graph) -> None:
    """Of nothing else: neither of what is sampled nor of how often it was asked for."""
    order = real_targets(epoch_of(graph, epoch=2))
    loader = loader_of(graph)
    list(loader.batches(5))
    assert real_targets(list(loader.batches(2))) == order
    for other in ({"fanouts": (1,)}, {"global_batch_size": 7}, {"prefetch": 2}):
        assert real_targets(epoch_of(graph, epoch=2, **other)) == order
    assert real_targets(epoch_of(graph, epoch=3)) != order
    assert real_targets(epoch_of(graph, epoch=2, seed=2)) != order
    assert order != sorted(order)


def test_orders_of_different_epochs_have_nothing_in_common(graph: Graph) -> None:
    orders = np.array([real_targets(epoch_of(graph, epoch=epoch)) for epoch in range(10)])
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).sum() < 10  # one on average
        assert len(set(one[:16]) & set(other[:16])) < 12  # the first batch: 2.6 on average


def test_splits_of_one_size_are_not_shuffled_alike() -> None:
    graph = with_train(num_nodes=150, num_train=75)
    places = [
        np.searchsorted(graph.split(split), real_targets(epoch_of(graph, split=split)))
        for split in ("train", "valid")
    ]
    assert (places[0] == places[1]).sum() < 10  # one on average


def test_without_shuffling_ids_ascend(graph: Graph) -> None:
    for split in ("train", "valid"):
        batches = epoch_of(graph, split=split, shuffle=False)
        assert real_targets(batches) == graph.split(split).tolist()


# --- ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_train", [9, 10, 23, 64, 100])
@pytest.mark.parametrize("world_size", range(1, 10))
def test_all_ranks_make_the_same_steps_and_share_the_targets(
    num_train: int, world_size: int
) -> None:
    """Also where the last batch has fewer targets than there are ranks."""
    graph = with_train(num_nodes=100, num_train=num_train)
    for size in (9, 11, 16):
        ranks = [
            epoch_of(graph, global_batch_size=size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        alone = epoch_of(graph, global_batch_size=size)
        assert {len(batches) for batches in ranks} == {len(alone)} == {-(-num_train // size)}
        seen = [node for batches in ranks for node in real_targets(batches)]
        assert sorted(seen) == graph.split("train").tolist()
        for step, whole in enumerate(alone):
            parts = [batches[step] for batches in ranks]
            # The slices of a batch, one after the other, are the batch.
            assert [node for part in parts for node in real_targets([part])] == list(whole.targets)
            assert {part.num_global_real for part in parts} == {whole.num_real}
            assert sum(part.num_real for part in parts) == whole.num_real
            assert len({len(part.targets) for part in parts}) == 1
            assert {part.step for part in parts} == {step}
            assert {part.key for part in parts} == {whole.key}
            for part in parts:
                assert 0 <= len(part.targets) - part.num_real <= 1
                assert len(part.targets) > 0
                assert len(np.unique(part.targets)) == len(part.targets)
                assert np.isin(part.targets, whole.targets).all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_assignment_shares_the_targets(world_size: int) -> None:
    """Each target is one rank's; a rank without any has an item that does not count."""
    graph = with_train(num_nodes=100, num_train=64)
    ranks = [
        epoch_of(graph, global_batch_size=9, rank=rank, world_size=world_size, assign=uneven)
        for rank in range(world_size)
    ]
    alone = epoch_of(graph, global_batch_size=9)
    empty = 0
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert sorted(real_targets(parts)) == sorted(whole.targets.tolist())
        assert {part.num_global_real for part in parts} == {whole.num_real}
        owners = uneven(whole.targets, world_size, 0, step)
        for rank, part in enumerate(parts):
            assert real_targets([part]) == whole.targets[owners == rank].tolist()
            assert len(part.targets) - part.num_real in (0, 1)
            assert len(part.targets) > 0
            assert len(np.unique(part.targets)) == len(part.targets)
            empty += part.num_real == 0
    assert empty > 0 or world_size == 1


@pytest.mark.parametrize("world_size", range(1, 12))
def test_equal_slices_give_each_rank_its_slice(world_size: int) -> None:
    for length in range(40):
        ranks = equal_slices(np.arange(length), world_size, 3, 5)
        assert len(ranks) == length
        for rank in range(world_size):
            mine = np.arange(length)[rank_slice(length, rank, world_size)]
            assert np.flatnonzero(ranks == rank).tolist() == mine.tolist()


def test_a_slice_for_each_rank() -> None:
    """Contiguous, in order, none left out, sizes one apart, the larger ones first."""
    for length, world_size in itertools.product(range(40), range(1, 12)):
        parts = [range(length)[rank_slice(length, r, world_size)] for r in range(world_size)]
        assert [item for part in parts for item in part] == list(range(length))
        sizes = [len(part) for part in parts]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_together_draw_what_one_process_draws(world_size: int) -> None:
    """The proof that more ranks change nothing: per step and hop the same (node, neighbour)."""
    graph = oddities()
    settings: dict[str, Any] = {"fanouts": (7, 5, 2), "global_batch_size": 203}
    alone = epoch_of(graph, **settings)
    ranks = [
        epoch_of(graph, rank=rank, world_size=world_size, **settings) for rank in range(world_size)
    ]
    assert len(alone) == 3  # the last one has 25 targets
    for step, whole in enumerate(alone):
        for hop, block in enumerate(whole.blocks):
            union: set[tuple[int, int]] = set()
            for batches in ranks:
                union |= edge_set(batches[step].blocks[hop], batches[step].input_nodes)
            assert union == edge_set(block, whole.input_nodes)


# --- what a batch says --------------------------------------------------------------------------


def test_a_batch_describes_itself(graph: Graph) -> None:
    batches = epoch_of(graph, epoch=3, rank=1, world_size=3)
    assert graph.labels is not None
    for step, batch in enumerate(batches):
        assert (batch.epoch, batch.step) == (3, step)
        assert np.array_equal(batch.input_nodes[: len(batch.targets)], batch.targets)
        assert np.array_equal(batch.labels, graph.labels[batch.targets])
        assert batch.labels.dtype == np.int32
        assert batch.targets.dtype == np.int64
        assert batch.num_edges == sum(len(block.columns) for block in batch.blocks)
        assert batch.sample_seconds > 0
    assert len({batch.key for batch in batches}) == len(batches)
    assert [batch.num_global_real for batch in batches] == [16] * 6 + [4]


def test_without_labels_there_is_minus_one() -> None:
    (batch, *_) = epoch_of(with_train(50, 20, labels=False))
    assert batch.labels.tolist() == [-1] * 16
    assert batch.labels.dtype == np.int32


def test_draws_are_a_function_of_seed_split_epoch_and_step(graph: Graph) -> None:
    """And of nothing else, so each batch can be drawn again by whoever knows these four."""
    for seed, split, epoch in ((0, "train", 0), (0, "train", 1), (0, "valid", 0), (5, "train", 0)):
        for batch in epoch_of(graph, epoch=epoch, seed=seed, split=split, rank=2, world_size=3):
            key = seeding.key(seed, "sampling", split, epoch, batch.step)
            blocks, input_nodes = Sampler(graph, (3, 2)).sample(batch.targets, key)
            assert np.array_equal(batch.input_nodes, input_nodes)
            for mine, block in zip(batch.blocks, blocks, strict=True):
                assert np.array_equal(mine.columns, block.columns)


def test_a_loader_knows_its_size(graph: Graph) -> None:
    loader = loader_of(graph)
    assert (loader.num_targets, loader.num_steps, loader.prefetches) == (100, 7, False)
    assert loader_of(graph, prefetch=1).prefetches
    assert loader_of(graph, global_batch_size=100).num_steps == 1
    assert loader_of(graph, global_batch_size=99).num_steps == 2


# --- resuming and prefetching -------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resuming_gives_the_batches_that_were_left(graph: Graph, prefetch: int) -> None:
    whole = epoch_of(graph, epoch=1)
    for first_step in range(len(whole) + 1):
        rest = epoch_of(graph, epoch=1, first_step=first_step, prefetch=prefetch)
        assert_same(rest, whole[first_step:])


@pytest.mark.parametrize("prefetch", [1, 2, 4, 100])
def test_prefetching_changes_no_batch(graph: Graph, prefetch: int) -> None:
    loader = loader_of(graph, prefetch=prefetch)
    for epoch in range(3):
        assert_same(list(loader.batches(epoch)), epoch_of(graph, epoch=epoch))


@pytest.mark.parametrize("prefetch", [1, 4])
def test_leaving_early_ends_the_thread(graph: Graph, prefetch: int) -> None:
    with contextlib.closing(loader_of(graph, prefetch=prefetch).batches(0)) as batches:
        next(batches)
        assert len(prefetch_threads()) == 1
    assert prefetch_threads() == []


def test_an_error_in_the_loop_ends_the_thread(graph: Graph) -> None:
    def train() -> None:
        for _ in loader_of(graph, prefetch=2).batches(0):
            raise ValueError("loss is nan")

    with pytest.raises(ValueError, match="loss is nan"):
        train()
    # The iterator goes with the frame it was made in, and takes the thread along.
    assert prefetch_threads() == []


def test_what_is_never_started_needs_no_thread(graph: Graph) -> None:
    batches = loader_of(graph, prefetch=2).batches(0)
    assert prefetch_threads() == []
    batches.close()  # type: ignore[attr-defined]


def failing_at(loader: Loader, call: int, error: BaseException) -> None:
    """Make the loader's sampler raise at its `call`th call, counted from 0."""
    sample, calls = loader._sampler.sample, itertools.count()

    def sample_or_fail(*arguments: Any) -> Any:
        if next(calls) == call:
            raise error
        return sample(*arguments)

    loader._sampler.sample = sample_or_fail  # type: ignore[method-assign]


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("error", [ValueError("broken disk"), MemoryError(), SystemExit(3)])
def test_errors_surface_where_the_batch_was_due(
    graph: Graph, prefetch: int, error: BaseException
) -> None:
    """After the batches before it, with its traceback, and nothing hangs."""
    loader = loader_of(graph, prefetch=prefetch)
    failing_at(loader, 2, error)
    taken = []
    with pytest.raises(type(error)) as caught:
        for batch in loader.batches(0):
            taken.append(batch.step)
    assert caught.value is error
    assert "sample_or_fail" in [entry.name for entry in caught.traceback]
    assert taken == [0, 1]


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fail if it never is."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.001)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_it_works_ahead_as_far_as_asked_and_no_further(graph: Graph, prefetch: int) -> None:
    loader = loader_of(graph, prefetch=prefetch, global_batch_size=5)
    sample, drawn = loader._sampler.sample, []

    def sample_and_count(*arguments: Any) -> Any:
        drawn.append(None)
        return sample(*arguments)

    loader._sampler.sample = sample_and_count  # type: ignore[method-assign]
    with contextlib.closing(loader.batches(0)) as batches:
        for taken in range(1, 6):
            next(batches)
            until(lambda taken=taken: len(drawn) >= taken + prefetch)  # type: ignore[misc]
            time.sleep(0.02)
            assert len(drawn) == taken + prefetch


@pytest.mark.parametrize("prefetch", [0, 2])
def test_two_epochs_at_once_do_not_mix(graph: Graph, prefetch: int) -> None:
    """Their threads share one sampler."""
    loader = loader_of(graph, prefetch=prefetch)
    both = list(zip(loader.batches(0), loader.batches(1), strict=True))
    assert_same([one for one, _ in both], epoch_of(graph, epoch=0))
    assert_same([other for _, other in both], epoch_of(graph, epoch=1))


def test_leaving_does_not_wait_for_the_rest_of_the_epoch(graph: Graph) -> None:
    def slow() -> Iterator[Any]:
        for step in range(1000):
            time.sleep(0.01)
            yield step

    began = time.monotonic()
    with contextlib.closing(module.ahead(slow(), 4)) as batches:
        assert next(batches) == 0
    assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_a_part_of_a_split_is_spread_over_it(graph: Graph) -> None:
    nodes = graph.split("train")
    for most in (1, 7, 99):
        drawn = real_targets(epoch_of(graph, shuffle=False, most=most))
        assert len(drawn) == most and set(drawn) <= set(nodes.tolist())
        assert np.ptp(np.diff(np.searchsorted(nodes, drawn), append=len(nodes))) <= 1
    for all_of_it in (0, 100, 1000):
        assert real_targets(epoch_of(graph, shuffle=False, most=all_of_it)) == nodes.tolist()
