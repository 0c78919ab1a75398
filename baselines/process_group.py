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

from baselines.rendezvous import Rendezvous, find_rendezvous
from gnn_core.config import OPTIONS, RunConfig
from gnn_core.data.exchange import Bytes, IntArray, Transport
from gnn_core.joining import LONG_SECONDS, await_ranks, call_in_time
from gnn_core.network import host_and_port, interface_towards
from gnn_core.training.world import Lost
from gnn_core.usage import UsageError
from horovod_gnn.parallel import SingleProcess

# The monitor of the ranks ends a wait much sooner, or lets it go on for a rank that computes.
_LONGEST = timedelta(days=7)
_LEAST_SECONDS = 5.0  # to connect, once all are there
_SLICE = timedelta(seconds=0.2)  # of a wait; between two of them signals are handled
_POLL_SECONDS = 50e-6
_REFUSAL = "refusal"  # its key in the store
_REFUSAL_SECONDS = 1.0  # in which the others read it


def join(config: RunConfig | None, group: type[ProcessGroup] | None = None) -> ProcessGroup:
    """Meet the other ranks of this job; `config` is None where this one could not read its own.

    `group` is what they form: a `ProcessGroup` unless a subclass is given.

    Raises UsageError: a launcher that does not fit, or ranks that do not come in time.
    """
    seconds, silence = (
        getattr(config, name) if config else float(OPTIONS[name].default)
        for name in ("start_timeout", "collective_timeout")
    )
    deadline = time.monotonic() + seconds
    rendezvous = find_rendezvous(seconds)
    # Gloo would take the address that this host's name has, and not every name has a good one.
    if interface := interface_towards(rendezvous.host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    wants_gpu = config is not None and config.device != "cpu"
    try:
        store = _enter(rendezvous, seconds, deadline)
        _await_everyone(store, rendezvous, seconds, deadline)
        return (group or ProcessGroup)(
            store,
            rendezvous.rank,
            rendezvous.world_size,
            wants_gpu,
            max(deadline - time.monotonic(), _LEAST_SECONDS),
            silence,
        )
    except (RuntimeError, Lost) as error:
        raise UsageError(
            f"expected {rendezvous.world_size} ranks that reach each other, but {_reason(error)}; "
            "see that all of them run, and name the network between them with GLOO_SOCKET_IFNAME"
        ) from None


def _enter(rendezvous: Rendezvous, seconds: float, deadline: float) -> dist.Store:
    """The store in which the ranks find each other. Raises UsageError if nobody keeps it."""
    if rendezvous.world_size == 1:
        return dist.HashStore()
    if rendezvous.listener is not None:
        store = dist.TCPStore(
            "127.0.0.1",
            rendezvous.port,
            is_master=True,
            timeout=_LONGEST,
            wait_for_workers=False,
            master_listen_fd=rendezvous.listener.detach(),
        )
    else:
        _await_store(rendezvous, seconds, deadline)
        store = dist.TCPStore(
            rendezvous.host,
            rendezvous.port,
            is_master=False,
            timeout=_LONGEST,
            wait_for_workers=False,
        )
    # After a restart torchrun's store may still know the ranks that were there before.
    return dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)


def _await_store(rendezvous: Rendezvous, seconds: float, deadline: float) -> None:
    """Wait until somebody listens. torch would, but uninterruptible, and would print a traceback.

    Raises UsageError.
    """
    where = host_and_port(rendezvous.host, rendezvous.port)
    reported_at = time.monotonic() + LONG_SECONDS
    while True:
        try:
            socket.create_connection((rendezvous.host, rendezvous.port), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"expected rank 0 at {where} within {seconds:g} s, got "
                    f"no answer ({error.strerror or error}): start it, or wait longer with "
                    "--start-timeout"
                ) from None
            if time.monotonic() > reported_at:
                reported_at = time.monotonic() + LONG_SECONDS
                print(f"waiting    for rank 0 at {where}", flush=True)
            time.sleep(0.1)


def _await_everyone(
    store: dist.Store, rendezvous: Rendezvous, seconds: float, deadline: float
) -> None:
    """Wait until every rank is there.

    Raises UsageError: it names those that did not come, or says which ranks contradict each other.
    """
    _announce(store, rendezvous)

    def is_here(rank: int) -> bool:
        if store.check([f"rank {rank}"]):
            return True
        _raise_if_refused(store)
        return False

    where = host_and_port(rendezvous.host, rendezvous.port)
    await_ranks(is_here, rendezvous.rank, rendezvous.world_size, where, deadline, seconds)
    _raise_if_refused(store)


def _announce(store: dist.Store, rendezvous: Rendezvous) -> None:
    """Say that this rank is here. Raises UsageError, on all ranks that still wait, if it cannot be.

    Ranks that were started by hand may have been given different worlds.
    """
    mine = str(rendezvous.world_size)
    theirs = store.compare_set("world size", "", mine).decode()
    problem = None
    if theirs != mine:
        problem = (
            f"expected the same WORLD_SIZE on every rank, got {mine} on rank {rendezvous.rank} and "
            f"{theirs} on another: set it to the number of ranks on all of them"
        )
    elif store.add(f"processes of rank {rendezvous.rank}", 1) > 1:
        problem = (
            f"expected each RANK once, got a second process with RANK {rendezvous.rank}: number "
            f"the ranks from 0 to {rendezvous.world_size - 1}"
        )
    if problem is None:
        store.set(f"rank {rendezvous.rank}", "is here")
        return
    store.set(_REFUSAL, problem)
    if (
        rendezvous.listener is not None
    ):  # the others read it before the store goes with this process
        time.sleep(_REFUSAL_SECONDS)
    raise UsageError(problem)


def _raise_if_refused(store: dist.Store) -> None:
    if store.check([_REFUSAL]):
        raise UsageError(store.get(_REFUSAL).decode())


class ProcessGroup(SingleProcess):
    """One of several ranks that meet in the collectives of torch.distributed.

    Args:
        store: in which they find each other.
        rank: of this process.
        world_size: number of processes.
        wants_gpu: whether this one would train on a GPU if it has one.
        join_seconds: how long they may take to connect.
        silence_seconds: how long to wait for a rank that shows no sign of life.

    Raises:
        Lost: one of them has gone.
        RuntimeError: they do not reach each other.
        UsageError: they do not connect in time.
    """

    starts_four = "torchrun --nproc-per-node 4 baselines/ddp.py"

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world_size: int,
        wants_gpu: bool = False,
        join_seconds: float = OPTIONS["start_timeout"].default,
        silence_seconds: float = OPTIONS["collective_timeout"].default,
    ):
        super().__init__()
        self.rank, self.world_size = rank, world_size
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        self.join_by = time.monotonic() + join_seconds
        call_in_time(
            lambda: dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=store,
                rank=rank,
                world_size=world_size,
                timeout=_LONGEST,
            ),
            join_seconds,
            lambda: "all have come, and some do not connect to the others",
        )
        self.monitor_ranks(silence_seconds)
        # Where one rank computes on its CPU, all meet in host memory.
        self._by_nccl = all(self.gather(nccl and wants_gpu))
        self.controller = "nccl" if self._by_nccl else "gloo"
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

    def row_transport(self) -> Transport | None:
        """How rows of features come from other ranks. Collective."""
        return GlooTransport(self) if self.world_size > 1 else None

    def leave(self) -> None:
        """Part when all are done: who left earlier would be missed."""
        self.barrier()
        with self.waiting():
            dist.destroy_process_group()
        if self.monitor is not None:
            self.monitor.close()

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
        when one of them has gone without a word or shows no sign of life.
        """
        try:
            with self.waiting() as wait:
                while not work.is_completed():
                    if tensor.is_cuda:
                        time.sleep(_POLL_SECONDS)  # a wait would return before the GPU is there
                    else:
                        with contextlib.suppress(RuntimeError):  # the slice has ended, or the work
                            work.wait(_SLICE)
                    wait.check()
                work.wait()
        except RuntimeError as error:
            raise self.without_answer(_reason(error)) from None


class GlooTransport(Transport):
    """Gloo's alltoall, in a group of its own. Collective.

    Args:
        world: the ranks.
    """

    name = "Gloo all_to_all"

    def __init__(self, world: ProcessGroup):
        super().__init__(world.rank, world.world_size)
        self._world = world
        self._group = dist.new_group(backend="gloo", timeout=_LONGEST)

    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        """See `Transport`."""
        out = torch.empty(int(received.sum()), rows.shape[1], dtype=torch.uint8)
        try:
            work = dist.all_to_all_single(
                out,
                torch.from_numpy(rows),
                received.tolist(),
                sent.tolist(),
                group=self._group,
                async_op=True,
            )
            self.wait(work.is_completed)
            work.wait()
        except RuntimeError as error:
            raise self._world.without_answer(_reason(error)) from None
        found: Bytes = out.numpy()
        return found


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the place in torch's source that it came from."""
    text = re.sub(r"^\[\S+:\d+\] ", "", str(error))
    return " ".join(text.split(". ")[0].split())
