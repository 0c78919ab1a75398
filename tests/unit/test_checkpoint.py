"""Checkpoints: whole or not there, of this run or refused, and never trusted."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
import os
import pickle
import resource
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from horovod_gnn.checkpoint import Checkpoints, Progress

from gnn_core.config import RunConfig, UsageError
from horovod_gnn import checkpoint
from tests.unit.made_models import made_model

pytestmark = pytest.mark.needs_torch

PROGRESS = Progress(2, 7, [1.5, 3.0, 9.0], 1234, 0.75, 1, 2)


def made(folder: Path | None, fingerprint: str = "f" * 64, ranks: int = 1, **settings: Any):
    """The checkpoints of a run with these settings."""
    config = RunConfig(**settings)
    return Checkpoints(str(folder) if folder else None, config, fingerprint, ranks, "run-1")


def save(checkpoints: Checkpoints, seed: int = 1) -> dict[str, torch.Tensor]:
    """Save a model that has made one step; its weights."""
    model = made_model("fp32", seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoints.save_last(model, optimizer, PROGRESS, {"layers.0.bias": torch.ones(2)})
    return weights


def assert_holds(checkpoints: Checkpoints, weights: dict[str, torch.Tensor]) -> None:
    content = checkpoints.load_last()
    assert content is not None
    for name, tensor in weights.items():
        assert torch.equal(content["model"][name], tensor)


def refusal(action: Callable[[], Any]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UsageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    weights = save(made(tmp_path / "new" / "folder"))
    content = made(tmp_path / "new" / "folder").load_last()
    assert_holds(made(tmp_path / "new" / "folder"), weights)
    assert Progress(**content["progress"]) == PROGRESS
    assert content["best"]["layers.0.bias"].tolist() == [1, 1]
    assert content["run_id"] == "run-1"
    model = made_model("fp32", seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    optimizer.load_state_dict(content["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state[model.layers[0].bias]["exp_avg"].any()


def test_the_best_weights_lie_beside(tmp_path: Path) -> None:
    weights = made_model("fp32").state_dict()
    made(tmp_path).save_best(weights, PROGRESS)
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert torch.equal(content["model"]["layers.1.weight"], weights["layers.1.weight"])
    assert content["progress"] == asdict(PROGRESS)
    assert content["settings"] == RunConfig().curve_settings()
    assert made(tmp_path).load_last() is None


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoints = made(None)
    save(checkpoints)
    checkpoints.require_free()
    assert checkpoints.load_last() is None


def test_a_folder_in_use_is_not_started_over(tmp_path: Path) -> None:
    made(tmp_path).require_free()
    save(made(tmp_path))
    message = refusal(made(tmp_path).require_free)
    assert "--resume" in message
    assert "--checkpoint-dir" in message


def test_only_whole_files_remain(tmp_path: Path) -> None:
    save(made(tmp_path))
    save(made(tmp_path), seed=2)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("where", ["while writing", "before renaming"])
def test_an_interruption_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    weights = save(made(tmp_path))

    def interrupted(*arguments: Any) -> None:
        if where == "while writing":
            arguments[1].write(b"half of a checkp")
        raise KeyboardInterrupt

    target = (checkpoint.torch, "save") if where == "while writing" else (Path, "replace")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*target, interrupted)
        save(made(tmp_path), seed=2)
    assert_holds(made(tmp_path), weights)


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from tests.unit.test_checkpoint import made, save
save(made(Path(sys.argv[1])))
def half(content, file):
    file.write(b"half of a checkp")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
save(made(Path(sys.argv[1])), seed=2)
"""


def test_a_kill_leaves_the_old_one(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli(["python", "-c", KILLED, str(tmp_path)])
    assert done.returncode == -9, done.stderr
    assert_holds(made(tmp_path), save(made(tmp_path / "other")))
    assert len(list(tmp_path.glob(".last.pt.*"))) == 1
    weights = save(made(tmp_path), seed=2)
    assert_holds(made(tmp_path), weights)


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    save(made(tmp_path))
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(data[:length])
    assert "damaged or foreign" in refusal(made(tmp_path).load_last)


@pytest.mark.parametrize(
    "content", [torch.zeros(3), {"model": torch.zeros(3)}, [1, 2], None, {"format": 1}, "text"]
)
def test_a_file_of_another_program_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "last.pt")
    message = refusal(made(tmp_path).load_last)
    assert "damaged or foreign" in message
    assert str(tmp_path / "last.pt") in message


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()
    assert "damaged or foreign" in refusal(made(tmp_path).load_last)


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["torch", "pickle", "within a checkpoint"])
def test_a_malicious_pickle_does_nothing(tmp_path: Path, writer: str) -> None:
    proof = tmp_path / "proof"
    malice: Any = Malice(f"touch {proof}")
    if writer == "pickle":
        (tmp_path / "last.pt").write_bytes(pickle.dumps(malice, protocol=2))
    else:
        if writer == "within a checkpoint":
            save(made(tmp_path))
            malice = made(tmp_path).load_last() | {"model": malice}
        torch.save(malice, tmp_path / "last.pt")
    assert "damaged or foreign" in refusal(made(tmp_path).load_last)
    assert not proof.exists()
    with contextlib.suppress(Exception):  # it would have worked
        torch.load(tmp_path / "last.pt", weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"lr": 0.1}, {"lr": 0.2}, ["--lr was 0.1, now 0.2"]),
        ({"fanouts": (3, 2)}, {"fanouts": (3, 4)}, ["--fanouts was [3, 2], now [3, 4]"]),
        ({"seed": 1, "hidden": 8}, {"seed": 2, "hidden": 9}, ["--seed was 1", "--hidden was 8"]),
        ({}, {"global_batch_size": 7}, ["--global-batch-size was", "now 7"]),
        ({}, {"precision": "fp64"}, ["--precision was fp32, now fp64"]),
    ],
)
def test_other_settings_are_named_by_their_flags(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], told: list[str]
) -> None:
    save(made(tmp_path, **before))
    message = refusal(made(tmp_path, **now).load_last)
    assert "another run" in message
    for words in told:
        assert words in message


def test_settings_that_leave_the_curve_alone_may_change(tmp_path: Path) -> None:
    weights = save(made(tmp_path, epochs=5, prefetch=2), seed=1)
    assert_holds(made(tmp_path, ranks=4, epochs=9, prefetch=0, progress="off"), weights)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    save(made(tmp_path))
    assert "graph has other content" in refusal(made(tmp_path, fingerprint="0" * 64).load_last)


def test_scaling_the_rate_ties_a_run_to_its_number_of_ranks(tmp_path: Path) -> None:
    weights = save(made(tmp_path, ranks=2, scale_lr=True))
    assert "--scale-lr" in refusal(made(tmp_path, ranks=4, scale_lr=True).load_last)
    assert_holds(made(tmp_path, ranks=2, scale_lr=True), weights)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    save(made(tmp_path))
    monkeypatch.undo()
    assert "format is 99, expected 1" in refusal(made(tmp_path).load_last)


def test_a_full_disk_keeps_the_old_one(tmp_path: Path) -> None:
    weights = save(made(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # as a disk that fills up
    try:
        message = refusal(lambda: save(made(tmp_path), seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write" in message
    assert "intact" in message
    assert_holds(made(tmp_path), weights)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a\nb")])
def test_every_failure_to_write_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    message = refusal(lambda: save(made(tmp_path)))
    assert "--checkpoint-dir" in message
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(lambda: save(made(tmp_path / "file" / "folder")))
