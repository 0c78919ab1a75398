"""Ranks under torch.distributed as a user starts them: by torchrun, by mpirun, by hand."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.training.checkpoint import state_of
from tests.e2e.conftest import Outcome
from tests.e2e.jobs import Job, job
from tests.e2e.small import DDP, LAUNCHERS, LAUNCHING, Place, assert_same_curve
from tests.e2e.test_bad_input import AT_ONCE, QUICK_END, assert_refused, assert_refused_once
from tests.e2e.test_commands import assert_told_in_plain_lines

pytestmark = pytest.mark.needs_torch
FP64 = 1e-10
LAST, BEST = "last.safetensors", "best.safetensors"
ENDLESS = {"epochs": 1_000_000, "checkpoint_every_steps": 3, "progress": "off"}
TORCHRUN = [str(LAUNCHERS / "torchrun"), "--standalone", "--nproc-per-node", "2"]
MPIRUN = [str(LAUNCHERS / "mpirun"), "--oversubscribe", "--bind-to", "none", "-np", "2", "python"]


@pytest.fixture
def ddp(
    in_process: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[str]], Outcome]:
    """Give `ddp(words)`: `python baselines/ddp.py <words>`, inside this process."""
    from torch import distributed

    from baselines.ddp import main

    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)  # a run sets it

    def start(words: Sequence[str]) -> Outcome:
        try:
            return in_process(main, words, meets_by_rank=True)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()

    return start


def by_hand(rank: int, world_size: int = 2, port: int = 0) -> dict[str, str]:
    """The variables that make a process one of several ranks on this host."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def assert_sound(record: RunRecord, ranks: int) -> None:
    """What a record says of itself."""
    assert (record.status, record.strategy, record.controller) == ("ok", "ddp", "gloo")
    assert record.world_size == len(record.memory) == ranks


# -- commands --------------------------------------------------------------------------------------


def test_torchrun_from_another_folder(run_cli: Callable, place: Place, whole: Callable) -> None:
    folder = place.folder / "elsewhere"
    folder.mkdir()
    words = place.flags(records="here", assign="locality")
    done = run_cli([*TORCHRUN, DDP, *words], timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr  # torchrun tells that it has set OMP_NUM_THREADS
    lines = assert_told_in_plain_lines(done.stdout)
    assert lines[0].startswith("launched   torchrun --standalone --nproc-per-node 2 ")
    assert "ranks      2: 2 on" in lines[1]
    assert "(ddp over gloo)" in lines[1]
    there = Place(folder, place.cache)
    (folder / "here").rename(there.records)
    assert_sound(there.record(), 2)
    assert_same_curve([there.record()], whole(), FP64)


def test_one_rank_by_hand(ddp: Callable, place: Place, whole: Callable) -> None:
    done = ddp(place.flags())
    assert (done.code, done.err) == (0, "")
    assert "one rank only: `torchrun --nproc-per-node 4 baselines/ddp.py` starts four" in done.out
    assert_sound(place.record(), 1)
    assert_same_curve([place.record()], whole(), FP64)


@pytest.mark.needs_mpi4py
@pytest.mark.needs_horovod
def test_mpirun_of_a_run_that_one_process_began(
    horovodrun: Callable, single: Callable, place: Place, whole: Callable
) -> None:
    """An epoch each."""
    assert single(place.saving(epochs=1)).code == 0
    done = horovodrun(2, [DDP, *place.saving(epochs=2, resume=True)], launcher="mpirun")
    assert (done.returncode, done.stderr) == (0, "")
    parts = place.all_records()
    assert [part.strategy for part in parts] == ["single", "ddp"]
    assert_sound(parts[-1], 2)
    assert_same_curve(parts, whole(), FP64)


def test_a_dry_run_leaves_nothing(ddp: Callable, place: Place) -> None:
    done = ddp(place.saving(dry_run=True, start_timeout=7))
    assert (done.code, done.err) == (0, "")
    assert re.search(r"--start-timeout +7 +flag", done.out)
    assert list(place.folder.iterdir()) == []


# -- signals ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def training(place: Place, launcher: Sequence[str]) -> Iterator[Job]:
    """Two ranks in the midst of an endless training."""
    with job([*launcher, DDP, *place.saving(**ENDLESS)], place.folder) as started:
        started.wait_until((place.saved / BEST).exists)
        yield started


def assert_goes_on(single: Callable, place: Place, whole: Callable) -> None:
    """In one process, from where the ranks were stopped."""
    stopped = place.record()
    assert (stopped.status, stopped.world_size) == ("interrupted", 2)
    epochs = state_of((place.saved / LAST).read_bytes()).progress.epoch + 2
    assert single(place.saving(epochs=epochs, resume=True, progress="off")).code == 0
    assert_same_curve([stopped, place.record()], whole(epochs), FP64)


@pytest.mark.long
@pytest.mark.needs_mpi4py
def test_sigterm_to_one_rank_ends_all_with_143(
    single: Callable, place: Place, whole: Callable
) -> None:
    """To rank 0, which has to save while the other has nothing left to do."""
    with training(place, MPIRUN) as started:
        os.kill(started.pid_of_rank(0), signal.SIGTERM)
        assert started.end() == 128 + signal.SIGTERM
        assert started.out.count("interrupted: stopped at epoch ") == 1
        assert "Traceback" not in started.out + started.err
    assert_goes_on(single, place, whole)


def test_sigterm_to_a_rank_under_torchrun(single: Callable, place: Place, whole: Callable) -> None:
    """Torchrun has exit code 1 for whatever has gone wrong, and tells the rank's own."""
    with training(place, TORCHRUN) as started:
        os.kill(started.pid_of_rank(1), signal.SIGTERM)
        assert started.end() == 1
        assert started.out.count("interrupted: stopped at epoch ") == 1
        assert re.search(r"exitcode +: 143", started.err)
    assert_goes_on(single, place, whole)


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_lost_rank_ends_the_other_which_says_so(place: Place, killed: int) -> None:
    """Without a launcher, which would end the other too."""
    variables = by_hand(0)
    with contextlib.ExitStack() as stack:
        jobs = []
        for rank in range(2):
            reported = [f"{name}={value}" for name, value in {**variables, "RANK": rank}.items()]
            words = ["env", *reported, "python", DDP, *place.saving(**ENDLESS)]
            jobs.append(stack.enter_context(job(words, place.folder)))
        jobs[0].wait_until((place.saved / BEST).exists)
        os.kill(jobs[killed].pid, signal.SIGKILL)
        assert jobs[killed].end() == -signal.SIGKILL
        left = jobs[1 - killed]
        assert left.end(30) == 1
    said = left.out + left.err
    assert said.count("failed: some rank answers no more (") == 1
    assert "--resume to go on from the last checkpoint" in said
    assert "Traceback" not in said
    if killed == 1:
        assert place.record().status == "failed"
    state_of((place.saved / LAST).read_bytes())  # it is whole


# -- what a user may get wrong ---------------------------------------------------------------------

# What is typed after the flags of a small run -> words of the answer.
FLAGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a flag of Keras": (
        {"replicas": 2},
        ["--replicas: the ddp strategy ignores it: it is one of tf_mirrored/train.py"],
    ),
    "another flag of Keras": ({"strategy": "one"}, ["--strategy: the ddp strategy ignores it"]),
    "no time": (
        {"start_timeout": 0},
        ["--start-timeout: expected a finite number above 0 and at most 1000000, got"],
    ),
    "hardly any patience": (
        {"collective_timeout": 1},
        ["--collective-timeout: expected a finite number at least 5, got 1"],
    ),
    "other ranks than meant": ({"world_size": 4}, ["--world-size: ", "4 ranks but 1 started"]),
    "unknown data set": ({"dataset": "coraa"}, ["unknown data set 'coraa', did you mean cora?"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(ddp: Callable, place: Place, case: str) -> None:
    changes, words = FLAGS[case]
    done = ddp(place.flags(**changes))
    assert_refused(done.code, done.err, *words)
    assert done.out == ""


def test_a_gpu_where_there_is_none(ddp: Callable, place: Place) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = ddp(place.flags(device="cuda"))
    assert_refused(done.code, done.err, "--device cuda: expected a GPU, found none; use --device")


def test_half_of_torchruns_variables(
    ddp: Callable, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    done = ddp(place.flags())
    assert_refused(done.code, done.err, "WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set")


@pytest.mark.parametrize("present", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_rank_that_never_arrives(
    ddp: Callable, place: Place, monkeypatch: pytest.MonkeyPatch, present: int
) -> None:
    for name, value in by_hand(present).items():
        monkeypatch.setenv(name, value)
    done = ddp(place.flags(start_timeout=1))
    words = [
        ["expected 2 ranks within 1 s, got 1: rank 1 did not arrive at localhost:"],
        ["error: rank 1: expected rank 0 at localhost:", "within 1 s, got no answer"],
    ]
    assert_refused(done.code, done.err, *words[present], "--start-timeout")
    assert not place.records.exists()


@pytest.mark.needs_mpi4py
def test_a_rank_that_never_joins_the_mpi_world(run_cli: Callable, place: Place) -> None:
    command = [LAUNCHERS / "mpirun", "--oversubscribe", "-np", "1", "python", DDP]
    words = [*place.flags(start_timeout=2), ":", "-np", "1", "sleep", "60"]
    done = run_cli([*command, *words], env=AT_ONCE)
    assert_refused_once(done, "expected 2 ranks within 2 s, but MPI still waits for some of them")


@pytest.mark.long
def test_two_ranks_of_torchrun_say_it_once(run_cli: Callable, place: Place) -> None:
    """Torchrun has its own exit code, and tells that of the ranks."""
    done = run_cli([*TORCHRUN, DDP, *place.flags(global_batch_size=1)], timeout=120, env=LAUNCHING)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "expected at least one target per rank, got 1 for 2 ranks" in line
    assert re.search(r"exitcode +: 2 ", done.stderr)
    assert done.stderr.count("Traceback") == 1  # torchrun's own
    assert not place.records.exists()


@pytest.mark.long
@pytest.mark.needs_mpi4py
def test_a_loss_that_is_no_number_fails_all_ranks(run_cli: Callable, place: Place) -> None:
    words = place.flags(lr=1e30, precision="fp32")
    done = run_cli([*MPIRUN, DDP, *words], timeout=120, env=QUICK_END)
    assert done.returncode == 1
    assert done.stdout.count("failed: the loss is ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert place.record().status == "failed"
