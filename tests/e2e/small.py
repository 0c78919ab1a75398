"""A run small enough for a test, as a user would type it, and what is left of it."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord

ROOT = Path(__file__).resolve().parents[2]
SINGLE = str(ROOT / "baselines" / "single.py")
DDP = str(ROOT / "baselines" / "ddp.py")
TRAIN = str(ROOT / "horovod_gnn" / "train.py")
LAUNCHERS = Path(sys.executable).parent
DATASET = "synthetic:papers=2000,num_features=16,num_topics=8"
# In fp64, so that curves of different ranks can be told to be the same one.
SETTINGS = {
    "dataset": DATASET,
    "hidden": 16,
    "fanouts": "5,5",
    "epochs": 2,
    "global_batch_size": 128,
    "precision": "fp64",
    "lr": 0.01,
    "dropout": 0.3,
    "input_dropout": 0.1,
    "device": "cpu",
}
# Under mpirun, which containers start as root; ranks that have failed are not waited for long.
LAUNCHING = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PATH": f"{LAUNCHERS}{os.pathsep}{os.environ.get('PATH', '')}",
}


@dataclass(frozen=True)
class Place:
    """Where a test keeps what its runs write."""

    folder: Path  # the test's own
    cache: Path  # prepared graphs, shared by all tests

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return self.folder / "records"

    @property
    def saved(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "saved"

    def flags(self, **changes: Any) -> list[str]:
        """The words after `train.py`; a change to None leaves a setting out, True is a switch."""
        given = {**SETTINGS, "cache_dir": self.cache, "records": self.records, **changes}
        words = []
        for name, value in given.items():
            flag = "--" + name.replace("_", "-")
            if value is True:
                words.append(flag)
            elif value is not None:
                words += [flag, str(value)]
        return words

    def saving(self, **changes: Any) -> list[str]:
        """The same, with checkpoints in `saved`."""
        return self.flags(checkpoint_dir=self.saved, **changes)

    def all_records(self) -> list[RunRecord]:
        """Every record so far, oldest first; one that cannot be used fails the test."""
        records, problems = read_records(self.records)
        assert problems == []
        return records

    def record(self) -> RunRecord:
        """The newest record."""
        return self.all_records()[-1]


def assert_same_curve(parts: Sequence[RunRecord], whole: RunRecord, rounding: float) -> None:
    """The step losses of `parts`, one after the other, are those of `whole`; so is the result."""
    losses = [loss for part in parts for loss in part.step_losses or []]
    assert len(losses) == len(whole.step_losses or []) > 0
    for ours, theirs in zip(losses, whole.step_losses or [], strict=True):
        assert ours is not None
        assert math.isclose(ours, theirs or 0.0, rel_tol=rounding)
    for name in ("test_accuracy", "valid_accuracy", "best_epoch"):
        assert parts[-1].final[name] == whole.final[name]


def plain_json(path: Path) -> Any:
    """The one line of a record file, read by nothing but the standard library."""
    (line,) = path.read_text(encoding="utf-8").splitlines()
    return json.loads(line)
