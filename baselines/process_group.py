"""ProcessGroup: ranks that meet in torch.distributed. The only file that names it.

Gloo carries what is in host memory, NCCL what is on GPUs. No collective of Python objects is used:
those unpickle what comes over the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from baselines.rendezvous import Meeting, find_meeting
from gnn_core.config import OPTIONS, RunConfig
from gnn_core.launch import seconds_until_killed
from gnn_core.network import interface_towards
from gnn_core.report.machine import host_name
from gnn_core.training.fellows import Lost, Stopped
from gnn_core.usage import UsageError
from horovod_gnn.parallel import OneProcess

_SILENCE_SECONDS = 600.0  # of a rank that keeps its connection: no collective takes so long
_SLICE = timedelta(seconds=0.2)  # of a wait; between two of them signals are handled
_POLL_SECONDS = 50e-6
_LONG_SECONDS = 5.0  # of silence, until a person is told who is waited for


def join(config: RunConfig | None, group: type[ProcessGroup] | None = None) -> ProcessGroup:
    """Meet the other ranks of this job; `config` is None where this one could not read its own.

    `group` is what they form: a `ProcessGroup` unless a subclass is given.

    Raises UsageError: a launcher that does not fit, or ranks that do not come in time.
    """
    seconds = config.start_timeout if config else float(OPTIONS["start_timeout"].default)
    deadline = time.monotonic() + seconds
    meeting = find_meeting(seconds)
    # Gloo would take the address that this host's name has, and not every name has a good one.
    if interface := interface_towards(meeting.host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    wants_gpu = config is not None and config.device != "cpu"
    try:
        store = _enter(meeting, seconds, deadline)
        _await_everyone(store, meeting, seconds, deadline)
        return (group or ProcessGroup)(store, meeting.rank, meeting.world_size, wants_gpu)
    except (RuntimeError, Lost) as error:
        raise UsageError(
            f"expected {meeting.world_size} ranks that reach each other, but {_reason(error)}; see "
            "that all of them run, and name the network between them with GLOO_SOCKET_IFNAME"
        ) from None


def _enter(meeting: Meeting, seconds: float, deadline: float) -> dist.Store:
    """The store in which the ranks find each other. Raises UsageError if nobody keeps it."""
    if meeting.world_size == 1:
        return dist.HashStore()
    limit = timedelta(seconds=_SILENCE_SECONDS)
    if meeting.door is not None:
        store = dist.TCPStore(
            "127.0.0.1", meeting.port, is_master=True, timeout=limit, wait_for_workers=False,
            master_listen_fd=meeting.door.detach(),
        )  # fmt: skip
    else:
        _await_store(meeting, seconds, deadline)
        store = dist.TCPStore(
            meeting.host, meeting.port, is_master=False, timeout=limit, wait_for_workers=False
        )
    # After a restart torchrun's store may still know the ranks that were there before.
    return dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)


def _await_store(meeting: Meeting, seconds: float, deadline: float) -> None:
    """Wait until somebody listens. torch would, but uninterruptible, and would print a traceback.

    Raises UsageError.
    """
    while True:
        try:
            socket.create_connection((meeting.host, meeting.port), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"expected rank 0 at {meeting.host}:{meeting.port} within {seconds:g} s, got "
                    f"no answer ({error.strerror or error}): start it, or wait longer with "
                    "--start-timeout"
                ) from None
            time.sleep(0.1)


def _await_everyone(store: dist.Store, meeting: Meeting, seconds: float, deadline: float) -> None:
    """Wait until every rank is there. Raises UsageError, which names those that did not come."""
    keys = [f"rank {rank}" for rank in range(meeting.world_size)]
    store.set(keys[meeting.rank], "is here")
    told_at = time.monotonic() + _LONG_SECONDS
    while not store.check(keys):
        now = time.monotonic()
        if now > min(told_at, deadline):
            missing = [key for key in keys if not store.check([key])]
            if missing and now > deadline:
                raise UsageError(
                    f"expected {len(keys)} ranks within {seconds:g} s, got "
                    f"{len(keys) - len(missing)}: {', '.join(missing)} did not arrive at "
                    f"{meeting.host}:{meeting.port}; start all of them, or wait longer with "
                    "--start-timeout"
                )
            if missing and meeting.rank == 0:
                print(f"waiting    for {', '.join(missing)}", flush=True)
            told_at = now + _LONG_SECONDS
        time.sleep(0.02)


class ProcessGroup(OneProcess):
    """One of several ranks that meet in the collectives of torch.distributed.

    Args:
        store: in which they find each other.
        rank: of this process.
        world_size: number of processes.
        wants_gpu: whether this one would train on a GPU if it has one.

    Raises:
        Lost: one of them has gone.
        RuntimeError: they do not reach each other.
    """

    starts_four = "torchrun --nproc-per-node 4 baselines/ddp.py"

    def __init__(self, store: dist.Store, rank: int, world_size: int, wants_gpu: bool = False):
        super().__init__()
        self.rank, self.world_size = rank, world_size
        # Told to stop, a rank still waits for the others, but not until it is killed unsaved.
        self._grace_seconds = 0.6 * seconds_until_killed()
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo", store=store, rank=rank,
            world_size=world_size, timeout=timedelta(seconds=_SILENCE_SECONDS + 60),
        )  # fmt: skip
        everyone = self.gather({"host": host_name(), "nccl": nccl and wants_gpu})
        # Where one rank computes on its CPU, all meet in host memory.
        self._by_nccl = all(theirs["nccl"] for theirs in everyone)
        self.controller = "nccl" if self._by_nccl else "gloo"
        self.rank_hosts = [theirs["host"] for theirs in everyone]
        self.local_rank = self.rank_hosts[:rank].count(self.rank_hosts[rank])

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the ranks: one allreduce."""
        staged = self._staged(tensor)
        self._finish(dist.all_reduce(staged, async_op=True), staged)
        return tensor if staged is tensor else tensor.copy_(staged)

    def broadcast_(self, tensor: Tensor, root: int = 0) -> Tensor:
        """Replace `tensor` by that of rank `root`."""
        staged = self._staged(tensor)
        self._finish(dist.broadcast(staged, root, async_op=True), staged)
        return tensor if staged is tensor else tensor.copy_(staged)

    def gather(self, value: Any) -> list[Any]:
        """A JSON-able value of every rank, in the order of ranks, on every rank."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self._gathered(torch.tensor([len(text)]))]
        mine = torch.zeros(max(sizes), dtype=torch.uint8)
        mine[: len(text)] = text
        rows = zip(self._gathered(mine), sizes, strict=True)
        return [json.loads(row[:size].numpy().tobytes()) for row, size in rows]

    def leave(self) -> None:
        """Part when all are done: who left earlier would be missed."""
        self.barrier()
        dist.destroy_process_group()

    def _gathered(self, mine: Tensor) -> list[Tensor]:
        """The tensor of every rank; all of them have one shape."""
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._finish(dist.all_gather(rows, mine, async_op=True), mine)
        return rows

    def _staged(self, tensor: Tensor) -> Tensor:
        """The tensor itself, or a copy in host memory if not all ranks have theirs on a GPU."""
        return tensor.cpu() if tensor.is_cuda and not self._by_nccl else tensor

    def _finish(self, work: dist.Work, tensor: Tensor) -> None:
        """Wait for a collective on `tensor`, so that signals are handled meanwhile.

        Raises Stopped when this rank was told to stop and the others do not come any more, Lost
        when one of them has gone without a word.
        """
        begun, told_at = time.monotonic(), None
        try:
            while not work.is_completed():
                if tensor.is_cuda:
                    time.sleep(_POLL_SECONDS)  # a wait would return before the GPU is there
                else:
                    with contextlib.suppress(RuntimeError):  # the end of the slice, or of the work
                        work.wait(_SLICE)
                now = time.monotonic()
                if self.stop_signal is not None:
                    told_at = told_at or now
                    if now - told_at > self._grace_seconds:
                        raise Stopped
                if now - begun > _SILENCE_SECONDS:
                    raise RuntimeError(f"nothing came for {_SILENCE_SECONDS:g} s")
            work.wait()
        except RuntimeError as error:
            raise self.without_answer(_reason(error)) from None


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the place in torch's source that it came from."""
    text = re.sub(r"^\[\S+:\d+\] ", "", str(error))
    return " ".join(text.split(". ")[0].split())
