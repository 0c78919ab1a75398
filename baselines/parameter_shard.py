"""A server of a parameter server: a shard of the parameters, and the optimizer's state for it.

Synchronous, it adds up the gradients of all slices of a step, in their order, and makes one update,
that of a single process. Otherwise each push is an update as it comes: with the mean gradient of
its targets, and with the learning rate times their share of the targets of the step, so that the
updates of all slices together are about as large as one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.compression import Payload, decompress
from gnn_core.param_server.rpc import Peer
from gnn_core.param_server.shards import Vector, vector_of
from gnn_core.usage import Lost, UsageError
from horovod_gnn.optimizer import OPTIMIZERS, SGD, Adam

_MOST_VALUES = 2**31


class ParameterShard:
    """Answers the calls of the service `Server` in control.proto, one at a time.

    Each push counts once, however often it comes: it is known by epoch, step and slice. A primary
    forwards each push to its standby before it applies and answers it, so that the standby has all
    updates that a worker was told of, in the same order. A standby that was promoted takes no more
    from its primary, and a primary that reaches no standby asks the coordinator before it goes on.

    Args:
        reach: gives the standby at an address; None: there are none.
        ask_alone: asks the coordinator whether it may go on without its standby; raises UsageError
            or Lost if not.
    """

    def __init__(
        self,
        reach: Callable[[str], Peer] | None = None,
        ask_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._reach, self._ask_alone = reach, ask_alone
        self._is_standby = self._is_deposed = False
        self._standby: Peer | None = None
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._term = 0  # of the coordinator that has loaded it; 0: nobody has
        self._version, self._epoch = 0, -1  # updates made; epoch of the last push
        self._seen: set[tuple[int, int]] = set()  # (step, slice) of this epoch
        self._summed: dict[int, dict[int, Vector]] = {}  # step -> slice -> gradient
        self._journal: list[messages.Update] = []  # of this epoch

    def load(self, request: Any) -> Any:
        """Begin a run, or take over other values and moments."""
        with self._lock:
            try:
                if request.term != self._term:
                    self._begin(request)
                self._take_over(request)
                self._stand(request)
            except ValueError as error:
                raise UsageError(
                    f"expected the shard of a run, got another message: {error}"
                ) from None
        return messages.Empty()

    def read(self, request: Any) -> Any:
        """What it holds."""
        with self._lock:
            self._require(self._term)
            answer = messages.ReadReply(values=_bytes(self._values))
            if request.optimizer and isinstance(self._optimizer, Adam):
                answer.exp_avg = _bytes(self._optimizer.exp_avg[0])
                answer.exp_avg_sq = _bytes(self._optimizer.exp_avg_sq[0])
                answer.num_steps = int(self._optimizer.num_steps)
            if request.journal:
                answer.journal.extend(self._journal)
        return answer

    def pull(self, request: Any) -> Any:
        """The present values, and how many updates they have seen."""
        with self._lock:
            self._require(request.term)
            self._require_role(forwarded=False)
            return messages.PullReply(version=self._version, values=_bytes(self._values))

    def push(self, request: Any) -> Any:
        """Apply the gradient of a slice, unless it has been applied."""
        part = request.part
        with self._lock:
            self._require(request.term)
            self._require_role(request.forwarded)
            try:
                payload = Payload(request.gradient, request.indices)
                gradient = decompress(self._compress, payload, self._dtype, len(self._values))
            except ValueError as error:
                raise UsageError(f"expected the gradient of a shard, got {error}") from None
            if part.epoch > self._epoch:
                self._epoch, self._seen, self._summed = part.epoch, set(), {}
                self._journal = []
            if part.epoch < self._epoch or (part.step, part.slice) in self._seen:
                return messages.PushReply(version=self._version)
            self._forward(request)
            self._seen.add((part.step, part.slice))
            if self._synchronous:
                self._collect(request, gradient)
            elif request.share > 0:
                self._apply(gradient / request.share, request.lr * request.share)
                self._journal.append(messages.Update(part=part, pulled=request.pulled))
            return messages.PushReply(version=self._version)

    def promote(self, request: Any) -> Any:
        """Be the primary from now on."""
        with self._lock:
            self._is_standby = False
        return messages.Empty()

    def stop(self, request: Any) -> Any:
        """End the process."""
        self.stopped.set()
        return messages.Empty()

    def _begin(self, request: Any) -> None:
        if request.optimizer not in OPTIMIZERS or not 0 < request.size < _MOST_VALUES:
            raise ValueError(f"optimizer {request.optimizer[:20]!r}, {request.size} values")
        vector_of(request.values, request.dtype, request.size)
        self._dtype = request.dtype
        self._values = torch.zeros(request.size, dtype=getattr(torch, request.dtype))
        self._values.grad = torch.zeros_like(self._values)
        kind: type[SGD] = OPTIMIZERS[request.optimizer]
        self._optimizer = kind([self._values], 0.0, request.weight_decay)
        self._synchronous, self._slices = request.synchronous, request.slices
        self._compress = request.compress
        self._version, self._epoch = 0, -1
        self._seen, self._summed, self._journal = set(), {}, []
        self._term = request.term

    def _take_over(self, request: Any) -> None:
        size = len(self._values)
        if request.values:
            self._values.copy_(_tensor(vector_of(request.values, self._dtype, size)))
        if request.exp_avg and isinstance(self._optimizer, Adam):
            moments = [
                vector_of(data, self._dtype, size) for data in (request.exp_avg, request.exp_avg_sq)
            ]
            self._optimizer.exp_avg[0].copy_(_tensor(moments[0]))
            self._optimizer.exp_avg_sq[0].copy_(_tensor(moments[1]))
            self._optimizer.num_steps.fill_(request.num_steps)

    def _stand(self, request: Any) -> None:
        self._is_standby = request.is_standby
        if self._standby is not None and self._standby.address != request.standby:
            self._standby.close()
            self._standby = None
        if request.standby and self._standby is None and self._reach is not None:
            self._standby = self._reach(request.standby)

    def _forward(self, request: Any) -> None:
        """Give a push to the standby. Raises Lost where this server is the primary no more."""
        if self._standby is None:
            return
        copy = messages.PushRequest()
        copy.CopyFrom(request)
        copy.forwarded = True
        try:
            self._standby.call("Push", copy)
        except (Lost, UsageError):
            self._standby.close()
            self._standby = None
            self._is_deposed = True
            try:
                self._ask_alone()
            except (Lost, UsageError) as error:
                raise Lost(f"another server has taken its place ({error})") from None
            self._is_deposed = False

    def _require_role(self, forwarded: bool) -> None:
        if self._is_deposed or forwarded != self._is_standby:
            raise Lost("it is not the primary of its shard")

    def _collect(self, request: Any, gradient: Vector) -> None:
        """Keep the gradient of a slice; with the last one of its step, apply their sum."""
        slices = self._summed.setdefault(request.part.step, {})
        slices[request.part.slice] = gradient
        if len(slices) == self._slices:
            del self._summed[request.part.step]
            total = np.sum([slices[one] for one in sorted(slices)], axis=0)
            self._apply(total, request.lr)

    def _apply(self, gradient: Vector, lr: float) -> None:
        assert self._values.grad is not None
        self._values.grad.copy_(_tensor(gradient))
        self._optimizer.lr = lr
        self._optimizer.step()
        self._version += 1

    def _require(self, term: int) -> None:
        if term != self._term or not self._term:
            raise UsageError(
                "expected a worker of the run that this server belongs to, got one of another: "
                "start all of them again"
            )


def _tensor(values: Vector) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


def _bytes(values: torch.Tensor) -> bytes:
    return values.numpy().tobytes()
