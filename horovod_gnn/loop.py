"""One epoch of training: batches in, an averaged gradient a step, sums and seconds out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from gnn_core.data.batch import Batch
from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import Tally
from gnn_core.measure.timing import Stopwatch
from gnn_core.schedule import Schedule
from gnn_core.training.learner import RunProgress
from horovod_gnn.feed import Feed
from horovod_gnn.link import LinkModel
from horovod_gnn.node_model import NodeModel
from horovod_gnn.objective import Objective
from horovod_gnn.optimizer import SGD
from horovod_gnn.parallel import SingleProcess

_STATISTICS = 4  # loss sum, correct, sampled edges, ranks that are to be interrupted


class GradientBucket:
    """All gradients and a step's sums in one buffer, so that a step needs one allreduce.

    The model's gradients are views of the buffer: nothing is copied in or out. A GraphSAGE's
    gradients are about a megabyte, so the latency of a collective is what counts, not its size.
    """

    def __init__(self, model: nn.Module):
        parameters = list(model.parameters())
        size = sum(parameter.numel() for parameter in parameters)
        first = parameters[0]
        self._buffer = torch.zeros(size + _STATISTICS, dtype=first.dtype, device=first.device)
        self._statistics = self._buffer[size:]
        offset = 0
        for parameter in parameters:
            view = self._buffer[offset : offset + parameter.numel()]
            parameter.grad = view.view_as(parameter)
            offset += parameter.numel()

    @property
    def num_bytes(self) -> int:
        """What a step sends around the ring."""
        return self._buffer.numel() * self._buffer.element_size()

    def clear(self) -> None:
        """Zero gradients and sums."""
        self._buffer.zero_()

    def sum_over_ranks(self, parallel: SingleProcess, statistics: list[float]) -> list[float]:
        """Add up gradients and `statistics` (`_STATISTICS` numbers) over the ranks."""
        self._statistics.copy_(torch.tensor(statistics, dtype=self._buffer.dtype))
        parallel.sum_(self._buffer)
        return self._statistics.tolist()


@dataclass
class Training:
    """What one step after the other works on."""

    model: NodeModel | LinkModel
    objective: Objective
    optimizer: SGD  # or Adam
    bucket: GradientBucket
    loader: Loader
    feed: Feed  # brings features and batches to the device
    schedule: Schedule
    parallel: SingleProcess
    watch: Stopwatch
    interrupted: bool = False  # some rank knew a reason to, and all ranks know it


def train_epoch(
    training: Training, progress: RunProgress, after_step: Callable[[float], None]
) -> Tally:
    """Train from `progress` to the end of its epoch; the tally of the whole epoch.

    Args:
        training: model, optimizer, loader and so on.
        progress: advanced step by step; `epoch` itself is left to the caller.
        after_step: told the step's mean loss.

    Raises:
        Diverged: the loss is NaN or infinite, on all ranks alike.
    """
    loader, watch = training.loader, training.watch
    training.model.train()
    training.feed.store.lap()  # what an evaluation read is not counted here
    batches = loader.batches(progress.epoch, progress.step, training.feed.prepare)
    with contextlib.closing(batches):
        while True:
            with watch.section("wait"):
                batch = next(batches, None)
            if batch is None:
                break
            watch.add("sample", batch.sample_seconds, out_of=None if loader.prefetches else "wait")
            statistics = _step(training, batch)
            loss = progress.advance(batch, statistics)
            training.interrupted = statistics[-1] > 0
            after_step(loss)
            if training.interrupted:
                break
    return Tally.from_vector(progress.tally)


def _step(training: Training, batch: Batch) -> list[float]:
    """Forward, backward, allreduce, update; the step's statistics summed over ranks."""
    watch = training.watch
    with watch.section("compute"):
        training.bucket.clear()
        loss_sum, correct = training.objective(training.model, *training.feed.arrived(batch))
        # Divided by the targets of all ranks, so that the sum over ranks is the mean over targets.
        (loss_sum / batch.num_global_real).backward()
        statistics = [
            float(loss_sum.detach()),
            float(correct),
            float(batch.num_edges),
            float(training.parallel.interrupted),
        ]
    watch.add("fetch", training.feed.store.lap(), training.feed.fetches_in(training.loader))
    with watch.section("communicate"):
        statistics = training.bucket.sum_over_ranks(training.parallel, statistics)
    with watch.section("compute"):
        steps = training.loader.num_steps
        training.optimizer.lr = training.schedule.rate(batch.epoch, batch.step, steps)
        training.optimizer.step()
    return statistics
