"""What watches a run while it goes on: TensorBoard on rank 0, metrics and a trace on each rank.

An observer never fails a run after it has begun: what it cannot write it says on stderr.
"""

from __future__ import annotations

from typing import Protocol

from gnn_core.config import RunConfig
from gnn_core.files import file_of_rank
from gnn_core.measure.exporter import Exporter, Watched
from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.measure.tensorboard import TensorBoard, folder_of_run
from gnn_core.measure.trace import Trace
from gnn_core.training.learner import Learner
from gnn_core.training.world import World


class Observer(Protocol):
    """Called after each step and epoch of a run, and at its end."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A step has been made: both are counted from 0, `loss` is its mean over all targets."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has ended, and been evaluated if it was to be."""

    def finished(self, record: RunRecord) -> None:
        """The run has ended, well or not; not called where it goes on with other ranks."""

    def close(self) -> None:
        """Write out what is buffered: the last call, even if the run goes on with other ranks."""


def observers_of(config: RunConfig, record: RunRecord, rank: int) -> list[Observer]:
    """The observers that a run asks for; none on other ranks than 0. Raises UsageError."""
    if rank != 0 or not config.tensorboard:
        return []
    name = record.dataset.name
    return [TensorBoard(folder_of_run(config.tensorboard, record.strategy, name, record.run_id))]


def observers_of_rank(
    config: RunConfig, record: RunRecord, world: World, learner: Learner, targets: int
) -> list[Observer]:
    """The trace and the exporter of this rank, if the run asks for them. Raises UsageError.

    Args:
        config: says what is asked for.
        record: as the run has begun it.
        world: the other ranks.
        learner: of this rank.
        targets: of an epoch, over all ranks.
    """
    found: list[Observer] = []
    if config.trace is not None:
        trace = file_of_rank("--trace", config.trace, ".json", world.rank)
        found.append(Trace(trace, record.run_id, world.rank, learner.watch))
    if not config.metrics_port and config.metrics_textfile is None:
        return found
    watched = Watched(
        record=record,
        rank=world.rank,
        targets=targets,
        watch=learner.watch,
        bytes_per_step=learner.allreduce_bytes_per_step,
        exchanged=learner.store.exchanged,
        served=lambda: learner.parameter_server,
    )
    port = config.metrics_port and config.metrics_port + world.local_rank
    name, flag = config.metrics_textfile, "--metrics-textfile"
    file = None if name is None else file_of_rank(flag, name, ".prom", world.rank)
    exporter = Exporter(watched, port, file)
    if world.monitor is not None:
        world.monitor.leave_out(exporter.threads)
    return [*found, exporter]
