"""Ranks that stand still, never come or were told of another world: nobody waits without end.

Every bound here is in seconds from the fault to the end of the job and of all its processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.jobs import Job, job
from tests.e2e.small import DDP, LAUNCHERS, LAUNCHING, ROOT, SINGLE, TRAIN, Place
from tests.e2e.test_bad_input import AT_ONCE, QUICK_END
from tests.e2e.test_ddp import by_hand

KERAS = str(ROOT / "tf_mirrored" / "train.py")
BEST = "best.safetensors"
LIMIT = 8  # --collective-timeout
ENDLESS = {"epochs": 1_000_000, "progress": "off", "collective_timeout": LIMIT}
MPIRUN = [str(LAUNCHERS / "mpirun"), "--oversubscribe", "-np", "2", "python"]
HOROVODRUN = [str(LAUNCHERS / "horovodrun"), "-np", "2", "-H", "localhost:2"]
TORCHRUN = [str(LAUNCHERS / "torchrun"), "--standalone", "--nproc-per-node", "2"]
WORKERS = {"strategy": "multiworker", "threads": 1}
# A job of two ranks: its command, its settings, seconds that its launcher takes to end it.
JOBS: dict[str, tuple[list[str], dict[str, Any], float]] = {
    "horovod by mpirun": ([*MPIRUN, TRAIN], {}, 10),
    "horovod over Gloo": (
        [*HOROVODRUN, "--gloo", "--network-interfaces", "lo", "python", TRAIN],
        {},
        15,
    ),
    "ddp by mpirun": ([*MPIRUN, DDP], {}, 10),
    "ddp by torchrun": ([*TORCHRUN, DDP], {}, 40),
    "multiworker": ([*MPIRUN, KERAS], WORKERS, 15),
}


def python_of_rank(started: Job, rank: int) -> psutil.Process:
    """The process of a rank, by the variables of its launcher."""
    names = {"OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "RANK"}
    for process in psutil.Process(started.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            reported = process.environ()
            mine = any(reported.get(name) == str(rank) for name in names)
            if mine and any(word.endswith(".py") for word in process.cmdline()):
                return process
    raise AssertionError(f"rank {rank} is not running:\n{started.out}\n{started.err}")


@contextlib.contextmanager
def training(place: Place, name: str) -> Iterator[Job]:
    command, changes, _ = JOBS[name]
    with job([*command, *place.saving(**ENDLESS, **changes)], place.folder) as started:
        started.wait_until((place.saved / BEST).exists, 120)
        yield started


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", JOBS)
def test_a_rank_that_stands_still_is_named_and_ends_the_job(
    place: Place, name: str, rank: int
) -> None:
    with training(place, name) as started:
        process = python_of_rank(started, rank)
        process.suspend()
        begun = time.monotonic()
        code = started.end(LIMIT + JOBS[name][2] + 15)
        seconds = time.monotonic() - begun
        said = started.out + started.err
    print(f"{name}, rank {rank}: {seconds:.1f} s")
    assert code == 1
    assert re.search(rf"failed: rank {rank} \(\S+, pid {process.pid}\) is stopped", said)
    assert f"(--collective-timeout {LIMIT})" in said
    assert seconds < LIMIT + JOBS[name][2]
    if name not in ("ddp by torchrun", "horovod over Gloo"):  # whose launchers have their own
        assert "Traceback" not in said
    if rank == 1:
        assert place.record().status == "failed"


@pytest.mark.long
@pytest.mark.parametrize("name", ["horovod by mpirun", "ddp by mpirun", "multiworker"])
def test_a_rank_that_stands_still_for_a_while_goes_on(place: Place, name: str) -> None:
    with training(place, name) as started:
        process = python_of_rank(started, 1)
        process.suspend()
        time.sleep(LIMIT / 2)
        process.resume()
        time.sleep(2 * LIMIT)
        started.wait_until(lambda: True)
        before = (place.saved / "last.safetensors").stat().st_mtime_ns
        started.wait_until(lambda: (place.saved / "last.safetensors").stat().st_mtime_ns > before)
        os.kill(started.pid, signal.SIGTERM)
        assert started.end() != 0
    assert "failed" not in started.out + started.err


NEVER = "import time; time.sleep(100)"


@pytest.mark.long
@pytest.mark.parametrize("program", [TRAIN, DDP, KERAS])
def test_a_rank_that_never_joins_mpi(run_cli: Callable, place: Place, program: str) -> None:
    changes = WORKERS if program == KERAS else {}
    command = [*MPIRUN[:2], "-np", "1", "python", program]
    words = [*place.flags(start_timeout=4, **changes), ":", "-np", "1", "python", "-c", NEVER]
    begun = time.monotonic()
    done = run_cli([*command, *words], env=QUICK_END, timeout=40)
    assert time.monotonic() - begun < 25
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "expected 2 ranks within 4 s, but MPI still waits for some of them: rank 1" in line
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.needs_horovod
def test_a_rank_that_never_joins_gloo_is_named(run_cli: Callable, place: Place) -> None:
    rank_1_sleeps = 'test "$HOROVOD_RANK" = 1 && exec sleep 100; exec "$0" "$@"'
    command = [*HOROVODRUN, "--gloo", "--network-interfaces", "lo", "sh", "-c", rank_1_sleeps]
    begun = time.monotonic()
    done = run_cli(
        [*command, LAUNCHERS / "python", TRAIN, *place.flags(start_timeout=4)],
        env=LAUNCHING,
        timeout=60,
    )
    assert time.monotonic() - begun < 30
    assert done.returncode != 0
    assert "expected 2 ranks within 4 s, got 1: rank 1 did not arrive at " in done.stderr
    assert "terminate called" not in done.stderr


def start_by_hand(
    stack: contextlib.ExitStack, place: Place, variables: Sequence[dict[str, str]], **changes: Any
) -> list[Job]:
    jobs = []
    for reported in variables:
        words = ["env", *(f"{name}={value}" for name, value in reported.items()), "python", DDP]
        jobs.append(stack.enter_context(job([*words, *place.saving(**changes)], place.folder)))
    return jobs


def test_ranks_that_are_given_different_worlds(place: Place) -> None:
    variables = by_hand(0)
    reported = [variables, {**variables, "RANK": "1", "WORLD_SIZE": "3"}]
    with contextlib.ExitStack() as stack:
        begun = time.monotonic()
        for started in start_by_hand(stack, place, reported):
            assert started.end(40) == 2
            (line,) = [line for line in started.err.splitlines() if line]
            assert line.startswith("error: ")
            assert "expected the same WORLD_SIZE on every rank" in line
        assert time.monotonic() - begun < 30


@pytest.mark.long
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_by_hand_that_stands_still(place: Place, stopped: int) -> None:
    variables = by_hand(0)
    reported = [variables, {**variables, "RANK": "1"}]
    with contextlib.ExitStack() as stack:
        jobs = start_by_hand(stack, place, reported, **ENDLESS)
        jobs[0].wait_until((place.saved / BEST).exists)
        os.kill(jobs[stopped].pid, signal.SIGSTOP)
        begun = time.monotonic()
        left = jobs[1 - stopped]
        assert left.end(LIMIT + 10) == 1
        assert time.monotonic() - begun < LIMIT + 8
        assert f"failed: rank {stopped} (" in left.out + left.err
        os.kill(jobs[stopped].pid, signal.SIGCONT)
        assert jobs[stopped].end(20) == 1


# -- variables of another launcher -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (SINGLE, ["--help"]),
        pytest.param(SINGLE, ["--epocs", "3"], marks=pytest.mark.long),
        pytest.param(SINGLE, ["--dry-run"], marks=pytest.mark.long),
        (TRAIN, ["--help"]),
        (TRAIN, ["--epocs", "3"]),
        (TRAIN, ["--dry-run"]),
        (DDP, ["--help"]),  # for all else it waits for the other rank, as it is to
    ],
)
def test_what_a_pod_has_set_silences_nobody(
    run_cli: Callable, place: Place, program: str, words: list[str]
) -> None:
    env = {**by_hand(1), "LOCAL_RANK": "0"}
    done = run_cli(["python", program, *place.flags(), *words], env=env)
    if words == ["--epocs", "3"]:
        assert done.returncode == 2
        assert "unknown flag" in done.stderr or "--epocs" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert "--global-batch-size" in done.stdout


@pytest.mark.needs_horovod
def test_gloo_left_over_under_mpirun(run_cli: Callable, place: Place) -> None:
    env = {**AT_ONCE, "HOROVOD_CONTROLLER": "gloo"}
    done = run_cli([*MPIRUN, TRAIN, *place.flags()], env=env)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "HOROVOD_CONTROLLER: expected mpi under mpirun, got gloo" in line


PROXIES = {
    name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
}


@pytest.mark.long
@pytest.mark.parametrize("name", ["multiworker", "horovod over Gloo"])
def test_no_proxy_stands_between_ranks(run_cli: Callable, place: Place, name: str) -> None:
    command, changes, _ = JOBS[name]
    words = place.flags(epochs=1, **changes)
    done = run_cli([*command, *words], env={**QUICK_END, **PROXIES}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert place.record().world_size == 2


@pytest.mark.needs_horovod
@pytest.mark.parametrize("program", [TRAIN, pytest.param(DDP, marks=pytest.mark.long)])
def test_mpirun_and_python_by_two_names(
    run_cli: Callable, place: Place, tmp_path: Path, program: str
) -> None:
    """A home that is a link: Open MPI waits for ever where its folder has two names."""
    link = tmp_path / "venv"
    link.symlink_to(LAUNCHERS.parent)
    python = str(link / "bin" / "python")
    done = run_cli([*MPIRUN[:-1], python, program, *place.flags(epochs=1)], env=QUICK_END)
    assert done.returncode == 0, done.stderr
    assert place.record().world_size == 2


# -- before the ranks have met ---------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("program", [TRAIN, DDP, KERAS])
@pytest.mark.parametrize("after_seconds", [1.0, 4.0, 8.0])
def test_sigterm_ends_a_rank_that_waits_to_join(
    place: Place, program: str, after_seconds: float
) -> None:
    changes = WORKERS if program == KERAS else {}
    command = [*MPIRUN[:2], "-np", "1", "python", program]
    words = [*place.flags(**changes), ":", "-np", "1", "python", "-c", NEVER]
    with job([*command, *words], place.folder) as started:
        time.sleep(after_seconds)
        process = python_of_rank(started, 0)
        process.terminate()
        begun = time.monotonic()
        started.end(20)
        assert time.monotonic() - begun < 10
    assert "Traceback" not in started.err


def test_sigterm_while_data_is_prepared(place: Place) -> None:
    """The main thread is in C for long: there is nothing to save yet."""
    words = place.flags(dataset="synthetic:papers=3e6", cache_dir=place.folder / "elsewhere")
    with job(["python", SINGLE, *words], place.folder) as started:
        started.wait_until(lambda: "preparing it" in started.out)
        time.sleep(1)
        os.kill(started.pid, signal.SIGTERM)
        begun = time.monotonic()
        assert started.end(20) == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 8
    assert "Traceback" not in started.err
