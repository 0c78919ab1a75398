"""A checkpoint's state is compared with the run before anything of it is used."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")

from gnn_core.config import UsageError
from gnn_core.data.graph import Graph
from gnn_core.training.checkpoint import LAST, Checkpoints, has_checksum, state_of
from gnn_core.training.state import RunProgress, Weights
from horovod_gnn.learner import TorchLearner
from tests.unit.test_learner import made_config, made_learner

pytestmark = pytest.mark.needs_torch
Arrays = dict[str, Weights]  # model, optimizer, best


@pytest.fixture
def learner(tiny_graph: Graph) -> TorchLearner:
    """Give a learner after one epoch."""
    made = made_learner(tiny_graph)
    made.train_epoch(RunProgress(0), lambda loss: None)
    return made


def saved(folder: Path, **settings: Any) -> Checkpoints:
    return Checkpoints(str(folder), made_config(**settings), "f" * 64, 1, "run")


def save(
    folder: Path, learner: TorchLearner, change: Callable[[Arrays], object], **progress: Any
) -> None:
    weights = learner.weights()
    arrays = {"model": weights, "optimizer": learner.optimizer_state(), "best": dict(weights)}
    change(arrays)
    where = dataclasses.replace(RunProgress(1, best_score=0.5, best_epoch=0), **progress)
    saved(folder).save_last(arrays["model"], arrays["optimizer"], where, arrays["best"])


def refusal(folder: Path, learner: TorchLearner, **settings: Any) -> str:
    with pytest.raises(UsageError) as caught:
        saved(folder, **settings).read_last(learner)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def setting(part: str, name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[part][name] = change(arrays[part][name])

    return apply


BIAS = "layers.0.bias"
ARRAYS: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "no moments": (setting("optimizer", f"exp_avg.{BIAS}", lambda a: a[:0]), "got float32 [0]"),
    "a moment for all": (setting("optimizer", f"exp_avg_sq.{BIAS}", lambda a: a[:1]), "[1]"),
    "moments of 64 bits": (
        setting("optimizer", f"exp_avg.{BIAS}", lambda a: a.astype(float)),
        "got float64",
    ),
    "a missing moment": (lambda a: a["optimizer"].pop(f"exp_avg.{BIAS}"), "no such array"),
    "no optimizer": (lambda a: a["optimizer"].clear(), "no such array"),
    "a stranger": (lambda a: a["optimizer"].update(x=np.zeros(1)), "optimizer.x: expected no such"),
    "steps of another type": (setting("optimizer", "step", lambda a: a.astype("f4")), "int64 []"),
    "many steps": (setting("optimizer", "step", lambda a: a[None]), "got int64 [1]"),
    "other steps": (setting("optimizer", "step", lambda a: a + 1), "has made"),
    "a shorter weight": (setting("model", BIAS, lambda a: a[:3]), f"model.{BIAS}: expected"),
    "a wider weight": (setting("model", BIAS, lambda a: a.astype(float)), "got float64"),
    "half a best": (lambda a: a["best"].pop(BIAS), f"best.{BIAS}: expected"),
    "no best": (lambda a: a["best"].clear(), "best."),
    "another best": (setting("best", BIAS, lambda a: a[None]), f"best.{BIAS}: expected"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_every_array_is_the_one_that_the_run_has(
    tmp_path: Path, learner: TorchLearner, case: str
) -> None:
    change, message = ARRAYS[case]
    save(tmp_path, learner, change)
    assert message in refusal(tmp_path, learner)


PROGRESS: list[dict[str, Any]] = [
    {"epoch": -1},
    {"step": -1},
    {"step": 10**6},
    {"epoch": 1.5},
    {"epoch": None},
    {"epoch": True},
    {"step": "1"},
    {"tally": [0.0, 0.0]},
    {"tally": [math.nan, 0.0, 0.0]},
    {"tally": [-1.0, 0.0, 0.0]},
    {"tally": [1.0, 1.0, 1.0]},
    {"num_sampled_edges": -1},
    {"best_score": math.nan},
    {"best_score": 2.0},
    {"best_score": -0.5},
    {"best_epoch": 7},
    {"best_epoch": -2},
    {"best_epoch": 1},
    {"evaluations_without_gain": -3},
    {"evaluations_without_gain": 99},
    {"best_epoch": -1, "best_score": 0.4},
    {"step": 1, "tally": [1.0, 90.0, 21.0]},
    {"step": 1, "tally": [1.0, 1.0, 22.0]},
]


@pytest.mark.parametrize("progress", PROGRESS, ids=str)
def test_progress_is_one_that_the_run_can_have(
    tmp_path: Path, learner: TorchLearner, progress: dict[str, Any]
) -> None:
    save(tmp_path, learner, lambda arrays: None, **progress)
    assert LAST in refusal(tmp_path, learner)


def test_what_a_run_saves_fits(tmp_path: Path, learner: TorchLearner, tiny_graph: Graph) -> None:
    save(tmp_path, learner, lambda arrays: None)
    assert saved(tmp_path).read_last(made_learner(tiny_graph))
    fresh = made_learner(tiny_graph)
    saved(tmp_path).save_last(fresh.weights(), fresh.optimizer_state(), RunProgress(), {})
    assert saved(tmp_path).read_last(fresh)


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path, learner: TorchLearner) -> None:
    save(tmp_path, learner, lambda arrays: None)
    assert saved(tmp_path, epochs=1).read_last(learner)
    save(
        tmp_path,
        learner,
        setting("optimizer", "step", lambda a: a + 1),
        step=1,
        tally=[1.0, 1.0, 21.0],
    )
    assert "--epochs 1: expected at least the 2 epochs" in refusal(tmp_path, learner, epochs=1)


def test_a_learner_takes_no_other_arrays(learner: TorchLearner) -> None:
    state = learner.optimizer_state()
    for array in (np.zeros(0, np.float32), np.zeros((), np.float32), np.zeros(1, np.float32)):
        with pytest.raises(ValueError, match=f"exp_avg.{BIAS}: expected"):
            learner.load_optimizer_state({**state, f"exp_avg.{BIAS}": array})


def test_no_bit_of_a_checkpoint_turns_without_a_word(tmp_path: Path, learner: TorchLearner) -> None:
    save(tmp_path, learner, lambda arrays: None)
    path, random = tmp_path / LAST, np.random.default_rng(2)
    before = path.read_bytes()
    whole = state_of(before)
    for _ in range(200):
        data = bytearray(before)
        data[place := random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            found = state_of(saved(tmp_path).read_last(learner))
        except UsageError:
            continue
        assert 8 < place < 80, "only the name of the checksum may turn"
        assert found.progress == whole.progress


def test_a_checkpoint_without_a_checksum_is_read(tmp_path: Path, learner: TorchLearner) -> None:
    save(tmp_path, learner, lambda arrays: None)
    path = tmp_path / LAST
    with safetensors.safe_open(path, "np") as file:
        header = json.loads(file.metadata()["ringsage"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert has_checksum(path.read_bytes())
    del header["sha256"]
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"ringsage": json.dumps(header)}))
    assert not has_checksum(data := saved(tmp_path).read_last(learner))
    assert state_of(data).progress.epoch == 1


def test_a_pipe_of_that_name_is_refused(tmp_path: Path, learner: TorchLearner) -> None:
    import os

    os.mkfifo(tmp_path / LAST)
    assert "got a pipe" in refusal(tmp_path, learner)
