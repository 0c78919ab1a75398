"""Checkpoints: whole or not there, of this run or refused, and never trusted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from gnn_core.config import RunConfig, UsageError
from gnn_core.training import checkpoint
from gnn_core.training.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    UNFINISHED,
    Checkpoints,
    State,
    state_of,
    weights_of,
)
from gnn_core.training.claim import claimed
from gnn_core.training.state import RunProgress, Weights

PROGRESS = RunProgress(2, 7, [1.5, 3.0, 9.0], 1234, 0.75, 1, 2)


def made(folder: Path | None, fingerprint: str = "f" * 64, ranks: int = 1, **settings: Any):
    """The checkpoints of a run with these settings."""
    config = RunConfig(**settings)
    return Checkpoints(str(folder) if folder else None, config, fingerprint, ranks, "run-1")


def made_weights(seed: int = 1, dtype: npt.DTypeLike = np.float32) -> Weights:
    """Weights of two layers."""
    random = np.random.default_rng(seed)
    shapes = {
        "layers.0.weight": (9, 14),
        "layers.0.bias": (9,),
        "layers.1.weight": (5, 18),
        "layers.1.bias": (5,),
    }
    return {name: random.random(shape).astype(dtype) for name, shape in shapes.items()}


def made_memory(seed: int = 1, dtype: npt.DTypeLike = np.float32) -> Weights:
    """What Adam remembers after 41 steps."""
    weights = made_weights(seed + 100, dtype).items()
    moments = {f"{m}.{n}": array for m in ("exp_avg", "exp_avg_sq") for n, array in weights}
    return {"step": np.array(41, np.int64), **moments}


def save(checkpoints: Checkpoints, seed: int = 1) -> Weights:
    """Save weights made from a seed; the weights."""
    weights = made_weights(seed)
    best = {"layers.0.bias": np.ones(2, np.float32)}
    checkpoints.save_last(weights, made_memory(seed), PROGRESS, best)
    return weights


def load(checkpoints: Checkpoints) -> State:
    """What `last.safetensors` holds."""
    data = checkpoints.read_last()
    assert data
    return state_of(data)


def assert_equal(ours: Weights, theirs: Weights) -> None:
    """The same names, types, shapes and bits."""
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == array.tobytes(), name


def assert_holds(checkpoints: Checkpoints, weights: Weights) -> None:
    assert_equal(load(checkpoints).weights, weights)


def refusal(action: Callable[[], Any]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UsageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    weights = save(made(tmp_path / "new" / "folder"))
    state = load(made(tmp_path / "new" / "folder"))
    assert_equal(state.weights, weights)
    assert_equal(state.optimizer, made_memory())
    assert_equal(state.best, {"layers.0.bias": np.ones(2, np.float32)})
    assert state.progress == PROGRESS
    assert state.run_id == "run-1"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_array_keeps_its_type_shape_and_bits(tmp_path: Path, dtype: type) -> None:
    odd = np.array([np.nan, np.inf, -0.0, 5e-324, 1 / 3], dtype)
    weights = {"odd": odd, "none": np.empty((0, 3), dtype), **made_weights(dtype=dtype)}
    made(tmp_path).save_last(weights, made_memory(dtype=dtype), PROGRESS, {})
    state = load(made(tmp_path))
    assert_equal(state.weights, weights)
    assert_equal(state.optimizer, made_memory(dtype=dtype))
    assert state.optimizer["step"].shape == ()
    assert int(state.optimizer["step"]) == 41
    assert state.best == {}


def test_progress_comes_back_digit_by_digit(tmp_path: Path) -> None:
    progress = RunProgress(3, 0, [0.1 + 0.2, 1e-300, 2.0**53], 2**60, 1 / 3, 2, 0)
    made(tmp_path).save_last(made_weights(), {}, progress, {})
    assert load(made(tmp_path)).progress == progress
    assert load(made(tmp_path)).optimizer == {}  # as of SGD


def test_how_an_array_lies_in_memory_does_not_matter(tmp_path: Path) -> None:
    square = made_weights()["layers.0.weight"]
    weights = {"turned": square.T, "sparse": square[::2, ::3], "backwards": square[::-1]}
    made(tmp_path).save_last(weights, {}, PROGRESS, {})
    assert_equal(load(made(tmp_path)).weights, weights)


def test_the_best_weights_lie_beside(tmp_path: Path) -> None:
    weights = made_weights()
    made(tmp_path).save_best(weights, PROGRESS)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert_equal(weights_of(tmp_path / BEST), weights)
    assert state_of((tmp_path / BEST).read_bytes()).progress == PROGRESS
    assert made(tmp_path).read_last() == b""
    save(made(tmp_path), seed=2)
    assert_equal(weights_of(tmp_path / LAST), made_weights(2))


def test_the_best_weights_alone_are_not_gone_on_with(tmp_path: Path) -> None:
    made(tmp_path).save_best(made_weights(), PROGRESS)
    (tmp_path / BEST).rename(tmp_path / LAST)
    assert "has no optimizer in it" in refusal(made(tmp_path).read_last)


def test_any_reader_of_the_format_can_read_it(tmp_path: Path) -> None:
    weights = save(made(tmp_path))
    arrays = safetensors.numpy.load_file(tmp_path / LAST)
    assert_equal({name: arrays[f"model.{name}"] for name in weights}, weights)
    assert {name.split(".")[0] for name in arrays} == {"model", "optimizer", "best"}
    with safetensors.safe_open(tmp_path / LAST, "np") as file:
        header = json.loads(file.metadata()["ringsage"])
    assert header["settings"] == RunConfig().curve_settings()


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoints = made(None)
    save(checkpoints)
    checkpoints.save_best(made_weights(), PROGRESS)
    checkpoints.require_free()
    assert checkpoints.read_last() == b""


def test_a_folder_in_use_is_not_started_over(tmp_path: Path) -> None:
    made(tmp_path).require_free()
    save(made(tmp_path))
    message = refusal(made(tmp_path).require_free)
    assert "--resume" in message
    assert "--checkpoint-dir" in message


def test_only_whole_files_remain(tmp_path: Path) -> None:
    save(made(tmp_path))
    save(made(tmp_path), seed=2)
    assert names(tmp_path) == [LAST, PREVIOUS]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    """And does not take its place, so that the run can be lost a second time."""
    for seed in (1, 2, 3):
        save(made(tmp_path), seed=seed)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-5])
    checkpoints = made(tmp_path)
    assert_equal(state_of(checkpoints.read_last()).weights, made_weights(2))
    assert checkpoints.damage is not None and LAST in checkpoints.damage
    save(checkpoints, seed=4)
    assert_holds(made(tmp_path), made_weights(4))
    assert_equal(weights_of(tmp_path / PREVIOUS), made_weights(2))
    save(checkpoints, seed=5)
    assert_equal(weights_of(tmp_path / PREVIOUS), made_weights(4))


@pytest.mark.parametrize("settings", [{}, {"hidden": 7}])
def test_where_the_one_before_is_of_no_use_either_the_damage_is_told(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    for seed in (1, 2):
        save(made(tmp_path), seed=seed)
    (tmp_path / LAST).write_bytes(b"")
    if not settings:
        (tmp_path / PREVIOUS).write_bytes(b"")
    message = refusal(made(tmp_path, **settings).read_last)
    assert LAST in message and "damaged or foreign" in message


class HalfWritten:
    """A file that takes half of what is written to it; then something happens."""

    def __init__(self, file: BinaryIO, then: Callable[[], None]):
        self._file, self._then = file, then

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._then()


def half_written(then: Callable[[], None]) -> Callable[..., Any]:
    """What to put in the place of `Path.open`."""
    whole_open = Path.open

    @contextlib.contextmanager
    def opened(path: Path, mode: str) -> Iterator[HalfWritten]:
        with whole_open(path, mode) as file:
            yield HalfWritten(file, then)

    return opened


def interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["while writing", "before it is on the disk", "before renaming"])
def test_an_interruption_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    weights = save(made(tmp_path))
    target: tuple[Any, str, Any] = {
        "while writing": (Path, "open", half_written(interrupted)),
        "before it is on the disk": (checkpoint.os, "fsync", interrupted),
        "before renaming": (Path, "replace", interrupted),
    }[where]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*target)
        save(made(tmp_path), seed=2)
    assert_holds(made(tmp_path), weights)
    assert_holds(made(tmp_path), made_weights(1))
    save(made(tmp_path), seed=2)
    assert_holds(made(tmp_path), made_weights(2))
    assert set(names(tmp_path)) <= {LAST, PREVIOUS}


def test_it_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda *args: (done.append("rename"), replace(*args)))
    save(made(tmp_path))
    assert done == ["sync", "rename"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_checkpoint import half_written, made, save
save(made(Path(sys.argv[1])))
Path.open = half_written(lambda: os.kill(os.getpid(), signal.SIGKILL))
save(made(Path(sys.argv[1])), seed=2)
"""


def test_a_kill_leaves_the_old_one(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli(["python", "-c", KILLED, str(tmp_path)])
    assert done.returncode == -9, done.stderr
    assert_holds(made(tmp_path), made_weights())
    (unfinished,) = tmp_path.glob(".last.safetensors.*")
    assert 0 < unfinished.stat().st_size < (tmp_path / LAST).stat().st_size
    weights = save(made(tmp_path), seed=2)
    assert_holds(made(tmp_path), weights)
    with claimed(tmp_path, "next", f".*{UNFINISHED}"):  # as the next run does
        assert not unfinished.exists()


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    save(made(tmp_path))
    data = (tmp_path / LAST).read_bytes()
    assert len(data) > 4000
    for length in [*range(64), *range(64, len(data), 37), len(data) - 1]:
        (tmp_path / LAST).write_bytes(data[:length])
        message = refusal(made(tmp_path).read_last)
        assert "damaged or foreign" in message, length
        assert str(tmp_path / LAST) in message
        assert "damaged or foreign" in refusal(lambda: weights_of(tmp_path / LAST))


def test_a_file_with_something_after_it_is_refused(tmp_path: Path) -> None:
    save(made(tmp_path))
    with (tmp_path / LAST).open("ab") as file:
        file.write(b"more")
    assert "damaged or foreign" in refusal(made(tmp_path).read_last)


def test_a_header_that_was_changed_is_refused_or_read(tmp_path: Path) -> None:
    """Whatever byte of the header is another one: a UsageError, or a state; nothing else."""
    save(made(tmp_path))
    data = bytearray((tmp_path / LAST).read_bytes())
    length = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for place in [*range(8), *range(8, length, 11)]:
        changed = data.copy()
        changed[place] ^= 0x15
        (tmp_path / LAST).write_bytes(changed)
        try:
            load(made(tmp_path))
        except UsageError:
            refused += 1
    assert refused > 0


FOREIGN: dict[str, Any] = {
    "no header": None,
    "header without ours": {"format": "pt"},
    "ours is no JSON": {"ringsage": "hello"},
    "ours is a list": {"ringsage": "[1, 2]"},
    "ours is empty": {"ringsage": "{}"},
    "progress is a number": {"ringsage": '{"progress": 3}'},
    "progress of another kind": {"ringsage": '{"progress": {"lap": 3}, "run_id": ""}'},
    "no identity": {"ringsage": '{"progress": {}, "run_id": "", "file": "last.safetensors"}'},
}


@pytest.mark.parametrize("metadata", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_program_is_refused(tmp_path: Path, metadata: Any) -> None:
    data = safetensors.numpy.save({"model.a": np.zeros(3)}, metadata=metadata)
    (tmp_path / LAST).write_bytes(data)
    message = refusal(made(tmp_path).read_last)
    assert "damaged or foreign" in message
    assert str(tmp_path / LAST) in message


def test_arrays_that_nobody_saved_are_refused(tmp_path: Path) -> None:
    save(made(tmp_path))
    with safetensors.safe_open(tmp_path / LAST, "np") as file:
        metadata = file.metadata()
    data = safetensors.numpy.save({"weights.a": np.zeros(3)}, metadata=metadata)
    (tmp_path / LAST).write_bytes(data)
    assert "damaged or foreign" in refusal(made(tmp_path).read_last)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not a checkpoint", id="text"),
        pytest.param(b"PK\x03\x04" + bytes(500), id="zip, as torch writes"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(500), id="HDF5, as Keras writes"),
        pytest.param(struct.pack("<Q", 2**63) + bytes(500), id="a header larger than any memory"),
        pytest.param(struct.pack("<Q", 4) + b"null", id="a header that is nothing"),
        pytest.param(struct.pack("<Q", 9000) + b"[" * 9000, id="a header of brackets"),
        pytest.param(bytes(500), id="zeros"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LAST).write_bytes(content)
    assert "damaged or foreign" in refusal(made(tmp_path).read_last)
    assert "damaged or foreign" in refusal(lambda: weights_of(tmp_path / LAST))


def test_weights_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(lambda: weights_of(tmp_path / "none"))


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / LAST).mkdir()
    assert "damaged or foreign" in refusal(made(tmp_path).read_last)


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def written_by(writer: str, content: Any) -> tuple[bytes, Callable[[io.BytesIO], Any]]:
    """A file that unpickles `content`, and the careless way to read it."""
    file = io.BytesIO()
    if writer == "numpy":
        np.savez(file, model=np.array([content], dtype=object))
        return file.getvalue(), lambda file: np.load(file, allow_pickle=True)["model"]
    if writer == "torch":
        torch = pytest.importorskip("torch")
        torch.save({"model": content}, file)
        return file.getvalue(), lambda file: torch.load(file, weights_only=False)
    return pickle.dumps(content, protocol=2), pickle.load


@pytest.mark.parametrize("writer", ["pickle", "numpy", "torch"])
def test_a_malicious_pickle_renamed_does_nothing(tmp_path: Path, writer: str) -> None:
    proof = tmp_path / "proof"
    data, read_carelessly = written_by(writer, Malice(f"touch {proof}"))
    (tmp_path / LAST).write_bytes(data)
    assert "damaged or foreign" in refusal(made(tmp_path).read_last)
    assert "damaged or foreign" in refusal(lambda: weights_of(tmp_path / LAST))
    assert not proof.exists()
    with contextlib.suppress(Exception):  # it would have worked
        read_carelessly(io.BytesIO(data))
    assert proof.exists()


@pytest.mark.parametrize(
    ("before", "now", "reported"),
    [
        ({"lr": 0.1}, {"lr": 0.2}, ["--lr was 0.1, now 0.2"]),
        ({"fanouts": (3, 2)}, {"fanouts": (3, 4)}, ["--fanouts was [3, 2], now [3, 4]"]),
        ({"seed": 1, "hidden": 8}, {"seed": 2, "hidden": 9}, ["--seed was 1", "--hidden was 8"]),
        ({}, {"global_batch_size": 7}, ["--global-batch-size was", "now 7"]),
        ({}, {"precision": "fp64"}, ["--precision was fp32, now fp64"]),
    ],
)
def test_other_settings_are_named_by_their_flags(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], reported: list[str]
) -> None:
    save(made(tmp_path, **before))
    message = refusal(made(tmp_path, **now).read_last)
    assert "another run" in message
    for words in reported:
        assert words in message


def test_settings_that_leave_the_curve_alone_may_change(tmp_path: Path) -> None:
    weights = save(made(tmp_path, epochs=5, prefetch=2), seed=1)
    assert_holds(made(tmp_path, ranks=4, epochs=9, prefetch=0, progress="off"), weights)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    save(made(tmp_path))
    assert "graph has other content" in refusal(made(tmp_path, fingerprint="0" * 64).read_last)


def test_scaling_the_rate_ties_a_run_to_its_number_of_ranks(tmp_path: Path) -> None:
    weights = save(made(tmp_path, ranks=2, scale_lr=True))
    assert "--scale-lr" in refusal(made(tmp_path, ranks=4, scale_lr=True).read_last)
    assert_holds(made(tmp_path, ranks=2, scale_lr=True), weights)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    save(made(tmp_path))
    monkeypatch.undo()
    assert "format is 99, expected 3" in refusal(made(tmp_path).read_last)


@pytest.mark.parametrize("room", [0, 1, 1024, 4000])
def test_a_full_disk_keeps_the_old_one(tmp_path: Path, room: int) -> None:
    weights = save(made(tmp_path))
    assert (tmp_path / LAST).stat().st_size > room
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # as a disk that fills up
    try:
        message = refusal(lambda: save(made(tmp_path), seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write" in message
    assert "intact" in message
    assert_holds(made(tmp_path), weights)
    assert set(names(tmp_path)) <= {LAST, PREVIOUS}


@pytest.mark.parametrize("where", ["writing", "syncing", "renaming"])
def test_every_failure_to_write_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left\non device")

    target: tuple[Any, str, Any] = {
        "writing": (Path, "open", half_written(fail)),
        "syncing": (checkpoint.os, "fsync", fail),
        "renaming": (Path, "replace", fail),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(*target)
        message = refusal(lambda: save(made(tmp_path)))
    assert "--checkpoint-dir" in message
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(lambda: save(made(tmp_path / "file" / "folder")))


WITHOUT_FRAMEWORKS = """
import sys
for name in ("torch", "tensorflow", "keras", "horovod"):
    sys.modules[name] = None  # importing it is an ImportError
from pathlib import Path
from tests.unit.test_checkpoint import assert_equal, made, made_weights, save, weights_of
save(made(Path(sys.argv[1])))
assert_equal(weights_of(Path(sys.argv[1]) / "last.safetensors"), made_weights())
"""


def test_it_needs_no_framework(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli(["python", "-c", WITHOUT_FRAMEWORKS, str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert_holds(made(tmp_path), made_weights())
