"""TensorBoard scalars, written without TensorFlow (`tensorboard --logdir DIR` shows them).

`gnn_core.training.run` opens them and `describe.add_to_curves` adds a point to each per epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gnn_core.config import UsageError
from gnn_core.files import file_stem
from gnn_core.usage import one_line


def folder_of_run(folder: str | None, strategy: str, dataset: str, run_id: str) -> str | None:
    """The run's own folder below `folder`, so that TensorBoard tells runs apart; None without one.

    It ends with the same eight digits as the name of the run's record.
    """
    if folder is None:
        return None
    return str(Path(folder, f"{strategy}-{file_stem(dataset)}-{run_id[:8]}"))


class TensorBoard:
    """Scalars by step in a folder; writes nothing without one.

    Args:
        folder: where the event file goes; None writes none.
    """

    def __init__(self, folder: str | None):
        self._writer = None
        if folder is None:
            return
        try:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(folder)
        except (ImportError, OSError, ValueError) as error:  # ValueError: bytes that are no UTF-8
            raise UsageError(
                f"--tensorboard {folder}: expected a folder that can be written and the package "
                f"tensorboardX, got: {one_line(error)}"
            ) from None

    def add(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add a point to each named curve; a `/` in a name groups curves. None is left out."""
        if self._writer is None:
            return
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered; a note on stderr where that fails: the run is worth more."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except (OSError, ValueError) as error:
            print(f"note       the TensorBoard curves are cut: {one_line(error)}", file=sys.stderr)
