"""Parallel: what the training loop needs of its fellow ranks. The only file that names horovod.

`OneProcess` has no fellows; `HorovodProcess` meets them in Horovod's collectives, and the
`ProcessGroup` of `baselines` in torch.distributed. The loop takes any of them, so the same code
runs on one process and on sixty-four.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnn_core.launch import launched_size, seconds_until_killed, stop_without_launcher
from gnn_core.report.machine import host_name
from gnn_core.sockets import OpenedSockets
from gnn_core.training.fellows import Fellows, Lost, Stopped, WorldChanged
from gnn_core.usage import UsageError

_POLL_SECONDS = 50e-6
_SILENT_SECONDS = 20  # until a host of an elastic world that says nothing is taken for lost


class OneProcess(Fellows):
    """The world of a single process."""

    starts_four: str | None = None  # a command that starts four ranks, where there can be several

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the ranks."""
        return tensor

    def broadcast_(self, tensor: Tensor, root: int = 0) -> Tensor:
        """Replace `tensor` by that of rank `root`."""
        return tensor

    def sum(self, vector: np.ndarray) -> np.ndarray:
        """The sum of `vector` over the ranks, in a new array."""
        return self.sum_(torch.from_numpy(vector.copy())).numpy()

    def broadcast(self, array: np.ndarray, root: int = 0) -> np.ndarray:
        """The array of rank `root`."""
        return self.broadcast_(torch.from_numpy(array), root).numpy()

    def without_answer(self, reason: str) -> Stopped | Lost:
        """What it means that a collective has failed."""
        if self.stop_signal is not None:  # the launcher has told the others, and this one
            return Stopped()
        return Lost(
            f"some rank answers no more ({reason}); start all again, with --resume to go on from "
            "the last checkpoint"
        )


class HorovodProcess(OneProcess):
    """One of several ranks that meet in Horovod's ring allreduce.

    Under `horovodrun` with `--host-discovery-script` or `--min-np` the world is elastic: whatever
    waits for other ranks raises WorldChanged when one has gone, and `hosts_changed` is set on rank
    0 when others are to join. The process then disbands this world and makes a new one.
    """

    starts_four = "horovodrun -np 4 python horovod_gnn/train.py"

    def __init__(self) -> None:
        super().__init__()
        # A step has one collective, of about a megabyte: name a missing rank soon.
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", "20")
        try:
            import horovod.torch as hvd
            from horovod.common.elastic import notification_manager
        except ImportError as error:
            raise UsageError(
                f"expected Horovod with its PyTorch part, got {error}: run `make install`, and "
                "`make doctor` to see what is missing"
            ) from None
        # An allreduce begins when it is asked for (gnn_core/env/horovod_wake.patch), and idle ranks
        # ask each other for news every 20 ms. Without that patch it begins at the next cycle.
        os.environ.setdefault("HOROVOD_WAKE_ON_ENQUEUE", "1")
        wakes = hasattr(hvd, "wake_on_enqueue_built")
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "20" if wakes else "0.5")  # milliseconds
        # Told to stop, a rank still waits for the others, but not until it is killed unsaved.
        self._grace_seconds = 0.6 * seconds_until_killed()
        self._hvd, self._news = hvd, notification_manager
        self.elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
        if self.elastic:  # before there is a world: a host that is found meanwhile is not missed
            # So long may it take a rank to join: when this time is out, Gloo aborts all of them.
            os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", "120")
            self._news.init()
            self._news.register_listener(self)
        stop_without_launcher()
        self._sockets = OpenedSockets()
        try:
            with self._sockets:
                hvd.init()
        except ValueError:  # it says no more, and its reason, if any, in a log of its own
            raise Lost("cannot join the other ranks: they or the launcher have gone") from None
        self.rank = hvd.rank()
        self.world_size = hvd.size()
        self.local_rank = hvd.local_rank()
        self.controller = "mpi" if hvd.mpi_enabled() else "gloo"
        if self.elastic:
            self._sockets.miss_after(_SILENT_SECONDS)
            # What a process was started with names its rank in the first of its worlds.
            os.environ |= {"HOROVOD_RANK": str(self.rank), "HOROVOD_SIZE": str(self.world_size)}
        elif self.world_size != launched_size():
            raise UsageError(
                f"{launched_size()} processes were launched but Horovod sees {self.world_size}: "
                "the launcher and Horovod use different MPIs; `make doctor` shows both"
            )
        try:
            self.rank_hosts = self.gather(host_name())
        except WorldChanged:
            self.disband()
            raise

    def on_hosts_updated(self, timestamp: float, update: int) -> None:
        """Called by Horovod, in a thread of its own, when the launcher has found other hosts."""
        self.hosts_changed = True

    def disband(self) -> None:
        """Leave a world that has changed, whoever of it is still there."""
        self._news.remove_listener(self)
        self._hvd.shutdown()
        self._sockets.shut()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the ranks: one allreduce."""
        staged = self._staged(tensor)
        self._meet(self._hvd.allreduce_async_, staged, op=self._hvd.Sum, name="sum")
        return tensor if staged is tensor else tensor.copy_(staged)

    def broadcast_(self, tensor: Tensor, root: int = 0) -> Tensor:
        """Replace `tensor` by that of rank `root`."""
        staged = self._staged(tensor)
        self._meet(self._hvd.broadcast_async_, staged, root, name="broadcast")
        return tensor if staged is tensor else tensor.copy_(staged)

    def gather(self, value: Any) -> list[Any]:
        """A JSON-able value of every rank, in the order of ranks, on every rank."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(text)])
        sizes = self._meet(self._hvd.allgather_async, size, name="gather_sizes")
        whole = self._meet(self._hvd.allgather_async, text, name="gather")
        return [json.loads(part.numpy().tobytes()) for part in whole.split(sizes.tolist())]

    def _staged(self, tensor: Tensor) -> Tensor:
        """The tensor itself, or a copy in host memory if Horovod cannot reach a GPU's."""
        return tensor.cpu() if tensor.is_cuda and not self._hvd.nccl_built() else tensor

    def _meet(self, begin: Callable[..., int], *arguments: Any, **options: Any) -> Tensor:
        """Begin a collective and wait for it. Unlike Horovod's own wait this can be interrupted.

        Raises Stopped when this rank was told to stop and the others do not come any more. When one
        of them has gone without a word: WorldChanged in an elastic world, Lost in any other.

        Polling leaves the core to Horovod's background thread and lets signal handlers run; when a
        rank has died, the launcher's SIGTERM finds this loop and not a call that never returns.
        """
        deadline = None
        try:
            handle = begin(*arguments, **options)
            while not self._hvd.poll(handle):
                time.sleep(_POLL_SECONDS)
                if self.stop_signal is not None:
                    deadline = deadline or time.monotonic() + self._grace_seconds
                    if time.monotonic() > deadline:
                        raise Stopped
            return self._hvd.synchronize(handle)
        except RuntimeError as error:  # HorovodInternalError, from any of the three
            if self.elastic:
                raise WorldChanged from None
            raise self.without_answer(" ".join(str(error).split())) from None
