"""TensorBoard scalars, written without TensorFlow (`tensorboard --logdir DIR` shows them).

`gnn_core.training.run` opens them and `describe.add_to_curves` adds a point to each per epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

from gnn_core.config import UsageError


class Curves:
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
        except (ImportError, OSError) as error:
            raise UsageError(
                f"--tensorboard {folder}: expected a folder that can be written and the package "
                f"tensorboardX, got: {error}"
            ) from None

    def add(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add a point to each named curve; a `/` in a name groups curves. None is left out."""
        if self._writer is not None:
            for name, value in scalars.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.close()
