"""Checkpoints that are written beside training: in order, whole, and no error is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.config import RunConfig, UsageError
from gnn_core.training import checkpoint
from gnn_core.training.checkpoint import BEST, LAST, PREVIOUS, Checkpoints, state_of
from gnn_core.training.saver import Saver
from gnn_core.training.state import RunProgress
from tests.patience import patient


class SlowDisk:
    """Stands in for `replace_file`: nothing is written before `let`."""

    def __init__(self) -> None:
        self.replace, self.begun, self.may = (
            checkpoint.replace_file,
            threading.Event(),
            threading.Event(),
        )
        self.problem: OSError | None = None

    def __call__(self, *arguments: Any) -> None:
        self.begun.set()
        assert self.may.wait(patient(30))
        if self.problem is not None:
            raise self.problem
        self.replace(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    made = SlowDisk()
    monkeypatch.setattr(checkpoint, "replace_file", made)
    return made


def saver_in(folder: Path) -> Saver:
    return Saver(Checkpoints(str(folder), RunConfig(), "f" * 64, 1, "run-1"))


def place_in(folder: Path, name: str = LAST) -> tuple[int, int]:
    progress = state_of((folder / name).read_bytes()).progress
    return progress.epoch, progress.step


def test_a_save_goes_on_beside_its_caller_with_what_was_true_then(
    tmp_path: Path, disk: SlowDisk
) -> None:
    saver, progress = saver_in(tmp_path), RunProgress(3, 4)
    saver.save_last({"w": np.ones(2)}, {}, progress, {})
    assert disk.begun.wait(patient(30)) and not (tmp_path / LAST).exists()
    progress.begin_next_epoch()
    disk.may.set()
    saver.wait()
    assert place_in(tmp_path) == (3, 4)
    saver.close()


def test_the_next_save_waits_for_the_one_before(tmp_path: Path, disk: SlowDisk) -> None:
    saver = saver_in(tmp_path)
    saver.save_last({}, {}, RunProgress(0, 1), {})
    saver.save_best({}, RunProgress(0, 9))  # of another kind: it does not wait
    second = threading.Thread(target=saver.save_last, args=({}, {}, RunProgress(0, 2), {}))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    disk.may.set()
    second.join(patient(30))
    assert not second.is_alive()
    saver.wait()
    assert place_in(tmp_path) == (0, 2) and place_in(tmp_path, PREVIOUS) == (0, 1)
    assert place_in(tmp_path, BEST) == (0, 9)
    saver.close()


def test_an_error_comes_with_the_next_call_and_once(tmp_path: Path, disk: SlowDisk) -> None:
    disk.problem = OSError(28, "No space left on device")
    disk.may.set()
    saver = saver_in(tmp_path)
    saver.save_last({}, {}, RunProgress(0, 1), {})
    with pytest.raises(UsageError, match="cannot write .*No space left"):
        saver.save_last({}, {}, RunProgress(0, 2), {})
    disk.problem = None
    saver.save_best({}, RunProgress(0, 3))  # nor is anything written after it
    saver.close()  # which says nothing more
    assert list(tmp_path.iterdir()) == []


def test_close_waits_for_what_is_on_its_way(tmp_path: Path, disk: SlowDisk) -> None:
    saver = saver_in(tmp_path)
    saver.save_last({}, {}, RunProgress(1, 1), {})
    threading.Timer(0.1, disk.may.set).start()
    saver.close()
    assert place_in(tmp_path) == (1, 1)
