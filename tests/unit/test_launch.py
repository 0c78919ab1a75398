"""What the launcher said, and a user's mistake reported once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnn_core import launch
from gnn_core.launch import (
    by_torchrun,
    guarded,
    launched_rank,
    launched_size,
    placement_problem,
    require_mpi_launcher,
    seconds_until_killed,
    under_launcher,
)
from gnn_core.usage import SharedUsageError, UsageError

RANKS = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", "SLURM_PROCID", "RANK")
SIZES = (
    *("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE"),
    *("SLURM_STEP_NUM_TASKS", "WORLD_SIZE"),
)
KILL = "OMPI_MCA_odls_base_sigkill_timeout"


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make as if nobody launched us, also where the tests themselves run under mpirun."""
    for name in (*RANKS, *SIZES, "TORCHELASTIC_RUN_ID", KILL):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect how long it would have slept."""
    seconds: list[float] = []
    monkeypatch.setattr(launch.time, "sleep", seconds.append)
    return seconds


def by_mpirun(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
    monkeypatch.setenv("PMIX_NAMESPACE", "7")  # without it, it is what another job has left over


def refuse() -> int:
    raise UsageError("expected a folder, got a file; correct --data-root")


def refuse_as_all_do() -> int:
    raise SharedUsageError("expected 4 ranks, got 2")


def test_started_by_hand() -> None:
    assert (launched_rank(), launched_size(), under_launcher()) == (0, 1, False)


@pytest.mark.parametrize(("rank", "size"), [*zip(RANKS, SIZES, strict=True)])
def test_every_launcher_is_understood(
    rank: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rank, "3")
    monkeypatch.setenv(size, "12")
    assert (launched_rank(), launched_size(), under_launcher()) == (3, 12, True)


def test_the_launcher_goes_before_what_a_shell_has_lying_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A RANK from elsewhere is on every rank the same; mpirun's own name is not."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert (launched_rank(), launched_size()) == (2, 4)


def test_a_torchrun_that_mpirun_started_is_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip((*RANKS[::4], *SIZES[::4]), ("1", "5", "2", "8"), strict=True):
        monkeypatch.setenv(name, value)
    assert (launched_rank(), launched_size(), by_torchrun()) == (1, 2, False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert (launched_rank(), launched_size(), by_torchrun()) == (5, 8, True)


def test_srun_is_refused_by_what_meets_through_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    require_mpi_launcher()
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(SharedUsageError, match="srun started 2 copies .* with mpirun inside"):
        require_mpi_launcher()


def test_how_long_a_launcher_waits_before_it_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_until_killed() == 30
    monkeypatch.setenv("RANK", "0")
    assert seconds_until_killed() == 30
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert seconds_until_killed() == 30
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert seconds_until_killed() == 2
    monkeypatch.setenv(KILL, "7")
    assert seconds_until_killed() == 7
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert seconds_until_killed() == 30


@pytest.mark.parametrize("value", ["", "first", "-1", "1.5"])
def test_what_is_no_rank_is_not_taken_for_one(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", value)
    monkeypatch.setenv("WORLD_SIZE", value)
    assert (launched_rank(), launched_size()) == (0, 1)
    monkeypatch.setenv("PMI_RANK", "5")
    assert launched_rank() == 5


def test_a_good_end_passes_through(capfd: pytest.CaptureFixture[str], slept: list[float]) -> None:
    assert guarded(lambda: 0) == 0
    assert guarded(lambda: 7) == 7
    assert capfd.readouterr() == ("", "")
    assert slept == []


@pytest.mark.parametrize("main", [refuse, refuse_as_all_do])
def test_rank_0_tells_a_mistake_in_one_line_at_once(
    main: object, capfd: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    assert guarded(main) == 2  # type: ignore[arg-type]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: expected ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert slept == []


def test_other_ranks_leave_what_all_did_wrong_to_rank_0(
    capfd: pytest.CaptureFixture[str], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And wait, since the first rank to fail ends all the others: also the one that tells."""
    by_mpirun(monkeypatch, "1")
    assert guarded(refuse_as_all_do) == 2
    assert capfd.readouterr() == ("", "")
    assert len(slept) == 1
    assert slept[0] >= 1


def test_a_rank_that_is_alone_with_its_mistake_tells_it_and_says_who_it_is(
    capfd: pytest.CaptureFixture[str], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_mpirun(monkeypatch, "3")
    assert guarded(refuse) == 2
    assert capfd.readouterr().err == (
        "error: rank 3: expected a folder, got a file; correct --data-root\n"
    )
    assert len(slept) == 1  # rank 0 had the chance to tell it first


@pytest.mark.parametrize("meets_by_rank", [False, True])
def test_a_rank_that_nobody_speaks_for_tells_what_all_did_wrong(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, meets_by_rank: bool
) -> None:
    """In a pod of its own, or where a shell has kept the variables of another job."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert guarded(refuse_as_all_do, meets_by_rank) == 2
    of = "rank 1: " if meets_by_rank else ""
    assert capfd.readouterr().err == f"error: {of}expected 4 ranks, got 2\n"


def test_a_lost_rank_ends_any_program_in_one_line() -> None:
    program = """if True:
        import sys
        from gnn_core.launch import guarded
        from gnn_core.usage import Lost
        def main(): raise Lost("rank 1 has ended")
        sys.exit(guarded(main))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "rank 0 failed: rank 1 has ended\n")


@pytest.mark.parametrize("error", [ValueError, KeyError, SystemExit])
def test_a_bug_keeps_its_traceback(error: type[BaseException]) -> None:
    """Only the user's mistakes are told in a line."""

    def fail() -> int:
        raise error("broken")

    with pytest.raises(error):
        guarded(fail)


HOSTFILE = "job-worker-0.job.default.svc slots=2\njob-worker-1.job.default.svc slots=2\n"


@pytest.mark.parametrize(
    ("rank_hosts", "reported"),
    [
        (["job-worker-0", "job-worker-0", "job-worker-1", "job-worker-1"], None),
        (["job-worker-0"] * 2, None),  # so few fill the first host
        (["job-launcher"] * 4, "expected the ranks on job-worker-0, job-worker-1 ("),
        (["job-launcher"], "expected the ranks on job-worker-0 ("),
        (["job-worker-0"] * 4, "got 4 on job-worker-0: start them with"),
    ],
)
def test_ranks_on_other_hosts_than_the_operator_listed_are_reported(
    rank_hosts: list[str], reported: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostfile").write_text(HOSTFILE)
    monkeypatch.setenv("OMPI_MCA_orte_default_hostfile", str(tmp_path / "hostfile"))
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("K_MPI_JOB_ROLE", "launcher")
    problem = placement_problem(rank_hosts)
    assert problem is None if reported is None else reported in (problem or "")
    monkeypatch.setenv("K_MPI_JOB_ROLE", "worker")  # a host file of somebody else's
    assert placement_problem(rank_hosts) is None


def test_who_was_given_no_hosts_compares_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("K_MPI_JOB_ROLE", "launcher")
    monkeypatch.delenv("OMPI_MCA_orte_default_hostfile", raising=False)
    assert placement_problem(["a", "b"]) is None
    monkeypatch.setenv("OMPI_MCA_orte_default_hostfile", "/no/such/file")  # on a worker
    assert placement_problem(["a", "b"]) is None


@pytest.mark.parametrize("heard", [True, False])
def test_a_rank_stops_when_its_horovodrun_has_gone(heard: bool) -> None:
    """In a process of its own: SIGTERM is sent to it, as the launcher would."""
    program = """if True:
        import signal, sys, time
        from gnn_core import launch
        launch._LAUNCHER_SECONDS = 0.1
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(77))
        launch.stop_without_launcher()
        launch.stop_without_launcher()
        print("watching", flush=True)
        time.sleep(60)
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        where = {launch._GLOO_ADDRESS: address, launch._GLOO_PORT: str(port)}
        rank = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **where},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert rank.stdout is not None and rank.stdout.readline() == "watching\n"
        with pytest.raises(subprocess.TimeoutExpired):
            rank.wait(1)  # as long as it is there, nothing happens
        assert rank.stderr is not None
        if not heard:
            rank.stderr.close()
    assert rank.wait(20) == 77
    if heard:
        assert rank.stderr.read() == "horovodrun has gone: this rank stops\n"


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (PermissionError(13, "Permission denied", "/closed/x"), "/closed/x: Permission denied"),
        (OSError(36, "File name too long", "a" * 9), f"{'a' * 9}: File name too long"),
        (MemoryError("Unable to allocate 9 TiB"), "not enough memory (Unable to allocate 9 TiB)"),
        (MemoryError(), "not enough memory (the system gives no more)"),
        (UsageError("a\nb\x1b[2J"), r"a b\x1b[2J"),
    ],
)
def test_what_no_guard_foresees_is_reported_in_a_line(
    error: Exception, reported: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {reported}"), err


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    """It is for whoever repairs it; neither is an error of a connection the user's mistake."""
    for error in (ZeroDivisionError("x"), ConnectionResetError(104, "Connection reset by peer")):

        def fail(error: Exception = error) -> int:
            raise error

        with pytest.raises(type(error)):
            guarded(fail)


def test_ctrl_c_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert guarded(interrupt) == 130
    assert capfd.readouterr().err == "interrupted\n"
