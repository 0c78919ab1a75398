"""Ranks that do not come, or have gone, as torch.distributed tells it; in one process."""

# ruff: noqa: E402
from __future__ import annotations

import socket
import time

import pytest

torch = pytest.importorskip("torch")

from torch import distributed

from baselines import process_group
from baselines.process_group import ProcessGroup
from baselines.rendezvous import Rendezvous
from gnn_core import joining
from gnn_core.training.world import Lost, Stopped
from gnn_core.usage import UsageError

pytestmark = pytest.mark.needs_torch
GLOO = (
    "[/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:9606. This is "
    "typically caused by a remote worker crashing.\nCheck its logs."
)


class Work:
    """A collective that ends, or fails, after some looks at it."""

    def __init__(self, looks: int, error: str = ""):
        self._looks, self._error = looks, error

    def is_completed(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def wait(self, *slices: object) -> None:
        if self._error and self._looks < 0:
            raise RuntimeError(self._error)
        if slices:
            raise RuntimeError("the slice is over")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> ProcessGroup:
    """One rank, which has met nobody."""
    made = ProcessGroup.__new__(ProcessGroup)
    super(ProcessGroup, made).__init__()
    made.grace_seconds = 0.0
    return made


def finish(group: ProcessGroup, work: Work) -> None:
    group._finish(work, torch.zeros(1))  # type: ignore[arg-type]


def test_a_collective_that_takes_several_slices(group: ProcessGroup) -> None:
    finish(group, Work(looks=0))
    finish(group, Work(looks=3))


def test_a_rank_that_has_gone(group: ProcessGroup) -> None:
    with pytest.raises(Lost) as caught:
        finish(group, Work(looks=2, error=GLOO))
    assert str(caught.value) == (
        "some rank answers no more (Connection closed by peer [10.0.0.2]:9606); start all again, "
        "with --resume to go on from the last checkpoint"
    )


class Monitor:
    """One that has come to its verdict."""

    verdict = "rank 1 (one, pid 7) is stopped"

    def begin(self, computes: bool) -> None: ...
    def end(self) -> None: ...


def test_a_rank_that_shows_no_sign_of_life(group: ProcessGroup) -> None:
    group.monitor = Monitor()  # type: ignore[assignment]
    with pytest.raises(Lost, match="is stopped"):
        finish(group, Work(looks=1 << 30))


@pytest.mark.parametrize("work", [Work(1 << 30), Work(2, GLOO)], ids=["silent", "gone"])
def test_a_rank_that_is_to_stop_waits_for_nobody(group: ProcessGroup, work: Work) -> None:
    group.stop_signal = 15
    with pytest.raises(Stopped):
        finish(group, work)


def arrive(ranks: list[int], world_size: int, seconds: float) -> None:
    """Be rank 0, when those have come."""
    store = distributed.HashStore()
    for rank in ranks:
        store.set(f"rank {rank}", "is here")
    rendezvous = Rendezvous(0, world_size, "one", 2222)
    process_group._await_everyone(store, rendezvous, seconds, time.monotonic() + seconds)


def test_all_ranks_have_come() -> None:
    arrive([1, 2], 3, seconds=5)


def test_ranks_that_do_not_come_are_counted_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "LONG_SECONDS", 0.1)
    with pytest.raises(UsageError) as caught:
        arrive([2], 4, seconds=0.3)
    assert str(caught.value) == (
        "expected 4 ranks within 0.3 s, got 2: rank 1, rank 3 did not arrive at one:2222; start "
        "all of them, or wait longer with --start-timeout"
    )
    assert capsys.readouterr().out.splitlines()[0] == "waiting    for rank 1, rank 3"


def test_without_rank_0_there_is_nowhere_to_meet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(UsageError) as caught:
        process_group._await_store(Rendezvous(1, 2, "127.0.0.1", port), 0.3, time.monotonic() + 0.3)
    message = str(caught.value)
    assert message.startswith(f"expected rank 0 at 127.0.0.1:{port} within 0.3 s, got no answer (")
    assert "Connection refused" in message
    assert message.endswith("start it, or wait longer with --start-timeout")


def test_the_reason_is_one_sentence() -> None:
    for text in (GLOO, "nothing came for 600 s", "a\n  b. c"):
        reason = process_group._reason(RuntimeError(text))
        assert "\n" not in reason
        assert ". " not in reason
    assert process_group._reason(RuntimeError(GLOO)) == "Connection closed by peer [10.0.0.2]:9606"


def announce(store: distributed.Store, rank: int, world_size: int) -> None:
    process_group._announce(store, Rendezvous(rank, world_size, "one", 2222))


@pytest.mark.parametrize("late", [0, 1])
def test_ranks_that_are_given_different_worlds_refuse_each_other(late: int) -> None:
    store = distributed.HashStore()
    announce(store, 1 - late, 2)
    with pytest.raises(UsageError) as caught:
        announce(store, late, 3)
    reported = f"expected the same WORLD_SIZE on every rank, got 3 on rank {late} and 2 on another"
    assert str(caught.value).startswith(reported)
    with pytest.raises(UsageError, match=reported):  # the one that was there first hears of it
        process_group._raise_if_refused(store)


def test_a_rank_that_comes_twice_is_refused() -> None:
    store = distributed.HashStore()
    announce(store, 1, 3)
    with pytest.raises(UsageError, match="expected each RANK once, got a second process with RANK"):
        announce(store, 1, 3)
