"""Ranks that meet in torch.distributed train like those of Horovod, and like one process."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.graph import Graph
from gnn_core.training import evaluate
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import assert_same, distance, run, trained, trained_once, trainer_of
from tests.parallel.test_same_curve import ROUNDING
from tests.parallel.test_stopping import stop_in_step

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="fp64"),
        pytest.param({"precision": "fp32", "aggregator": "max"}, id="max, fp32"),
        pytest.param({"optimizer": "sgd", "eval": "sampled", "prefetch": 0}, id="sgd, sampled"),
    ],
)
def test_the_curve_is_that_of_horovod_and_of_one_process(
    tiny_graph: Graph,
    parallel: SingleProcess,
    process_group: SingleProcess,
    same_everywhere: Callable[[object], None],
    changes: dict[str, Any],
) -> None:
    ours = trained(tiny_graph, process_group, **changes)
    for world in (SingleProcess(), parallel):
        theirs = trained_once(tiny_graph, world, **changes)
        assert_same(ours, theirs, ROUNDING[changes.get("precision", "fp64")])
    same_everywhere([tensor.tolist() for tensor in ours.weights.values()])
    same_everywhere(ours.record.step_losses)
    assert ours.record.controller == "gloo"


def test_rows_are_exchanged_where_ranks_share_no_files(
    tiny_graph: Graph, process_group: SingleProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained(tiny_graph, SingleProcess(), epochs=1)
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 7)  # so that a share is exchanged in pieces
    monkeypatch.setattr(type(process_group), "single_host", False)
    assert_same(trained(tiny_graph, process_group, epochs=1), alone, 1e-10)


@pytest.mark.parametrize("first", ["Horovod", "torch.distributed"])
def test_a_stopped_run_goes_on_in_the_other_world(
    tiny_graph: Graph,
    parallel: SingleProcess,
    process_group: SingleProcess,
    shared_path: Path,
    first: str,
) -> None:
    worlds = [parallel, process_group]
    if first != "Horovod":
        worlds.reverse()
    folder = str(shared_path / "saved")
    trainer = trainer_of(tiny_graph, worlds[0], checkpoint_dir=folder)
    stop_in_step(trainer, worlds[0], 4)
    record = run(trainer)
    assert record.status == "interrupted" and "go on with --resume" in str(record.error)
    worlds[0].stop_signal = None
    rest = trained(tiny_graph, worlds[1], checkpoint_dir=folder, resume=True)
    whole = trained_once(tiny_graph, SingleProcess())
    losses = torch.tensor(trainer.history.step_losses, dtype=torch.float64)
    assert distance(torch.cat([losses, rest.losses]), whole.losses) < 1e-10
    for name, tensor in whole.weights.items():
        assert distance(rest.weights[name], tensor) < 1e-10
    assert rest.record.final["test_accuracy"] == whole.record.final["test_accuracy"]
