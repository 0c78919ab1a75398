"""A server's shard: each push once, and a standby that never disagrees with its primary."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from baselines.parameter_shard import ParameterShard
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.rpc import Peer, Service
from gnn_core.usage import Lost, UsageError
from tests.patience import patient

pytestmark = pytest.mark.needs_torch
SECRET = "a secret of sixteen or more"
SIZE, TERM = 6, 7


def loaded(**changes: Any) -> Any:
    start = np.arange(SIZE, dtype=np.float64)
    common = {"term": TERM, "dtype": "float64", "optimizer": "sgd", "slices": 2, "size": SIZE}
    return messages.LoadRequest(**{**common, "values": start.tobytes(), **changes})


def push(step: int, slice_: int = 0, value: float = 1.0, **changes: Any) -> Any:
    gradient = np.full(SIZE, value).tobytes()
    part = messages.Part(epoch=0, step=step, slice=slice_, attempt=1)
    common = {"term": TERM, "part": part, "lr": 0.5, "share": 1.0, "gradient": gradient}
    return messages.PushRequest(**{**common, **changes})


def values(shard: ParameterShard) -> list[float]:
    return np.frombuffer(shard.read(messages.ReadRequest()).values).tolist()


def test_each_push_is_an_update_and_counts_once() -> None:
    shard = ParameterShard()
    shard.load(loaded())
    for _ in range(3):
        assert shard.push(push(0)).version == 1
    assert shard.push(push(0, 1, value=0.5, share=0.25)).version == 2
    assert values(shard) == [number - 0.5 - 0.5 * 0.5 for number in range(SIZE)]
    journal = shard.read(messages.ReadRequest(journal=True)).journal
    assert [(one.part.step, one.part.slice) for one in journal] == [(0, 0), (0, 1)]


def test_synchronous_it_waits_for_all_slices() -> None:
    shard = ParameterShard()
    shard.load(loaded(synchronous=True))
    assert shard.push(push(0, 1, value=2.0)).version == 0
    assert values(shard) == list(range(SIZE))
    assert shard.push(push(0, 0, value=1.0)).version == 1
    assert shard.push(push(0, 0, value=1.0)).version == 1
    assert values(shard) == [number - 0.5 * 3 for number in range(SIZE)]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (push(0, term=8), "expected a worker of the run that this server belongs to"),
        (push(0, gradient=bytes(8)), "expected the gradient of a shard, got expected 6 values"),
    ],
)
def test_another_push_is_refused(request_: Any, words: str) -> None:
    shard = ParameterShard()
    shard.load(loaded())
    with pytest.raises(UsageError, match=words):
        shard.push(request_)


@pytest.mark.parametrize("changes", [{"dtype": "int8"}, {"optimizer": "x"}, {"size": 5}])
def test_another_shard_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected the shard of a run"):
        ParameterShard().load(loaded(**changes))


class Pair:
    """A primary and its standby, with a connection between."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_go_on = True
        self.standby = ParameterShard()
        self.service = Service("Server", self.standby, "127.0.0.1", 0, SECRET)
        self.primary = ParameterShard(self._reach, self._ask)
        self.primary.load(loaded(standby=self.service.address))
        self.standby.load(loaded(is_standby=True))

    def _reach(self, address: str) -> Peer:
        return Peer("Server", address, SECRET, "the standby", patient(10))

    def _ask(self) -> None:
        self.asked += 1
        if not self.may_go_on:
            raise UsageError("its place was taken")


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.service.stop(0)


def test_the_standby_has_what_was_answered(pair: Pair) -> None:
    for step in (0, 1, 1, 2):
        pair.primary.push(push(step))
        assert values(pair.standby) == values(pair.primary)
    for call in (lambda: pair.standby.pull(messages.PullRequest(term=TERM)),
                 lambda: pair.standby.push(push(3))):  # fmt: skip
        with pytest.raises(Lost, match="not the primary"):
            call()
    assert pair.asked == 0


def test_a_promoted_standby_fences_off_its_primary(pair: Pair) -> None:
    pair.primary.push(push(0))
    pair.may_go_on = False
    pair.standby.promote(messages.Empty())
    before = values(pair.standby)
    refused: list[Callable[[], Any]] = [
        lambda: pair.primary.push(push(1)),
        lambda: pair.primary.push(push(1)),
        lambda: pair.primary.pull(messages.PullRequest(term=TERM)),
    ]
    for call in refused:
        with pytest.raises(Lost):
            call()
    assert pair.asked == 1 and values(pair.standby) == before
    assert pair.standby.push(push(0)).version == 1  # it has that
    assert pair.standby.push(push(1)).version == 2
    assert values(pair.standby) == [number - 1.0 for number in range(SIZE)]


def test_a_primary_goes_on_alone_only_where_it_may(pair: Pair) -> None:
    pair.primary.push(push(0))
    pair.service.stop(0)
    assert pair.primary.push(push(1)).version == 2
    assert pair.primary.push(push(2)).version == 3
    assert pair.asked == 1
