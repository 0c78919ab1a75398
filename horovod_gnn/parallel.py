"""The ranks of a PyTorch run and their collectives. The only file that names horovod.

`SingleProcess` is one process by itself; the ranks of `HorovodWorld` meet in Horovod's collectives,
and those of `ProcessGroup` (in `baselines`) in torch.distributed. Learner and update take any of
them, so the same code runs on one process and on sixty-four.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnn_core.config import OPTIONS, RunConfig
from gnn_core.data.exchange import Transport
from gnn_core.joining import STORE_ADDRESS, await_ranks_at_store, call_in_time, waited_for_by_mpi
from gnn_core.launch import (
    by_torchrun,
    launched_rank,
    launched_size,
    require_mpi_launcher,
    stop_without_launcher,
)
from gnn_core.network import bypass_proxies
from gnn_core.sockets import OpenedSockets
from gnn_core.training.process_state import threads
from gnn_core.training.world import Lost, Stopped, World, WorldChanged
from gnn_core.usage import UsageError
from horovod_gnn.row_transport import HorovodTransport, MpiTransport

_POLL_SECONDS = 50e-6
_SILENT_SECONDS = 20  # until a host of an elastic world that says nothing is taken for lost
_LATER_SECONDS = 30  # than a wait may take, Gloo ends it in its own words


class SingleProcess(World):
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


class HorovodWorld(SingleProcess):
    """One of several ranks that meet in Horovod's ring allreduce.

    Under `horovodrun` with `--host-discovery-script` or `--min-np` the world is elastic: whatever
    waits for other ranks raises WorldChanged when one has gone, and `hosts_changed` is set on rank
    0 when others are to join. The process then disbands this world and makes a new one.
    """

    starts_four = "horovodrun -np 4 python horovod_gnn/train.py"

    def __init__(self, config: RunConfig | None = None) -> None:
        """Join the other ranks; `config` is None where this one could not read its own.

        Raises:
            UsageError: a launcher that does not fit, or ranks that do not come in time.
            Lost: the launcher or another rank has gone meanwhile.
            WorldChanged: so it has, where ranks may go and join.
        """
        super().__init__()
        require_mpi_launcher()
        starting, silence = (
            getattr(config, name) if config else float(OPTIONS[name].default)
            for name in ("start_timeout", "collective_timeout")
        )
        self.join_by = time.monotonic() + starting
        self._set_up_horovod(max(starting, silence))
        if self.elastic:  # before there is a world: a host that is found meanwhile is not missed
            self._news.init()
            self._news.register_listener(self)
        stop_without_launcher()
        self._sockets = OpenedSockets()
        before = threads()
        try:
            with self._sockets:
                self._join(starting)
        except ValueError:  # it says no more, and its reason, if any, in a log of its own
            raise Lost("cannot join the other ranks: they or the launcher have gone") from None
        helpers = threads() - before
        hvd = self._hvd
        self.rank = hvd.rank()
        self.world_size = hvd.size()
        self.local_rank = hvd.local_rank()
        self.controller = "mpi" if hvd.mpi_enabled() else "gloo"
        if self.elastic:
            self._sockets.miss_after(_SILENT_SECONDS)
            # What a process was started with names its rank in the first of its worlds.
            os.environ |= {"HOROVOD_RANK": str(self.rank), "HOROVOD_SIZE": str(self.world_size)}
        elif self.world_size != launched_size():
            raise _other_launcher(self.world_size)
        try:
            self.monitor_ranks(silence, helpers)
        except WorldChanged:
            self.leave_world()
            raise
        if self.monitor is not None:  # the process ends in `shutdown`, which all ranks do together
            self.monitor.ends_stopped = self.elastic  # horovodrun would wait for it without end
            atexit.register(self.monitor.exit_in_time)

    def _set_up_horovod(self, longest_wait: float) -> None:
        """Import it, with settings that leave it to the monitor to report who is lost."""
        # A step has one collective, of about a megabyte: name a missing rank soon.
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", "20")
        self.elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
        if store := os.environ.get(STORE_ADDRESS):
            bypass_proxies([store])
        # So long may it take a rank to join: when this time is out, Gloo aborts all of them.
        patience = 120 if self.elastic else math.ceil(longest_wait) + _LATER_SECONDS
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(patience))
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
        self._hvd, self._news = hvd, notification_manager

    def _join(self, seconds: float) -> None:
        """Call Horovod's init. Raises UsageError: some ranks do not come in time."""
        if self.elastic:  # horovodrun bounds this wait, and counts who is there
            self._hvd.init()
            return
        if os.environ.get(STORE_ADDRESS):  # Gloo would abort a process, and name nobody
            await_ranks_at_store(launched_rank(), launched_size(), seconds)
        call_in_time(self._hvd.init, seconds, waited_for_by_mpi)

    def on_hosts_updated(self, timestamp: float, update: int) -> None:
        """Called by Horovod, in a thread of its own, when the launcher has found other hosts."""
        self.hosts_changed = True

    def leave_world(self) -> None:
        """Leave a world that has changed, whoever of it is still there."""
        self._news.remove_listener(self)
        if self.monitor is not None:
            self.monitor.close()
            atexit.unregister(self.monitor.exit_in_time)
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

    def row_transport(self) -> Transport | None:
        """How rows of features come from other ranks. Collective."""
        if self.world_size == 1:
            return None
        mpi = _mpi() if self.controller == "mpi" else None
        if all(self.gather(mpi is not None)):
            return MpiTransport(mpi)
        return HorovodTransport(self._hvd, self._failed)

    def _staged(self, tensor: Tensor) -> Tensor:
        """The tensor itself, or a copy in host memory if Horovod cannot reach a GPU's."""
        return tensor.cpu() if tensor.is_cuda and not self._hvd.nccl_built() else tensor

    def _meet(self, begin: Callable[..., int], *arguments: Any, **options: Any) -> Tensor:
        """Begin a collective and wait for it. Unlike Horovod's own wait this can be interrupted.

        Raises Stopped when this rank was told to stop and the others do not come any more. When one
        of them has gone without a word: WorldChanged in an elastic world, Lost in any other. Lost,
        too, when one shows no sign of life.

        Polling leaves the core to Horovod's background thread and lets signal handlers run; when a
        rank has died, the launcher's SIGTERM finds this loop and not a call that never returns.
        """
        try:
            handle = begin(*arguments, **options)
            with self.waiting() as wait:
                while not self._hvd.poll(handle):
                    time.sleep(_POLL_SECONDS)
                    wait.check()
            return self._hvd.synchronize(handle)
        except RuntimeError as error:  # HorovodInternalError, from any of the three
            raise self._failed(" ".join(str(error).split())) from None

    def _failed(self, reason: str) -> Exception:
        """What it means that a collective has failed."""
        return WorldChanged() if self.elastic else self.without_answer(reason)


def _mpi() -> Any:
    """mpi4py, on the MPI that Horovod has initialised; None where threads may not share that."""
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    several = MPI.Is_initialized() and MPI.Query_thread() == MPI.THREAD_MULTIPLE
    return MPI if several else None


def _other_launcher(world_size: int) -> UsageError:
    if by_torchrun():
        return UsageError(
            f"torchrun (TORCHELASTIC_RUN_ID) started {launched_size()} processes, but Horovod sees "
            f"{world_size}: start them with horovodrun, or baselines/ddp.py with torchrun"
        )
    return UsageError(
        f"{launched_size()} processes were launched but Horovod sees {world_size}: "
        "the launcher and Horovod use different MPIs; `make doctor` shows both"
    )
