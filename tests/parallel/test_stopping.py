"""A signal to any rank ends all of them at the same step, and they go on from there together."""

# ruff: noqa: E402
from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


from gnn_core.data.graph import Graph
from gnn_core.training.trainer import Trainer
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import distance, run, trained, trained_once, trainer_of

pytestmark = pytest.mark.needs_torch


@pytest.fixture(autouse=True)
def nobody_is_asked_afterwards(parallel: SingleProcess) -> Iterator[None]:
    yield
    parallel.stop_signal = None


def stop_in_step(trainer: Trainer, parallel: SingleProcess, number: int) -> None:
    """Have the last rank asked to stop while it samples that batch, counted from 0."""
    loader = trainer.learner.loader  # type: ignore[attr-defined]
    batches = loader.batches
    seen = 0

    def counted(*args: Any) -> Iterator[Any]:
        nonlocal seen
        for batch in batches(*args):
            if seen == number and parallel.rank == parallel.world_size - 1:
                parallel.stop_signal = signal.SIGTERM
            seen += 1
            yield batch

    loader.batches = counted  # type: ignore[method-assign]


@pytest.mark.parametrize("stop_at", [0, 3, 5], ids="step {}".format)
def test_a_stopped_run_goes_on_to_the_same_curve(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path, stop_at: int
) -> None:
    whole = trained_once(tiny_graph, parallel)
    folder = str(shared_path / "saved")
    trainer = trainer_of(tiny_graph, parallel, checkpoint_dir=folder)
    stop_in_step(trainer, parallel, stop_at)
    record = run(trainer)
    assert record.status == "interrupted" and "go on with --resume" in str(record.error)
    parallel.stop_signal = None
    assert parallel.gather(len(trainer.history.step_losses)) == [stop_at + 1] * parallel.world_size
    rest = trained(tiny_graph, parallel, checkpoint_dir=folder, resume=True)
    losses = torch.tensor(trainer.history.step_losses, dtype=torch.float64)
    assert distance(torch.cat([losses, rest.losses]), whole.losses) < 1e-10
    for name, tensor in whole.weights.items():
        assert distance(rest.weights[name], tensor) < 1e-10
    assert rest.record.final["test_accuracy"] == whole.record.final["test_accuracy"]
    assert rest.record.resumed_from is not None


def test_a_run_of_one_step_an_epoch_and_few_evaluations_can_be_stopped(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path
) -> None:
    folder = str(shared_path / "saved")
    changes = {"global_batch_size": 64, "epochs": 5, "eval_every": 3, "lr_schedule": "cosine"}
    trainer = trainer_of(tiny_graph, parallel, checkpoint_dir=folder, **changes)
    stop_in_step(trainer, parallel, 3)
    assert run(trainer).status == "interrupted"
    parallel.stop_signal = None
    assert parallel.gather(len(trainer.history.step_losses)) == [4] * parallel.world_size
    rest = trained(tiny_graph, parallel, checkpoint_dir=folder, resume=True, **changes)
    whole = trained(tiny_graph, parallel, **changes)
    losses = torch.tensor(trainer.history.step_losses, dtype=torch.float64)
    assert distance(torch.cat([losses, rest.losses]), whole.losses) < 1e-10
    assert rest.record.final == whole.record.final
    # The first of them had no step left to make.
    assert [epoch.lr for epoch in rest.record.epochs] == [
        epoch.lr for epoch in whole.record.epochs[3:]
    ]


def test_a_run_may_go_on_after_its_end(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path
) -> None:
    folder = str(shared_path / "saved")
    first = trained(tiny_graph, parallel, checkpoint_dir=folder, epochs=1)
    again = trained(tiny_graph, parallel, checkpoint_dir=folder, epochs=1, resume=True)
    assert again.record.step_losses == []
    assert again.record.final == first.record.final
    longer = trained(tiny_graph, parallel, checkpoint_dir=folder, resume=True)  # two epochs
    whole = trained_once(tiny_graph, parallel)
    assert distance(torch.cat([first.losses, longer.losses]), whole.losses) < 1e-10
