"""One run, from a checked configuration to its record; the same on one process and on many.

Both entry scripts end up here: `horovod_gnn/train.py` with several ranks, `baselines/single.py`
with one. Read `run` first, it is the whole story.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from gnn_core.config import RunConfig, UsageError
from gnn_core.launch import launched_size, under_launcher
from gnn_core.report.curves import Curves
from gnn_core.report.narrate import Narrator
from gnn_core.report.records import begin_run, write_record
from gnn_core.report.schema import DatasetInfo, RunRecord
from horovod_gnn import describe
from horovod_gnn.loop import Diverged
from horovod_gnn.memory import keep_freed_memory
from horovod_gnn.parallel import OneProcess, Stopped
from horovod_gnn.session import Session
from horovod_gnn.setup import choose_device, open_graph, pin_to_cores, require_same_job


def run(read: Callable[[], RunConfig], start: Callable[[], OneProcess], strategy: str) -> int:
    """Train, evaluate and write the record; the exit code.

    0: done. 1: the run failed (its record says why). 128 + n: stopped by signal n.

    Args:
        read: tells what to do.
        start: joins the other ranks.
        strategy: what the record calls it.

    Raises:
        UsageError: something the user can put right; on every rank alike.
    """
    config = problem = None
    try:
        config = read()
    except UsageError as error:
        if launched_size() == 1:
            raise
        problem = str(error)
    parallel = start()
    listen_for_stop(parallel)
    try:
        parallel.require_agreement(problem)  # a rank may stand alone with a file it cannot read
        assert config is not None
        return _run(config, parallel, strategy)
    except Stopped:  # before training began: there is nothing to save, and nobody to wait for
        return _leave(128 + (parallel.stop_signal or signal.SIGTERM), parallel)


def _run(config: RunConfig, parallel: OneProcess, strategy: str) -> int:
    plain = config.progress == "auto" and under_launcher()
    narrator = Narrator(parallel.rank == 0, "lines" if plain else config.progress)
    with parallel.agreeing():
        config.validate_world(parallel.world_size)
        device = choose_device(config, parallel)
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    if config.threads == 1:
        torch.set_num_interop_threads(1)
    graph = open_graph(config, parallel, narrator)
    require_same_job(config, graph, parallel)
    if config.dry_run:
        narrator.say(describe.dry_run(config, graph, parallel))
        return 0

    record = begin_run(
        strategy=strategy,
        config=config.to_dict(),
        config_digest=config.digest(),
        dataset=DatasetInfo.of(graph),
        rank_hosts=parallel.rank_hosts,
        controller=parallel.controller,
    )
    with parallel.agreeing():
        if config.pin:
            pin_to_cores(parallel, config.threads)
    session = Session(config, graph, parallel, narrator, device, record.run_id)
    narrator.say(describe.opening(record, config, graph, session.training.model, parallel))
    with contextlib.closing(Curves(config.tensorboard if parallel.rank == 0 else None)) as curves:
        status, error = _outcome(session, curves, narrator)
    record = session.complete(record, status, error)
    if parallel.rank == 0:
        narrator.say(describe.closing(record, _keep(record, config.records)))
    if record.status == "ok":
        return 0
    if record.status == "interrupted":  # by a signal that reached this rank, or another one only
        return _leave(128 + (parallel.stop_signal or signal.SIGTERM), parallel)
    return _leave(1, parallel)


def listen_for_stop(parallel: OneProcess) -> None:
    """Let SIGTERM and Ctrl-C end the run at the next step; a second one ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        parallel.stop_signal = number
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _outcome(session: Session, curves: Curves, narrator: Narrator) -> tuple[str, str | None]:
    """Train; the status of the run and what went wrong, if anything did."""
    try:
        session.train(curves)
    except Stopped as stopped:
        return "interrupted", str(stopped)
    except (Diverged, UsageError) as error:
        return "failed", str(error)
    except Exception as error:
        # Not the user's mistake: the record is written, the traceback printed, and the rank leaves.
        sys.excepthook(*sys.exc_info())
        return "failed", f"{type(error).__name__}: {error}"
    return "ok", None


def _keep(record: RunRecord, folder: str) -> Path:
    """Write the record where it belongs; where that fails, elsewhere, and a UsageError says so."""
    try:
        return write_record(record, folder)
    except UsageError as error:
        path = write_record(record, tempfile.gettempdir())
        raise UsageError(f"{error}; the record of this run is in {path}") from None


def _leave(code: int, parallel: OneProcess) -> int:
    """The exit code of a run that did not reach its end."""
    sys.stdout.flush()
    if parallel.world_size > 1:
        # Horovod's shutdown would wait for ranks that may not be there any more.
        os._exit(code)
    return code
