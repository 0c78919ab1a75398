"""One job, from the command line to the record; the same in every framework.

The entry scripts end up here: `horovod_gnn/train.py` and `baselines/ddp.py` with several ranks,
`baselines/single.py` with one, `tf_mirrored/train.py` with Keras. `run_on_all_ranks` is what other
programs of several ranks share with them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

from gnn_core.config import RunConfig, UsageError
from gnn_core.launch import launched_rank, launched_size
from gnn_core.measure.json_lines import log_as_json
from gnn_core.measure.records import keep_record
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import RunRecord
from gnn_core.streams import optional_output
from gnn_core.training import describe
from gnn_core.training.allocator import keep_freed_memory
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.preparation import DryRun
from gnn_core.training.stop_signals import listen_for_stop, listen_no_more
from gnn_core.training.trainer import Trainer
from gnn_core.training.world import Lost, Stopped, World, WorldChanged

_W = TypeVar("_W", bound=World)
_S = TypeVar("_S")


def run_job(
    read: Callable[[], RunConfig],
    join: Callable[[RunConfig | None], _W],
    build: Callable[[RunConfig, _W], Trainer],
) -> int:
    """Read the settings, join the other ranks, train and write the record; the exit code.

    0: done. 1: the run failed (its record says why). 128 + n: stopped by signal n.

    Args:
        read: gives the settings, from the command line.
        join: meets the other ranks; the settings are None where this rank could not read its own.
        build: makes graph, model and all else that a run consists of. Called again for the ranks
            that are there when ranks have gone or joined (elastic Horovod).

    Raises:
        UsageError: something the user can put right; on every rank alike.
    """
    job, state = Job(read, join), None
    with optional_output():  # whoever reads it may go: the run has a record to write
        while job.code is None:
            with job.world() as world:
                config = job.agreed(world)
                state = state or ElasticState(ResourceSampler(config.sample_seconds))
                trainer = build(config, world)
                if world.monitor is not None:
                    world.monitor.last_words = partial(_write_last_record, trainer)
                job.code = _finish(trainer.run(state), trainer)
    return job.code


def run_on_all_ranks(
    read: Callable[[], _S], join: Callable[[_S | None], _W], work: Callable[[_S, _W], int]
) -> int:
    """Read the settings, join the other ranks and do the work; the exit code.

    128 + n if signal n stopped it, 1 if a rank was lost; else what `work` returns.

    Args:
        read: as in `run_job`.
        join: as in `run_job`.
        work: done by every rank; its exit code. Called again in another world when ranks have gone
            or joined.

    Raises:
        UsageError: something the user can put right; on every rank alike.
    """
    job = Job(read, join)
    with optional_output():
        while job.code is None:
            with job.world() as world:
                job.code = work(job.agreed(world), world)
    return job.code


class Job(Generic[_S, _W]):
    """Joins the ranks, and joins them again when they have changed, until there is an exit code.

    Args:
        read: as in `run_job`.
        join: as in `run_job`.
    """

    def __init__(self, read: Callable[[], _S], join: Callable[[_S | None], _W]):
        gc.freeze()  # what is imported stays: later collections need not look at it
        gc.enable()  # an entry script has disabled it while it imports
        keep_freed_memory()
        self._settings, self._problem = _settings(read)
        if getattr(self._settings, "log_format", "text") == "json":
            log_as_json(launched_rank())
        self._join = join
        self._stop_signal: int | None = None  # it came while a world was made anew
        self.code: int | None = None  # None as long as the job goes on

    @contextlib.contextmanager
    def world(self) -> Iterator[_W]:
        """The ranks that are there. What ends work in them gives an exit code, or the next world.

        Raises UsageError, on every rank alike.
        """
        world = self._joined()
        world.stop_signal = self._stop_signal
        try:
            listen_for_stop(world)
            yield world
        except DryRun:
            self.code = 0
        except WorldChanged:
            world.leave_world()
            self._stop_signal = world.stop_signal
        except Stopped:  # before training began: there is nothing to save, nobody to wait for
            self.code = _leave(128 + (world.stop_signal or signal.SIGTERM), world)
        except Lost as error:  # before training began, or after it: no record says so
            describe.print_failed(world.rank, error)
            self.code = _leave(1, world)
        finally:
            listen_no_more()

    def agreed(self, world: _W) -> _S:
        """The settings; raises UsageError on every rank where any could not read its own."""
        world.require_agreement(self._problem)  # a rank may stand alone with a bad file
        assert self._settings is not None
        return self._settings

    def _joined(self) -> _W:
        while True:
            try:
                return self._join(self._settings)
            except WorldChanged:  # before they had met
                continue
            except UsageError as error:  # nobody is there to hear what this rank had to say
                raise UsageError(self._problem) if self._problem else error from None


def _settings(read: Callable[[], _S]) -> tuple[_S | None, str | None]:
    """The settings, or the problem with them that all ranks are to hear of."""
    try:
        return read(), None
    except UsageError as error:
        if launched_size() == 1:
            raise
        return None, str(error)


def _finish(record: RunRecord, trainer: Trainer) -> int:
    """Write the record and part from the other ranks; the exit code."""
    world = trainer.world
    if world.rank == 0:
        _keep(record, trainer)
    if record.status == "ok":
        world.leave()
        return 0
    if trainer.learner.interrupted or world.stops_together:
        # The launcher ends all ranks as soon as one has left, and rank 0 may have had to save.
        with contextlib.suppress(Stopped, Lost):
            world.barrier()
    if record.status == "interrupted":  # by a signal that reached this rank, or another one only
        return _leave(128 + (world.stop_signal or signal.SIGTERM), world)
    return _leave(1, world)


def _write_last_record(trainer: Trainer, reason: str) -> None:
    """Write the record of a run whose main thread will not return, from another thread."""
    if trainer.world.rank == 0 and trainer.record is not None:
        _keep(trainer.complete("failed", reason), trainer)


def _keep(record: RunRecord, trainer: Trainer) -> None:
    """Write the record and say how the run ended; on stderr what --quiet must not hide."""
    text = describe.closing(record, keep_record(record, trainer.config.records))
    trainer.console.say(text)
    if trainer.config.quiet and record.status != "ok":
        print(text, file=sys.stderr)


def _leave(code: int, world: World) -> int:
    """The exit code of a run that did not reach its end."""
    sys.stdout.flush()
    if world.world_size > 1:
        # A shutdown in order would wait for ranks that may not be there any more.
        os._exit(code)
    return code
