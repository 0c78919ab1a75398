"""Jobs that are stopped, killed or diverge: nothing is lost, nothing hangs, nothing is left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.training.checkpoint import state_of
from gnn_core.training.claim import FILE
from tests.e2e.jobs import Job, job
from tests.e2e.small import LAUNCHERS, SINGLE, TRAIN, Place, assert_same_curve

pytestmark = pytest.mark.needs_torch
FP64 = 1e-10
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
ENDLESS = {"epochs": 1_000_000, "checkpoint_every_steps": 3, "progress": "off"}


@contextmanager
def training(place: Place, launcher: str | None = None, **changes: Any) -> Iterator[Job]:
    """A job in the midst of an endless training, at a moment that nobody chose."""
    words = place.saving(**{**ENDLESS, **changes})
    command = ["python", SINGLE, *words]
    if launcher:
        if not (LAUNCHERS / launcher).exists():
            pytest.skip(f"{launcher} is not installed: `make install`")
        command = [str(LAUNCHERS / launcher), "-np", "2", "python", TRAIN, *words]
    with job(command, place.folder) as started:
        started.wait_until((place.saved / BEST).exists)
        time.sleep(random.uniform(0, 0.3))
        yield started


@pytest.fixture
def epochs_reached(place: Place) -> Callable[[], int]:
    """Give `epochs_reached()`: how many epochs the checkpoint has seen, the present one included.

    Reading it is a check by itself: a half-written one does not load.
    """
    return lambda: state_of((place.saved / LAST).read_bytes()).progress.epoch + 1


def assert_ends_like(part: RunRecord, whole: RunRecord) -> None:
    """What `part` did is the end of what `whole` did."""
    losses, tail = part.step_losses or [], (whole.step_losses or [])[-len(part.step_losses or []) :]
    assert len(losses) > 0
    assert losses == pytest.approx(tail, rel=FP64)
    assert part.final["test_accuracy"] == whole.final["test_accuracy"]


def resumed_by(single: Callable, place: Place, epochs: int) -> RunRecord:
    """Go on in this process; the new record."""
    done = single(place.saving(epochs=epochs, resume=True, progress="off"))
    assert done.code == 0, done.err
    return place.record()


def test_sigterm_to_one_process_and_its_run_goes_on_alone_and_on_two_ranks(
    single: Callable, horovodrun: Callable, place: Place, epochs_reached: Callable, whole: Callable
) -> None:
    with training(place) as started:
        os.kill(started.pid, signal.SIGTERM)
        assert started.end() == 128 + signal.SIGTERM
        assert "interrupted: stopped at epoch " in started.out
        assert "go on with --resume from " in started.out
        assert started.err == ""
    stopped = place.record()
    assert stopped.status == "interrupted"
    epochs = epochs_reached() + 1
    expected = whole(epochs)
    copy = Place(place.folder / "copy", place.cache)
    shutil.copytree(place.saved, copy.saved)

    rest = resumed_by(single, place, epochs)
    assert_same_curve([stopped, rest], expected, FP64)
    assert rest.resumed_from is not None
    assert rest.resumed_from["run_id"] == stopped.run_id

    done = horovodrun(2, [TRAIN, *copy.saving(epochs=epochs, resume=True)])
    assert done.returncode == 0, done.stderr
    assert_same_curve([stopped, copy.record()], expected, FP64)


@pytest.mark.needs_horovod
@pytest.mark.parametrize("launcher", ["mpirun", pytest.param("horovodrun", marks=pytest.mark.long)])
def test_sigterm_to_the_launcher_and_the_run_goes_on_alone(
    single: Callable, place: Place, epochs_reached: Callable, whole: Callable, launcher: str
) -> None:
    with training(place, launcher) as started:
        os.kill(started.pid, signal.SIGTERM)
        assert started.end() != 0
        assert "interrupted: stopped at epoch " in started.out
        assert "Traceback" not in started.out + started.err
    stopped = place.record()
    assert (stopped.status, stopped.world_size) == ("interrupted", 2)
    epochs = epochs_reached() + 1
    rest = resumed_by(single, place, epochs)
    assert_same_curve([stopped, rest], whole(epochs), FP64)


@pytest.mark.long  # with parts of the graph, and what comes after, in test_topology_runs
@pytest.mark.needs_horovod
def test_sigterm_to_one_rank_ends_all_with_143(place: Place) -> None:
    with training(place, "mpirun") as started:
        os.kill(started.pid_of_rank(1), signal.SIGTERM)
        assert started.end() == 128 + signal.SIGTERM
        assert started.out.count("interrupted: stopped at epoch ") == 1
    assert place.record().status == "interrupted"


@pytest.mark.needs_horovod
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_lost_rank_ends_the_job_which_can_go_on(
    single: Callable, place: Place, epochs_reached: Callable, whole: Callable, rank: int
) -> None:
    with training(place, "mpirun") as started:
        os.kill(started.pid_of_rank(rank), signal.SIGKILL)
        code = started.end(60)
        assert code == 128 + signal.SIGKILL
        assert f"process rank {rank} " in started.err
        assert "signal 9 (Killed)" in started.err
        assert "Traceback" not in started.out + started.err
    if rank != 0:  # rank 0 outlived it, saved where it stood and said so
        assert place.record().status == "interrupted"
    epochs = epochs_reached() + 1
    assert_ends_like(resumed_by(single, place, epochs), whole(epochs))


KILLED_AGAIN_AND_AGAIN = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from gnn_core.launch import guarded
from gnn_core.training.checkpoint import state_of
from gnn_core.training.claim import FILE
from baselines.single import main

rounds, last, words = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1)], fused=True)  # imports much, once for all children
for _ in range(rounds):
    before = last.stat().st_mtime_ns if last.exists() else 0
    child = os.fork()
    if child == 0:
        sys.argv = ["single.py", *words]
        os._exit(guarded(main))
    while not last.exists() or last.stat().st_mtime_ns == before:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            sys.exit(f"a run ended by itself: {status}")
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state_of(last.read_bytes())
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_killed_while_it_saves_and_saves(
    run_cli: Callable,
    single: Callable,
    place: Place,
    epochs_reached: Callable,
    whole: Callable,
    rounds: int,
) -> None:
    """A run that does little else than saving is killed and resumed, many times."""
    settings = {**ENDLESS, "checkpoint_every_steps": 1}
    words = place.saving(**settings, resume=True)
    script = ["python", "-c", KILLED_AGAIN_AND_AGAIN, str(rounds), place.saved / LAST, *words]
    done = run_cli(script, timeout=5 * rounds + 35)
    assert done.returncode == 0, done.stderr
    assert not place.records.exists() or not list(place.records.iterdir())
    files = {path.name for path in place.saved.iterdir() if not path.match(".*.unfinished")}
    assert files <= {LAST, PREVIOUS, BEST, FILE}
    epochs = epochs_reached() + 1
    assert_ends_like(resumed_by(single, place, epochs), whole(epochs))
    assert not list(place.saved.glob(".*.unfinished"))


def test_a_loss_that_is_no_number_fails_the_run(single: Callable, place: Place) -> None:
    done = single(place.flags(lr=1e30, precision="fp32"))
    assert (done.code, done.err) == (1, "")
    said = [line for line in done.out.splitlines() if line.startswith("failed: ")]
    assert len(said) == 1
    assert "the loss is " in said[0]
    assert said[0].endswith("lower --lr")
    (path,) = place.records.iterdir()
    record = place.record()
    assert record.status == "failed"
    assert record.error is not None
    assert "lower --lr" in record.error
    assert "NaN" not in path.read_text()


def test_weights_spoilt_by_the_very_last_step_fail_the_run(single: Callable, place: Place) -> None:
    done = single(place.flags(lr=1e30, precision="fp32", epochs=1, global_batch_size=5000))
    assert (done.code, done.err) == (1, "")
    assert "failed: the loss on the valid split is nan: lower --lr" in done.out
    assert place.record().status == "failed"


@pytest.mark.long  # it is a sum over the ranks, the same on all
@pytest.mark.needs_horovod
def test_a_loss_that_is_no_number_fails_all_ranks(horovodrun: Callable, place: Place) -> None:
    words = place.flags(lr=1e30, precision="fp32")
    done = horovodrun(2, [TRAIN, *words], launcher="mpirun")
    assert done.returncode == 1
    assert done.stdout.count("failed: the loss is ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert place.record().status == "failed"


def test_an_error_of_ours_leaves_a_record_and_a_traceback(
    single: Callable, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from horovod_gnn.learner import TorchLearner

    def broken(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(TorchLearner, "train_epoch", broken)
    done = single(place.flags())
    assert done.code == 1
    assert done.err.count("Traceback") == 1
    assert "RuntimeError: a bug" in done.err
    assert (place.record().status, place.record().error) == ("failed", "RuntimeError: a bug")


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("after_seconds", [0.5, 1.5, 2.5, 3.5])
def test_a_rank_lost_before_training_ends_the_job(
    place: Place, after_seconds: float, rank: int
) -> None:
    command = [str(LAUNCHERS / "mpirun"), "-np", "2", "python", TRAIN, *place.saving(**ENDLESS)]
    with job(command, place.folder) as started:
        time.sleep(after_seconds)
        os.kill(started.pid_of_rank(rank), signal.SIGKILL)
        assert started.end(60) == 128 + signal.SIGKILL
        assert f"process rank {rank} " in started.err
        assert "Traceback" not in started.out + started.err


@pytest.mark.long
@pytest.mark.needs_horovod
def test_ctrl_c_on_a_terminal_reaches_launcher_and_ranks(place: Place) -> None:
    with training(place, "horovodrun") as started:
        os.killpg(started.pid, signal.SIGINT)
        assert started.end() != 0
        assert "interrupted: stopped at epoch " in started.out
    assert place.record().status == "interrupted"


@pytest.mark.long
def test_ctrl_c_ends_one_process_with_130(place: Place) -> None:
    with training(place) as started:
        os.kill(started.pid, signal.SIGINT)
        assert started.end() == 128 + signal.SIGINT
    assert place.record().status == "interrupted"


@pytest.mark.long
def test_many_random_kills_of_one_process(
    single: Callable, place: Place, epochs_reached: Callable, whole: Callable
) -> None:
    for _ in range(5):
        with training(place, resume=True) as started:
            time.sleep(random.uniform(0, 1))
            os.kill(started.pid, signal.SIGKILL)
            assert started.end() == -signal.SIGKILL
        assert epochs_reached() > 0
    epochs = epochs_reached() + 1
    assert_ends_like(resumed_by(single, place, epochs), whole(epochs))
