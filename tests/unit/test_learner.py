"""The torch learner: what it hands out it takes back, and training goes on as if nothing was."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.initial import initial_weights, layer_widths
from gnn_core.training.checkpoint import Checkpoints, state_of
from gnn_core.training.state import RunProgress, Weights
from horovod_gnn.learner import TorchLearner
from horovod_gnn.parallel import SingleProcess

pytestmark = pytest.mark.needs_torch
SETTINGS: dict[str, Any] = {
    "dataset": "tiny",
    "epochs": 3,
    "hidden": 8,
    "fanouts": (3, 2),
    "global_batch_size": 21,
    "lr": 0.02,
    "dropout": 0.4,
    "input_dropout": 0.2,
    "device": "cpu",
    "seed": 5,
}


def made_config(**changes: Any) -> RunConfig:
    return RunConfig(**{**SETTINGS, **changes})


def made_learner(graph: Graph, **changes: Any) -> TorchLearner:
    return TorchLearner.of(made_config(**changes), graph, SingleProcess())


def train(learner: TorchLearner, epoch: int, step: int = 0) -> list[float]:
    """Train from there to the end of the epoch; the losses."""
    losses: list[float] = []
    learner.train_epoch(RunProgress(epoch, step), losses.append)
    return losses


def assert_equal(ours: Weights, theirs: Weights) -> None:
    """The same names, types, shapes and bits."""
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        assert ours[name].tobytes() == array.tobytes(), name


def names_of(graph: Graph) -> list[str]:
    return list(initial_weights(layer_widths(graph.num_features, 8, graph.num_classes, 2), 0))


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_weights_have_the_names_and_shapes_of_the_initial_ones(
    tiny_graph: Graph, precision: str
) -> None:
    learner = made_learner(tiny_graph, precision=precision)
    widths = layer_widths(tiny_graph.num_features, 8, tiny_graph.num_classes, 2)
    dtype = {"fp32": np.float32, "fp64": np.float64}[precision]
    expected = {name: w.astype(dtype) for name, w in initial_weights(widths, 5).items()}
    assert_equal(learner.weights(), expected)
    assert learner.num_parameters == sum(array.size for array in expected.values())


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_adam_tells_its_steps_and_moments(tiny_graph: Graph, precision: str) -> None:
    learner = made_learner(tiny_graph, precision=precision)
    assert learner.optimizer_state() == {}  # before its first step
    train(learner, 0)
    state, weights = learner.optimizer_state(), learner.weights()
    assert (state["step"].dtype, state["step"].shape) == (np.dtype(np.int64), ())
    assert int(state["step"]) == learner.num_steps == 4
    moments = [f"{m}.{name}" for name in names_of(tiny_graph) for m in ("exp_avg", "exp_avg_sq")]
    assert set(state) == {"step", *moments}
    for name in moments:
        of = weights[name.partition(".")[2]]
        assert (state[name].dtype, state[name].shape) == (of.dtype, of.shape)
        assert state[name].any()
    assert all((state[name] >= 0).all() for name in moments if "_sq" in name)


def test_sgd_remembers_nothing(tiny_graph: Graph) -> None:
    learner = made_learner(tiny_graph, optimizer="sgd")
    train(learner, 0)
    assert learner.optimizer_state() == {}
    learner.load_optimizer_state({})


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_it_gives_it_takes(tiny_graph: Graph, optimizer: str, used: bool) -> None:
    first = made_learner(tiny_graph, optimizer=optimizer)
    train(first, 0)
    state = first.optimizer_state()
    other = made_learner(tiny_graph, optimizer=optimizer, seed=6)
    if used:
        train(other, 0)
        train(other, 1)
    other.load_optimizer_state(state)
    other.load_weights(first.weights())
    assert_equal(other.optimizer_state(), state)
    assert_equal(other.weights(), first.weights())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_it_gives_is_a_copy(tiny_graph: Graph, optimizer: str) -> None:
    learner = made_learner(tiny_graph, optimizer=optimizer)
    train(learner, 0)
    given = {**learner.weights(), **learner.optimizer_state()}
    before = {name: array.copy() for name, array in given.items()}
    train(learner, 1)
    assert_equal(given, before)
    other = made_learner(tiny_graph, optimizer=optimizer)
    other.load_weights({name: given[name] for name in names_of(tiny_graph)})
    rest = {name: array for name, array in given.items() if name not in names_of(tiny_graph)}
    other.load_optimizer_state(rest)
    train(other, 1)  # moves its own copy
    assert_equal(given, before)


@pytest.mark.parametrize("step", [0, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"optimizer": "adam"}, id="adam"),
        pytest.param({"optimizer": "adam", "weight_decay": 0.01}, id="adam, decay"),
        pytest.param({"optimizer": "sgd", "lr": 0.3}, id="sgd"),
        pytest.param({"lr_schedule": "cosine", "warmup_epochs": 2}, id="adam, cosine"),
    ],
)
def test_training_goes_on_as_if_it_had_not_stopped(
    tiny_graph: Graph, tmp_path: Path, changes: dict[str, Any], precision: str, step: int
) -> None:
    """Through the bytes of a checkpoint, from a step in the midst of the second epoch."""
    changes = {**changes, "precision": precision}
    whole = made_learner(tiny_graph, **changes)
    checkpoints = Checkpoints(str(tmp_path), made_config(**changes), "f" * 64, 1, "run")
    progress, losses = RunProgress(1), []

    def save() -> None:
        checkpoints.save_last(whole.weights(), whole.optimizer_state(), progress, {})

    def after_step(loss: float) -> None:
        losses.append(loss)
        if progress.step == step:
            save()

    train(whole, 0)
    save()
    whole.train_epoch(progress, after_step)
    later = train(whole, 2)

    state = state_of(checkpoints.read_last())
    rest = made_learner(tiny_graph, **changes)
    rest.load_weights(state.weights)
    rest.load_optimizer_state(state.optimizer)
    assert (state.progress.epoch, state.progress.step) == (1, step)
    assert train(rest, 1, step) == losses[step:]
    assert train(rest, 2) == later
    assert_equal(rest.weights(), whole.weights())
    assert_equal(rest.optimizer_state(), whole.optimizer_state())


def test_a_lost_optimizer_would_be_noticed(tiny_graph: Graph) -> None:
    whole, rest = made_learner(tiny_graph), made_learner(tiny_graph)
    train(whole, 0)
    rest.load_weights(whole.weights())
    assert train(rest, 1)[1:] != train(whole, 1)[1:]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_warm_up_changes_nothing(tiny_graph: Graph, optimizer: str) -> None:
    warmed, other = (made_learner(tiny_graph, optimizer=optimizer) for _ in range(2))
    warmed.warm_up()
    assert_equal(warmed.weights(), other.weights())
    assert warmed.optimizer_state() == {}
    assert train(warmed, 0) == train(other, 0)


def test_weights_of_another_model_are_not_taken(tiny_graph: Graph) -> None:
    learner = made_learner(tiny_graph)
    weights = learner.weights()
    with pytest.raises(RuntimeError, match="layers.0.bias"):
        learner.load_weights({**weights, "layers.0.bias": np.zeros(3, np.float32)})
    del weights["layers.1.bias"]
    with pytest.raises(RuntimeError, match="layers.1.bias"):
        learner.load_weights(weights)
