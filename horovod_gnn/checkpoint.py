"""Checkpoints: whole or not there at all, and never of another run.

`last.pt` is where a run goes on; `best.pt` holds the weights that did best on the validation split.
Both are tensors and plain values only, so that they can be read without trusting them
(`weights_only=True`).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnn_core.config import RunConfig, UsageError

FORMAT = 1


@dataclass
class Progress:
    """Where a run is: everything that decides how it goes on, besides weights and optimizer."""

    epoch: int = 0  # the next step's epoch
    step: int = 0  # the next step within it
    tally: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # of the epoch so far
    num_sampled_edges: int = 0  # of the epoch so far, over all ranks
    best_accuracy: float = -1.0  # on the validation split
    best_epoch: int = -1
    evaluations_without_gain: int = 0


class Checkpoints:
    """The checkpoints of one run in one folder; None as folder keeps none.

    Args:
        folder: where they lie.
        config: the run's configuration.
        fingerprint: of the graph.
        world_size: number of ranks; matters only with `--scale-lr`.
        run_id: goes into what is saved.
    """

    def __init__(
        self, folder: str | None, config: RunConfig, fingerprint: str, world_size: int, run_id: str
    ):
        self.folder = Path(folder) if folder else None
        self._identity = {
            "format": FORMAT,
            "digest": config.digest(),
            "fingerprint": fingerprint,
            "ranks_scaling_lr": world_size if config.scale_lr else 0,
        }
        self._settings = config.curve_settings()
        self._run_id = run_id

    def save_last(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress,
                  best: dict[str, Tensor]) -> None:  # fmt: skip
        """Replace `last.pt`; a kill at any moment leaves the old one or the new one."""
        self._save("last.pt", {
            **self._identity,
            "run_id": self._run_id,
            "settings": self._settings,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "best": best,
        })  # fmt: skip

    def save_best(self, weights: dict[str, Tensor], progress: Progress) -> None:
        """Replace `best.pt`."""
        content = {"model": weights, "progress": asdict(progress), "settings": self._settings}
        self._save("best.pt", {**self._identity, "run_id": self._run_id, **content})

    def require_free(self) -> None:
        """Refuse to start over where a run has left its checkpoint. Raises UsageError."""
        if self.folder and (self.folder / "last.pt").exists():
            raise UsageError(
                f"{self.folder} already holds the checkpoint of a run: add --resume to go on with "
                "it, or give another --checkpoint-dir"
            )

    def load_last(self) -> dict[str, Any] | None:
        """The content of `last.pt`; None if there is none. Raises UsageError if it does not fit."""
        if not self.folder or not (path := self.folder / "last.pt").exists():
            return None
        try:
            content = dict(torch.load(path, map_location="cpu", weights_only=True))
            found = {name: content[name] for name in self._identity}
        except Exception as error:  # torch raises whatever its parts raise
            raise UsageError(
                f"{path}: expected a checkpoint of Ringsage, got a damaged or foreign file "
                f"({_in_short(error)}): remove it, or give another --checkpoint-dir"
            ) from None
        if found != self._identity:
            raise UsageError(f"{path}: it is of another run: {self._difference(found, content)}")
        return content

    def _difference(self, found: dict[str, Any], content: dict[str, Any]) -> str:
        theirs = content.get("settings", {})
        changed = [
            f"--{name.replace('_', '-')} was {theirs.get(name)}, now {value}"
            for name, value in self._settings.items()
            if theirs.get(name) != value
        ]
        if changed:
            return ", ".join(changed) + "; give it the same settings or another --checkpoint-dir"
        if found["fingerprint"] != self._identity["fingerprint"]:
            return "the graph has other content; prepare the same one or start in another folder"
        if found["ranks_scaling_lr"] != self._identity["ranks_scaling_lr"]:
            return "--scale-lr ties it to another number of ranks"
        return f"its format is {found['format']}, expected {FORMAT}; start in another folder"

    def _save(self, name: str, content: dict[str, Any]) -> None:
        if not self.folder:
            return
        temporary = self.folder / f".{name}.unfinished"  # of a killed run too: it is overwritten
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise UsageError(
                f"cannot write {self.folder / name} ({_in_short(error)}): the checkpoint before it "
                "is intact; make room, or give a --checkpoint-dir that can be written"
            ) from None


def _in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
