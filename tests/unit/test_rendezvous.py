"""Where ranks meet: torchrun's variables, the MPI world beside them, ports. No torch needed."""

from __future__ import annotations

import socket
import threading

import pytest

from baselines import rendezvous
from baselines.rendezvous import Rendezvous, find_rendezvous, first_node
from gnn_core.usage import SharedUsageError, UsageError

LAUNCHED = (
    "OMPI_COMM_WORLD_RANK",
    "HOROVOD_RANK",
    "PMI_RANK",
    "RANK",
    "OMPI_COMM_WORLD_SIZE",
    "HOROVOD_SIZE",
    "PMI_SIZE",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GROUP_WORLD_SIZE",
    *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"),
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
)
RANK_1 = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "one", "MASTER_PORT": "2222"}
TORCHRUN = {**RANK_1, "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher and none of its variables."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


def launch(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> None:
    """Set some variables; None takes one away."""
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_alone_without_launcher() -> None:
    assert find_rendezvous(1) == Rendezvous(0, 1)


def test_the_variables_tell_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, **RANK_1)
    assert find_rendezvous(1) == Rendezvous(1, 4, "one", 2222)


def test_rank_0_opens_the_port_unless_torchrun_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    launch(monkeypatch, **RANK_1 | {"RANK": "0", "MASTER_PORT": str(port)})
    rendezvous = find_rendezvous(1)
    assert rendezvous.listener is not None
    with rendezvous.listener:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        launch(monkeypatch, TORCHELASTIC_RUN_ID="none", TORCHELASTIC_USE_AGENT_STORE="True")
        assert find_rendezvous(1) == Rendezvous(0, 4, "one", port)


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as held:
        port = held.getsockname()[1]
        launch(monkeypatch, **RANK_1 | {"RANK": "0", "MASTER_PORT": str(port)})
        with pytest.raises(UsageError) as caught:
            find_rendezvous(1)
    message = str(caught.value)
    assert f"MASTER_PORT: rank 0 is to listen at port {port}, and cannot (Address al" in message
    assert "choose another one" in message
    assert "\n" not in message


MALFORMED = {
    "a rank alone": (
        {"WORLD_SIZE": None, "MASTER_ADDR": None, "MASTER_PORT": None},
        "but WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set: set all of them, or",
    ),
    "a size alone": ({"RANK": None}, "but RANK is not set"),
    "nobody's port": ({"MASTER_PORT": ""}, "but MASTER_PORT is not set"),
    "a rank too high": ({"RANK": "4"}, "RANK: expected a whole number from 0 to 3, got '4'"),
    "a rank below 0": ({"RANK": "-1"}, "RANK: expected a whole number from 0 to 3, got '-1'"),
    "a rank in words": ({"RANK": "one"}, "RANK: expected a whole number from 0 to 3, got 'one'"),
    "a square": ({"RANK": "²"}, "RANK: expected a whole number from 0 to 3, got '²'"),
    "no ranks": ({"WORLD_SIZE": "0"}, "WORLD_SIZE: expected a whole number from 1 to "),
    "a port too high": ({"MASTER_PORT": "70000"}, "MASTER_PORT: expected a whole number from 1 to"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_variables_that_are_malformed(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    changes, words = MALFORMED[case]
    launch(monkeypatch, **RANK_1 | changes)
    with pytest.raises(UsageError) as caught:
        find_rendezvous(1)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", rendezvous._MPI_VARIABLES, ids="/".join)
@pytest.mark.parametrize(("rank", "size"), [("1", "2"), ("0", "4")])
def test_mpi_that_tells_of_another_world(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], rank: str, size: str
) -> None:
    launch(monkeypatch, **RANK_1, **dict(zip(names, (rank, size), strict=True)))
    with pytest.raises(UsageError) as caught:
        find_rendezvous(1)
    assert str(caught.value) == (
        f"RANK and WORLD_SIZE say rank 1 of 4, but mpirun started rank {rank} of {size}: unset "
        "them, or set them to the same"
    )


def test_mpi_that_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, **RANK_1, OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="4")
    assert find_rendezvous(1) == Rendezvous(1, 4, "one", 2222)


@pytest.mark.parametrize("hosts", ["1", "2"])
def test_mpi_may_start_a_torchrun_on_each_host(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    started = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": hosts}
    launch(monkeypatch, **TORCHRUN, **started, GROUP_WORLD_SIZE=hosts)
    assert find_rendezvous(1) == Rendezvous(1, 4, "one", 2222)


def test_ranks_of_srun_meet_at_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "12345", "SLURM_STEP_ID": "1"}
    nodes = {"SLURM_STEP_NODELIST": "rack[02-03]n[1,3],login"}
    found = {}
    for rank in (1, 3):
        launch(monkeypatch, SLURM_PROCID=str(rank), **step, **nodes)
        found[rank] = find_rendezvous(1)
    assert found[1] == Rendezvous(1, 4, "rack02n1", found[3].port)
    assert (found[3].rank, found[3].world_size) == (3, 4)
    assert found[3].port == 20_000 + (12345 + 1) % 12_000
    launch(monkeypatch, SLURM_STEP_ID="2")
    assert find_rendezvous(1).port == found[3].port + 1  # another step of the job
    launch(monkeypatch, MASTER_ADDR="two", MASTER_PORT="2222")
    assert find_rendezvous(1) == Rendezvous(3, 4, "two", 2222)


def test_the_first_rank_of_srun_opens_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    launch(monkeypatch, SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="2", SLURM_STEP_NODELIST="n1")
    launch(monkeypatch, MASTER_PORT=str(port))
    rendezvous = find_rendezvous(1)
    assert rendezvous.listener is not None
    with rendezvous.listener:
        assert rendezvous.listener.getsockname()[1] == port
    launch(monkeypatch, SLURM_PROCID="2")
    with pytest.raises(UsageError, match="SLURM_PROCID: expected a whole number from 0 to 1"):
        find_rendezvous(1)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n[1-4,7]", "n1"),
        ("gpu[03,05-07],login", "gpu03"),
        ("a,b[1-2]", "a"),
        ("r[10-12]n[2-3]x,c", "r10n2x"),
    ],
)
def test_the_first_name_of_a_node_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first
    with pytest.raises(UsageError, match="SLURM_STEP_NODELIST"):
        first_node("")


def test_a_torchrun_that_knows_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    launch(monkeypatch, **TORCHRUN, **started, GROUP_WORLD_SIZE="1")
    with pytest.raises(SharedUsageError) as caught:
        find_rendezvous(1)
    assert str(caught.value) == (
        "mpirun started 2 processes, and torchrun in each of them a job of 1: start the ranks with "
        "one of the two, or give torchrun --nnodes 2"
    )


ONE, TWO = ["172.17.0.1/16", "10.0.0.1/24"], ["10.0.0.2/24"]
HOSTS = {
    "one host": ([("one", ONE, 7), ("one", ONE, 0)], "127.0.0.1"),
    "two hosts": ([("one", ONE, 7), ("two", TWO, 0)], "10.0.0.1"),
    "two on the first": ([("one", ONE, 7), ("one", ONE, 0), ("two", TWO, 0)], "10.0.0.1"),
    "routed": ([("one", ONE, 7), ("two", ["10.9.0.1/24"], 0)], "172.17.0.1"),
    "most of them": (
        [("one", ONE, 7), ("odd", ["172.17.0.9/16"], 0), ("two", TWO, 0), ("three", TWO, 0)],
        "10.0.0.1",
    ),
}


@pytest.mark.parametrize("case", HOSTS)
def test_where_the_mpi_world_meets(case: str) -> None:
    everyone, expected = HOSTS[case]
    assert rendezvous._rendezvous_host(everyone) == expected


def test_hosts_without_a_network() -> None:
    with pytest.raises(SharedUsageError, match="expected a network between the hosts"):
        rendezvous._rendezvous_host([("one", [], 7), ("two", TWO, 0)])


def test_an_mpi_world_that_never_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")
    waits = threading.Event()
    monkeypatch.setattr(rendezvous, "_ask_mpi", waits.wait)
    with pytest.raises(UsageError, match=r"expected 2 ranks within 0.2 s, but MPI still waits"):
        find_rendezvous(0.2)
    waits.set()


def test_what_mpi_refuses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Rendezvous:
        raise SharedUsageError("2 ranks were launched, but MPI sees 1")

    launch(monkeypatch, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")
    monkeypatch.setattr(rendezvous, "_ask_mpi", refuse)
    with pytest.raises(SharedUsageError, match="MPI sees 1"):
        find_rendezvous(5)
