"""TensorBoard scalars, written without TensorFlow (`tensorboard --logdir DIR` shows them).

An observer of a run; see `gnn_core.training.observers`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gnn_core.config import UsageError
from gnn_core.files import file_stem
from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.measure.timing import OVERLAPPED
from gnn_core.usage import one_line


def folder_of_run(folder: str, strategy: str, dataset: str, run_id: str) -> str:
    """The run's own folder below `folder`, so that TensorBoard tells runs apart.

    It ends with the same eight digits as the name of the run's record.
    """
    return str(Path(folder, f"{strategy}-{file_stem(dataset)}-{run_id[:8]}"))


class TensorBoard:
    """Scalars by epoch in a folder.

    Args:
        folder: where the event file goes.

    Raises:
        UsageError: it cannot be written there.
    """

    def __init__(self, folder: str):
        try:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(folder)
        except (ImportError, OSError, ValueError) as error:  # ValueError: bytes that are no UTF-8
            raise UsageError(
                f"--tensorboard {folder}: expected a folder that can be written and the package "
                f"tensorboardX, got: {one_line(error)}"
            ) from None

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Nothing: curves have a point per epoch."""

    def epoch(self, record: EpochRecord) -> None:
        """Add a point to each curve."""
        seconds = {
            f"seconds/{name}": value
            for name, value in record.sections.items()
            if not name.startswith(OVERLAPPED)
        }
        scalars = {
            "loss/train": record.train_loss,
            "loss/valid": record.valid_loss,
            "accuracy/train": record.train_accuracy,
            "accuracy/valid": record.valid_accuracy,
            "mrr/valid": record.valid_mrr,
            "lr": record.lr,
            "seconds/epoch": record.seconds,
        }
        self.add(record.epoch + 1, scalars | seconds)

    def finished(self, record: RunRecord) -> None:
        """Nothing: the run's record says how it ended."""

    def add(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add a point to each named curve; a `/` in a name groups curves. None is left out."""
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered; a note on stderr where that fails: the run is worth more."""
        try:
            self._writer.close()
        except (OSError, ValueError) as error:
            print(f"note       the TensorBoard curves are cut: {one_line(error)}", file=sys.stderr)
