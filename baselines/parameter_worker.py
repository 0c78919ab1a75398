"""A worker of a parameter server: the usual model, loader and step, driven by a coordinator.

`HandedOut` takes the place of the loader: it asks for the next part, reads the weights and gives
the batch. `Push` takes the place of the allreduce: it sends the gradients to the servers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnn_core.data.batch import Batch
from gnn_core.data.loader import Loader
from gnn_core.measure.timing import Stopwatch
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.compression import Compressor
from gnn_core.param_server.rpc import MOST_BYTES, Peer, answer_all
from gnn_core.param_server.shards import Shards, Vector, vector_of
from gnn_core.training.state import StepSums
from gnn_core.usage import Lost
from horovod_gnn.optimizer import SGD

_RETRY_SECONDS = 0.1
Prepare = Callable[[Batch], Batch]


def dtype_of(tensors: Sequence[Tensor]) -> str:
    """The dtype that all tensors have, as messages name it."""
    (dtype,) = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    return dtype


def flatten(tensors: Sequence[Tensor]) -> Vector:
    """The values of all tensors, one after the other, on the CPU."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu().numpy()


@torch.no_grad()
def spread(flat: Vector, tensors: Sequence[Tensor]) -> None:
    """Copy the values of a flat vector into the tensors."""
    values, start = torch.from_numpy(flat), 0
    for tensor in tensors:
        tensor.copy_(values[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def flat_gradient(parameters: Sequence[Tensor]) -> Tensor:
    """A flat vector of zeros, of which the gradient of each parameter is a view from now on."""
    flat = torch.cat([torch.zeros_like(one).reshape(-1) for one in parameters])
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat


class Servers:
    """All servers, as a worker calls them.

    Args:
        model: whose parameters they hold.
        compress: of --compress.
        locate: says where they are, as messages.ReadyReply.
        secret: of the job.
        seconds: how long an answer may take, and a standby to take the place of a server.
    """

    def __init__(
        self,
        model: nn.Module,
        compress: str,
        locate: Callable[[], Any],
        secret: str,
        seconds: float,
    ):
        self._parameters = list(model.parameters())
        self._dtype = dtype_of(self._parameters)
        self._flat = flatten(self._parameters)
        self._locate, self._secret, self._seconds = locate, secret, seconds
        self._peers: list[Peer] = []
        self._table = -1
        self.num_bytes = self._flat.nbytes
        self.num_pushed = 0  # bytes of the last push
        self.compressor = Compressor(compress, np.zeros_like(self._flat))
        self.pulled: list[int] = []  # version of each shard

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Within it servers can be called."""
        self._connect(self._locate())
        try:
            yield
        finally:
            self._close()

    def pull(self, table: int) -> None:
        """Read the weights into the model. Raises UsageError or Lost.

        Args:
            table: number of the table of shards that the coordinator has now.
        """
        if table != self._table:
            self._connect(self._locate())
        request = messages.PullRequest(term=self._term)
        answers = self._all("Pull", [request] * len(self._peers))
        self.pulled = [answer.version for answer in answers]
        sizes = self._shards.sizes
        values = [
            vector_of(answer.values, self._dtype, size)
            for answer, size in zip(answers, sizes, strict=True)
        ]
        self._shards.join(values, self._flat)
        spread(self._flat, self._parameters)

    def push(self, part: Any, gradient: Vector, lr: float, share: float) -> int:
        """Send a gradient, flat; the updates of the first shard by others since `pull`."""
        compressor = self.compressor
        if share == 0:  # no target of the slice counts: what was kept is sent another time
            compressor = Compressor(compressor.kind, np.zeros_like(compressor.residual))
        payloads = compressor.compress(gradient, self._shards)
        self.num_pushed = sum(one.num_bytes for one in payloads)
        requests = [
            messages.PushRequest(
                term=self._term,
                part=part,
                lr=lr,
                share=share,
                gradient=one.values,
                indices=one.indices,
                pulled=self.pulled,
            )
            for one in payloads
        ]
        versions = [answer.version for answer in self._all("Push", requests)]
        return max(0, versions[0] - self.pulled[0] - 1)

    def _all(self, method: str, requests: Sequence[Any]) -> list[Any]:
        """The answers of all servers; of their standbys, as soon as they have taken over.

        All are asked again then: no push is applied twice. Raises UsageError or Lost.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return answer_all(self._peers, method, requests)
            except Lost as error:
                self._await_other_servers(deadline, error)

    def _await_other_servers(self, deadline: float, error: Lost) -> None:
        """Wait for another table of shards. Raises the error where none comes."""
        while (found := self._locate()).table == self._table:
            if time.monotonic() > deadline:
                raise error
            time.sleep(_RETRY_SECONDS)
        self._connect(found)

    def _connect(self, found: Any) -> None:
        self._close()
        self._term, self._table = found.term, found.table
        self._shards = Shards(len(self._flat), [list(one.chunks) for one in found.shards])
        self._peers = [
            Peer("Server", one.address, self._secret, f"server {number}", self._seconds, MOST_BYTES)
            for number, one in enumerate(found.shards)
        ]

    def _close(self) -> None:
        for peer in self._peers:
            peer.close()


class Work:
    """What this worker computes at present, and what it reports of it.

    Args:
        coordinator: that hands out work.
        worker: number of this process.
        rejoin: makes it a worker again that was taken for lost; its number.
    """

    def __init__(self, coordinator: Peer, worker: int, rejoin: Callable[[], int]):
        self._coordinator, self._worker, self._rejoin = coordinator, worker, rejoin
        self.part: Any = None  # messages.Part
        self.batch: Batch | None = None
        self.residual = b""  # to be told next
        self.done: Any = None  # messages.Done, until the coordinator has heard of it
        self.begun_at = 0.0
        self.pull_seconds = 0.0

    def next(self) -> Any:
        """Report what is done and ask for more; messages.NextReply."""
        request = messages.NextRequest(worker=self._worker, residual=self.residual)
        self.residual = b""
        if self.done is not None:
            request.done.CopyFrom(self.done)
        answer = self._coordinator.call("Next", request)
        self.done = None
        if answer.unknown:  # it was silent for too long
            self._worker = self._rejoin()
        return answer


class HandedOut:
    """The batches of the parts that the coordinator hands out; `TorchLearner` iterates them.

    Args:
        loader_of: gives the loader of a slice.
        work: what is handed out.
        servers: where the weights are.
        prefetch: whether the batch that will probably follow is drawn meanwhile.
    """

    def __init__(
        self, loader_of: Callable[[int], Loader], work: Work, servers: Servers, prefetch: bool
    ):
        self._loader_of, self._work, self._servers = loader_of, work, servers
        self._loaders: dict[int, Loader] = {}
        self.prefetches = prefetch
        self.num_steps = self._loader(0).num_steps

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch of the first slice."""
        return self._loader(0).batch(epoch, step)

    def giving_up_on_errors(self) -> contextlib.AbstractContextManager[Any]:
        """See `Loader`."""
        return contextlib.nullcontext()

    def batches(
        self, epoch: int, first_step: int = 0, prepare: Prepare | None = None
    ) -> Generator[Batch]:
        """The batches until the run is over, each with the weights that it is to be computed with.

        One thread draws all of them, since a sampler has one scratch memory.
        """
        ahead: dict[tuple[int, int, int], Future[Batch]] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="draw") as pool:
            while (answer := self._asked()) is not None:
                key = _key(answer.part)
                drawn = ahead.pop(key, None) or pool.submit(self._drawn, key, prepare)
                for other in ahead.values():
                    other.cancel()
                ahead.clear()
                batch = drawn.result()
                if self.prefetches and answer.HasField("ahead"):
                    key = _key(answer.ahead)
                    ahead[key] = pool.submit(self._drawn, key, prepare)
                start = time.perf_counter()
                self._servers.pull(answer.table)
                self._work.begun_at = time.perf_counter()
                self._work.pull_seconds = self._work.begun_at - start
                self._work.part, self._work.batch = answer.part, batch
                yield batch

    def _asked(self) -> Any | None:
        """The answer that names the next part; None when there is no more."""
        while True:
            answer = self._work.next()
            if answer.over:
                return None
            compressor = self._servers.compressor
            if answer.residual:
                self._work.residual = compressor.residual.tobytes()
            if answer.kept:
                kept = np.frombuffer(answer.kept, compressor.residual.dtype)
                compressor.residual = compressor.residual + kept
            if answer.HasField("part"):
                return answer

    def _drawn(self, key: tuple[int, int, int], prepare: Prepare | None) -> Batch:
        epoch, step, slice_ = key
        batch = self._loader(slice_).batch(epoch, step)
        return prepare(batch) if prepare else batch

    def _loader(self, slice_: int) -> Loader:
        if slice_ not in self._loaders:
            self._loaders[slice_] = self._loader_of(slice_)
        return self._loaders[slice_]


class Push:
    """Sends the gradients of a step to the servers; see `horovod_gnn.update.Allreduce`.

    Args:
        model: its gradients become views of one buffer.
        optimizer: not used here: the servers have it.
        work: what is computed.
        servers: what it is sent to.
    """

    def __init__(self, model: nn.Module, optimizer: SGD, work: Work, servers: Servers):
        self.optimizer = optimizer
        self._work, self._servers = work, servers
        self._gradient = flat_gradient(list(model.parameters()))
        self.bytes_per_step = servers.num_bytes

    def clear(self) -> None:
        """Zero the gradients, before the backward pass of a step."""
        self._gradient.zero_()

    def __call__(self, sums: StepSums, lr: float, watch: Stopwatch) -> StepSums:
        """Send the gradient; no sums, since it is the coordinator that adds them up."""
        work, batch = self._work, self._work.batch
        assert batch is not None
        computed = time.perf_counter()
        with watch.section("communicate"):
            share = batch.num_real / batch.num_global_real
            gradient: Vector = self._gradient.cpu().numpy()
            delay = self._servers.push(work.part, gradient, lr, share)
        work.done = messages.Done(
            part=work.part,
            loss_sum=sums.loss_sum,
            num_correct=sums.num_correct,
            num_edges=batch.num_edges,
            num_rows=len(batch.input_nodes),
            num_global_real=batch.num_global_real,
            bytes_pulled=self._servers.num_bytes,
            bytes_pushed=self._servers.num_pushed,
            delay=delay,
            compute_seconds=computed - work.begun_at,
            communicate_seconds=time.perf_counter() - computed + work.pull_seconds,
            sample_seconds=batch.sample_seconds,
        )
        return StepSums(0.0, 0.0, 0.0, 0.0)


def _key(part: Any) -> tuple[int, int, int]:
    return part.epoch, part.step, part.slice
