"""Variables that decide how ranks meet: left-overs go, contradictions are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gnn_core.env.launch_variables import found
from gnn_core.launch_environment import settle, without_wrong_counts
from gnn_core.usage import SharedUsageError, UsageError

BY_MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_NAMESPACE": "7",
}
BY_HOROVODRUN = {
    "HOROVOD_RANK": "1",
    "HOROVOD_SIZE": "2",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
    "HOROVOD_GLOO_RENDEZVOUS_PORT": "1234",
}
BY_MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "5"}
BY_SRUN = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2"}
BY_HAND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "one", "MASTER_PORT": "2222"}
BY_TORCHRUN = {**BY_HAND, "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none"}
LAUNCHES = {
    "mpirun": BY_MPIRUN,
    "horovodrun": BY_HOROVODRUN,
    "MPICH": BY_MPICH,
    "srun": BY_SRUN,
    "torchrun": BY_TORCHRUN,
}


@pytest.mark.parametrize("launcher", LAUNCHES)
def test_what_the_launcher_has_set_stays(launcher: str) -> None:
    environ = dict(LAUNCHES[launcher])
    settle(environ)
    assert environ == LAUNCHES[launcher]


@pytest.mark.parametrize(
    ("variables", "gone"),
    [
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD"),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_ELASTIC": "1"}, "HOROVOD"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "PMI"),
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "SLURM"),  # of a batch script
        ({**BY_SRUN, "SLURM_STEP_NUM_TASKS": "1"}, "SLURM"),
        (BY_HAND, "RANK"),
    ],
)
def test_what_another_launcher_has_left_goes(variables: dict[str, str], gone: str) -> None:
    for launch in ({}, *LAUNCHES.values()):
        if any(name.startswith(gone) for name in launch):
            continue
        environ = {**variables, **launch, "HOME": "/root"}
        settle(environ)
        assert environ == {**launch, "HOME": "/root"}


def test_a_program_that_meets_by_rank_keeps_what_a_pod_has() -> None:
    environ = dict(BY_HAND)
    settle(environ, meets_by_rank=True)
    assert environ == BY_HAND
    settle(environ)
    assert environ == {}


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun", "torchrun"])
def test_a_launcher_that_srun_started_is_the_one_that_counts(launcher: str) -> None:
    environ = {**BY_SRUN, **LAUNCHES[launcher]}
    settle(environ)
    assert environ == LAUNCHES[launcher]


def test_srun_with_an_interface_of_mpi_stays_a_launch_by_srun() -> None:
    environ = {**BY_SRUN, **BY_MPICH}
    settle(environ)
    assert environ == {**BY_SRUN, **BY_MPICH}


def test_a_store_of_an_older_horovodrun_goes_under_mpirun() -> None:
    environ = {**BY_HOROVODRUN, **BY_MPIRUN}
    del environ["HOROVOD_CONTROLLER"]
    settle(environ)
    assert environ == BY_MPIRUN


def test_gloo_under_mpirun_is_refused() -> None:
    with pytest.raises(SharedUsageError) as caught:
        settle({**BY_MPIRUN, "HOROVOD_CONTROLLER": "Gloo"})
    assert str(caught.value).startswith("HOROVOD_CONTROLLER: expected mpi under mpirun, got gloo: ")


def test_two_launchers_that_contradict_each_other_are_refused() -> None:
    settle({**BY_MPIRUN, **BY_HOROVODRUN})  # the same rank of the same world
    with pytest.raises(UsageError) as caught:
        settle({**BY_MPIRUN, **BY_HOROVODRUN, "HOROVOD_RANK": "0"})
    assert "OMPI_COMM_WORLD_RANK says rank 1 of 2, HOROVOD_RANK of rank 0 of 2" in str(caught.value)


@pytest.mark.parametrize("name", ["HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"])
def test_what_horovod_would_abort_for_is_refused(name: str) -> None:
    with pytest.raises(SharedUsageError, match=f"{name}: expected mpi or gloo, got 'nccl'"):
        settle({name: "nccl"})


@pytest.mark.parametrize("value", ["x", "", "0", "-1", "1.5", "²", "9" * 30])
def test_a_wrong_number_of_threads_is_refused_after_the_import(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    with without_wrong_counts():
        assert "NUMBA_NUM_THREADS" not in os.environ
    with pytest.raises(SharedUsageError, match=r"NUMBA_NUM_THREADS: expected a whole number from"):
        settle(dict(os.environ))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with without_wrong_counts():
        settle(environ := dict(os.environ))
    assert environ["NUMBA_NUM_THREADS"] == "2"


@pytest.mark.parametrize("value", [None, "", "x", "²", "-1"])
@pytest.mark.parametrize(
    "name", ["HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_GLOO_RENDEZVOUS_PORT"]
)
def test_a_part_of_what_horovodrun_sets_is_refused(name: str, value: str | None) -> None:
    environ = {**BY_HOROVODRUN, name: value or ""}
    if value is None:
        del environ[name]
    with pytest.raises(UsageError, match=f"{name}: expected a whole number .* got .*: unset"):
        settle(environ)


def test_one_folder_of_mpi_by_two_names(tmp_path: Path) -> None:
    ours, other = tmp_path / "venv", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    link = tmp_path / "link"
    link.symlink_to(ours)
    for name in (str(link), "/on/another/host"):
        environ = {**BY_MPIRUN, "OPAL_PREFIX": str(ours), "PMIX_INSTALL_PREFIX": name}
        settle(environ)
        assert environ["PMIX_INSTALL_PREFIX"] == str(ours)
    with pytest.raises(SharedUsageError, match=f"expected the mpirun of {ours}.* got that of"):
        settle({**BY_MPIRUN, "OPAL_PREFIX": str(ours), "PMIX_INSTALL_PREFIX": str(other)})


PROXY = "http://me:secret@proxy:3128"


def test_what_is_set_is_listed_with_who_sets_it() -> None:
    environ = {**BY_HAND, **BY_MPIRUN, "http_proxy": PROXY, "A": ""}
    listed = {one.name: one for one in found(environ)}
    assert list(listed) == [
        *sorted(name for name in BY_MPIRUN if name != "PMIX_NAMESPACE"),
        *sorted(BY_HAND),
        "http_proxy",
    ]
    assert listed["RANK"].left_over and not listed["OMPI_COMM_WORLD_RANK"].left_over
    assert "mpirun" in listed["OMPI_COMM_WORLD_RANK"].set_by
    assert listed["http_proxy"].value == "http://***@proxy:3128"
