"""Checkpoints are written by a thread, so that training does not wait for the disk."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gnn_core.training.checkpoint import Checkpoints
from gnn_core.training.state import RunProgress, Weights
from gnn_core.usage import UsageError


class Saver:
    """Saves in a thread, in the order of the calls. Arrays that it was given must not change.

    At most one checkpoint of each kind is on its way: the next one waits for it. After one that
    could not be written, no other is.

    Args:
        checkpoints: where to.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._begun: dict[str, Future[None]] = {}
        self._has_failed = False

    def save_last(
        self, weights: Weights, optimizer: Weights, progress: RunProgress, best: Weights
    ) -> None:
        """Begin `Checkpoints.save_last`. Raises UsageError where the one before failed."""
        save = self._checkpoints.save_last
        self._begin("last", save, weights, optimizer, copy.deepcopy(progress), best)

    def save_best(self, weights: Weights, progress: RunProgress) -> None:
        """Begin `Checkpoints.save_best`. Raises UsageError where the one before failed."""
        self._begin("best", self._checkpoints.save_best, weights, copy.deepcopy(progress))

    def wait(self) -> None:
        """Wait until all is on the disk. Raises UsageError where some could not be written."""
        while self._begun:
            self._begun.pop(next(iter(self._begun))).result()

    def close(self) -> None:
        """Wait, whatever becomes of it, and save no more."""
        with contextlib.suppress(UsageError):
            self.wait()
        self._thread.shutdown()

    def _begin(self, kind: str, save: Callable[..., None], *arguments: Any) -> None:
        if before := self._begun.pop(kind, None):
            before.result()
        self._begun[kind] = self._thread.submit(self._write, save, *arguments)

    def _write(self, save: Callable[..., None], *arguments: Any) -> None:
        if self._has_failed:
            return
        try:
            save(*arguments)
        except BaseException:
            self._has_failed = True
            raise
