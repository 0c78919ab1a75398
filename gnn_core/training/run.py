"""One run, from a checked configuration to its record; the same in every framework.

The entry scripts end up here: `horovod_gnn/train.py` with several ranks, `baselines/single.py` with
one, `tf_mirrored/train.py` with Keras. Read `run` first, it is the whole story.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gnn_core.config import RunConfig, UsageError
from gnn_core.launch import launched_rank, launched_size
from gnn_core.measure.console import Console
from gnn_core.measure.records import begin_run, keep_record
from gnn_core.measure.resources.sampler import ResourceSampler
from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.measure.tensorboard import TensorBoard, folder_of_run
from gnn_core.streams import optional_output
from gnn_core.training import describe
from gnn_core.training.allocator import keep_freed_memory
from gnn_core.training.checkpoint import UNFINISHED
from gnn_core.training.claim import claimed
from gnn_core.training.elastic_state import ElasticState, RunHistory
from gnn_core.training.learner import Diverged, Framework
from gnn_core.training.preparation import (
    open_graph,
    pin_to_cores,
    require_launched_hosts,
    require_memory,
    require_same_job,
)
from gnn_core.training.session import Session
from gnn_core.training.stop_signals import listen_for_stop, listen_no_more
from gnn_core.training.tasks import split_sizes, targets_per_epoch
from gnn_core.training.world import Lost, Stopped, World, WorldChanged
from gnn_core.usage import one_line

_NO_MEMORY = re.compile(r"allocate memory|out of memory|OOM when allocating", re.IGNORECASE)


def run(read: Callable[[], RunConfig], framework: Framework) -> int:
    """Train, evaluate and write the record; the exit code.

    0: done. 1: the run failed (its record says why). 128 + n: stopped by signal n.

    Args:
        read: tells what to do.
        framework: with what.

    Raises:
        UsageError: something the user can put right; on every rank alike.
    """
    gc.freeze()  # what is imported stays: later collections need not look at it
    gc.enable()  # an entry script has disabled it while it imports
    keep_freed_memory()
    config = problem = None
    try:
        config = read()
    except UsageError as error:
        if launched_size() == 1:
            raise
        problem = str(error)
    kept = ElasticState(ResourceSampler(config.sample_seconds if config else 0))
    with optional_output():  # whoever reads it may go: the run has a record to write
        return _in_worlds(config, problem, framework, kept)


def _in_worlds(
    config: RunConfig | None, problem: str | None, framework: Framework, kept: ElasticState
) -> int:
    """Run with these ranks, and anew with those that are there when they have changed."""
    former = World()
    while True:
        try:
            world = framework.start(config)
        except WorldChanged:  # before they had met
            continue
        except UsageError as error:  # nobody is there to hear what this rank had to say
            raise UsageError(problem) if problem else error from None
        except Lost as error:
            _tell_lost(launched_rank(), error)
            return 1
        world.stop_signal = former.stop_signal  # it came while this one was made
        try:
            return _in_world(config, problem, world, framework, kept)
        except WorldChanged:
            world.leave_world()
            former = world
        finally:
            listen_no_more()


def _in_world(
    config: RunConfig | None,
    problem: str | None,
    world: World,
    framework: Framework,
    kept: ElasticState,
) -> int:
    """Run with these ranks, from wherever the run is; the exit code. Raises WorldChanged."""
    listen_for_stop(world)
    try:
        world.require_agreement(problem)  # a rank may stand alone with a file it cannot read
        assert config is not None
        return _run(config, world, framework, kept)
    except Stopped:  # before training began: there is nothing to save, and nobody to wait for
        return _leave(128 + (world.stop_signal or signal.SIGTERM), world)
    except Lost as error:  # before training began, or after it: no record says so
        _tell_lost(world.rank, error)
        return _leave(1, world)


def _run(config: RunConfig, world: World, framework: Framework, kept: ElasticState) -> int:
    is_quiet = config.quiet and not config.dry_run
    console = Console(world.rank == 0, "quiet" if is_quiet else config.progress)
    with world.errors_on_all_ranks():
        require_launched_hosts(world)
        _prepare(config, world, framework)
    graph = open_graph(config, world, console)
    with world.errors_on_all_ranks():
        config = config.for_graph(targets_per_epoch(config, graph))
        _prepare(config, world, framework)
        if not config.dry_run:
            require_memory(config, graph, world)
    require_same_job(config, graph, world)
    if config.dry_run:
        console.say(describe.dry_run(config, graph, world))
        return 0

    record = begin_run(
        strategy=framework.strategy(config),
        config=config.to_dict(),
        config_digest=config.digest(),
        dataset=DatasetInfo.of(graph, split_sizes(graph, config.task)),
        rank_hosts=world.replica_hosts,
        controller=world.controller,
    )
    kept.history = kept.history or RunHistory(record.run_id, record.started_at)
    with contextlib.ExitStack() as held:
        with world.errors_on_all_ranks():
            if config.pin and kept.place is None:
                pin_to_cores(world, config.threads)
            if world.rank == 0 and config.checkpoint_dir and not world.elastic:
                folder = Path(config.checkpoint_dir)
                held.enter_context(claimed(folder, kept.history.run_id, f".*{UNFINISHED}"))
        learner = framework.learn(config, graph, world)
        session = Session(config, learner, world, console, graph.fingerprint, kept)
        if world.monitor is not None:
            world.monitor.last_words = partial(_last_words, session, record, world.rank)
        if not session.history.worlds:
            console.tell(describe.opening(record, config, graph, learner))
        return _train(config, record, session, console, world)


def _train(
    config: RunConfig, record: RunRecord, session: Session, console: Console, world: World
) -> int:
    """Train, evaluate and keep the record; the exit code. Raises WorldChanged."""
    with world.errors_on_all_ranks():
        parent = config.tensorboard if world.rank == 0 else None
        run_id = session.history.run_id
        curves = TensorBoard(folder_of_run(parent, record.strategy, record.dataset.name, run_id))
    with contextlib.closing(curves):
        status, error = _outcome(session, curves, world.rank)
    record = session.complete(record, status, error)
    if world.rank == 0:
        told = describe.closing(record, keep_record(record, config.records))
        console.say(told)
        if config.quiet and record.status != "ok":
            print(told, file=sys.stderr)
    if record.status == "ok":
        world.leave()
        return 0
    if session.learner.interrupted or world.stops_together:
        # The launcher ends all ranks as soon as one has left, and rank 0 may have had to save.
        with contextlib.suppress(Stopped, Lost):
            world.barrier()
    if record.status == "interrupted":  # by a signal that reached this rank, or another one only
        return _leave(128 + (world.stop_signal or signal.SIGTERM), world)
    return _leave(1, world)


def _prepare(config: RunConfig, world: World, framework: Framework) -> None:
    """Check these settings against the ranks and the machine, and set that up. UsageError."""
    config.validate_world(world.num_replicas)
    if world.elastic:
        config.validate_elastic()
    framework.prepare(config, world)


def _outcome(session: Session, curves: TensorBoard, rank: int) -> tuple[str, str | None]:
    """Train; the status of the run and what went wrong, if anything did. Raises WorldChanged."""
    try:
        session.train(curves)
    except WorldChanged:
        raise
    except Stopped as stopped:
        return "interrupted", str(stopped)
    except Lost as error:
        if rank != 0:  # rank 0 tells it below, unless it is the one that is lost
            _tell_lost(rank, error)
        return "failed", str(error)
    except (Diverged, UsageError) as error:
        return "failed", str(error)
    except MemoryError as error:
        return "failed", _no_memory(error)
    except Exception as error:
        if _NO_MEMORY.search(str(error)):  # as frameworks say it
            return "failed", _no_memory(error)
        # Not the user's mistake: the record is written, the traceback printed, and the rank leaves.
        sys.excepthook(*sys.exc_info())
        return "failed", f"{type(error).__name__}: {error}"
    return "ok", None


def _no_memory(error: Exception) -> str:
    return (
        f"not enough memory ({one_line(error)[:200]}): lower --global-batch-size, --hidden or "
        "--fanouts, or start fewer ranks on a host; --dry-run bounds what a run takes"
    )


def _last_words(session: Session, record: RunRecord, rank: int, reason: str) -> None:
    """Write the record of a run whose main thread will not return, from another thread."""
    if rank == 0:
        record = session.complete(record, "failed", reason)
        print(describe.closing(record, keep_record(record, record.config["records"])))


def _tell_lost(rank: int, error: Lost) -> None:
    print(f"rank {rank} failed: {error}", file=sys.stderr)


def _leave(code: int, world: World) -> int:
    """The exit code of a run that did not reach its end."""
    sys.stdout.flush()
    if world.world_size > 1:
        # A shutdown in order would wait for ranks that may not be there any more.
        os._exit(code)
    return code
