"""Training on parts: the curve, the weights and the scores are those of the whole table."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import horovod_gnn.parallel
from gnn_core.data.graph import Graph
from gnn_core.data.partition.make import Request, make_partition
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.row_transport import HorovodTransport
from tests.parallel.made_runs import assert_same, distance, trained, trained_once

pytestmark = pytest.mark.needs_torch
TRANSPORTS = ["MPI", "Horovod", "Gloo"]


def over_transports(
    cases: dict[str, dict[str, Any]], everywhere: Sequence[str]
) -> pytest.MarkDecorator:
    """Parametrize `world` and `changes`: all cases over MPI, those of `everywhere` over each."""
    return pytest.mark.parametrize(
        ("world", "changes"),
        [
            pytest.param(transport, changes, id=f"{transport}-{name}")
            for transport in TRANSPORTS
            for name, changes in cases.items()
            if transport == TRANSPORTS[0] or name in everywhere
        ],
        indirect=["world"],
    )


@pytest.fixture
def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, parallel: SingleProcess
) -> SingleProcess:
    """All ranks, with one of the ways to exchange rows."""
    if parallel.world_size == 1 and request.param != TRANSPORTS[0]:
        pytest.skip("one rank has nobody to exchange rows with")
    if request.param == "Gloo":
        return request.getfixturevalue("process_group")
    if request.param == "Horovod":
        monkeypatch.setattr(horovod_gnn.parallel, "_mpi", lambda: None)
        if parallel.world_size > 1:
            assert isinstance(parallel.row_transport(), HorovodTransport)
    return parallel


def cut(
    graph: Graph, world: SingleProcess, folder: Path, num_parts: int, method: str = "refine"
) -> str:
    """The folder of a partition that rank 0 has written."""
    if world.rank == 0:
        make_partition(graph, Request(num_parts, method), folder / "parts")
    world.barrier()
    return str(folder / "parts")


CASES: dict[str, dict[str, Any]] = {
    "k=4": {"num_parts": 4},
    "k=4, hash": {"num_parts": 4, "method": "hash", "fetch_cache": "1KiB"},
    "k=1, W=1": {"num_parts": 1, "fetch_window": 1, "fetch_cache": "0"},
    "k=2, W=3": {"num_parts": 2, "fetch_window": 3, "prefetch": 0},
    "k=7, sampled": {"num_parts": 7, "eval": "sampled", "fetch_window": 1},
    "k=3, shared": {"num_parts": 3, "share_parts": True},
    "k > nodes": {"num_parts": 64, "global_batch_size": 1, "epochs": 1},
}


@over_transports(CASES, everywhere=["k=4, hash", "k=2, W=3"])
def test_parts_train_like_the_whole_table(
    tiny_graph: Graph, world: SingleProcess, shared_path: Path, changes: dict[str, Any]
) -> None:
    changes = dict(changes)
    num_parts, method = changes.pop("num_parts"), changes.pop("method", "refine")
    whole = trained_once(tiny_graph, SingleProcess(), **changes)
    folder = cut(tiny_graph, world, shared_path, num_parts, method)
    parts = trained(tiny_graph, world, partitions=folder, **changes)
    assert distance(parts.losses, whole.losses) < 1e-12
    assert_same(parts, whole, 1e-11)
    exchange = parts.record.exchange
    assert exchange is not None
    reads_all = world.world_size == 1 or changes.get("share_parts", False)  # all are of one host
    assert (exchange.remote_rows == 0) == reads_all == (exchange.transport == "none")
    for name, value in whole.record.final.items():
        assert parts.record.final[name] == pytest.approx(value, rel=1e-12), name
