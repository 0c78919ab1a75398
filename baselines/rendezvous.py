"""Where the ranks of `baselines/ddp.py` meet: as torchrun or srun says, or as the MPI world agrees.

Nothing here knows torch. MPI is asked once, who is there and where, and then left for good.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import statistics
from dataclasses import dataclass

from gnn_core.joining import call_in_time, waited_for_by_mpi
from gnn_core.launch import by_srun, by_torchrun, launched_size, under_launcher
from gnn_core.network import addresses, open_listener, reachable
from gnn_core.usage import SharedUsageError, UsageError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MPI_VARIABLES = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
_LOOPBACK = "127.0.0.1"
_FIRST_NAME = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")  # of a node list such as gpu[03-05,7],login
_LOWEST_PORT, _NUM_PORTS = 20_000, 12_000  # below those that kernels give to connections


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks of a job meet, and which of them this one is."""

    rank: int = 0
    world_size: int = 1
    host: str = _LOOPBACK  # where one process keeps what the ranks send each other
    port: int = 0
    listener: socket.socket | None = None  # listens at that port, if it is this rank that keeps it


def find_rendezvous(seconds: float) -> Rendezvous:
    """Where torchrun's variables say, or srun's; else where the MPI world agrees; else it is alone.

    Raises UsageError: variables that are malformed or name another world than MPI's, a port that
    is taken, or an MPI world that is not complete within `seconds`.
    """
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        rendezvous = _read_variables()
        _require_one_world(rendezvous)
        kept_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if rendezvous.rank > 0 or kept_by_torchrun or rendezvous.world_size == 1:
            return rendezvous
        return _opened(rendezvous)
    if by_srun():
        rendezvous = _read_step()
        return rendezvous if rendezvous.rank > 0 else _opened(rendezvous)
    return call_in_time(_ask_mpi, seconds, waited_for_by_mpi) if under_launcher() else Rendezvous()


def _read_variables() -> Rendezvous:
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"expected {', '.join(_VARIABLES)}, as torchrun sets them, but {', '.join(missing)} "
            "is not set: set all of them, or none"
        )
    size = _number("WORLD_SIZE", 1, 1 << 20)
    rank = _number("RANK", 0, size - 1)
    return Rendezvous(rank, size, os.environ["MASTER_ADDR"], _number("MASTER_PORT", 1, 65535))


def _read_step() -> Rendezvous:
    """As srun says: at the node of its first task, and a port that other steps do not choose."""
    size = _number("SLURM_STEP_NUM_TASKS", 1, 1 << 20)
    rank = _number("SLURM_PROCID", 0, size - 1)
    host = os.environ.get("MASTER_ADDR") or first_node(os.environ.get("SLURM_STEP_NODELIST", ""))
    if os.environ.get("MASTER_PORT"):
        return Rendezvous(rank, size, host, _number("MASTER_PORT", 1, 65535))
    job, step = (os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    seed = sum(int(one) for one in (job, step) if one.isdecimal())
    return Rendezvous(rank, size, host, _LOWEST_PORT + seed % _NUM_PORTS)


def first_node(nodes: str) -> str:
    """The first name in a node list as Slurm writes it, such as `gpu03` of `gpu[03-05,7],login`.

    Raises UsageError where there is none.
    """
    found = _FIRST_NAME.match(nodes)
    if found is None:
        raise UsageError(
            f"SLURM_STEP_NODELIST: expected the nodes of this step, got {nodes!r}: start the ranks "
            "with srun, or set MASTER_ADDR"
        )
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0])


def _number(name: str, low: int, high: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise UsageError(f"{name}: expected a whole number from {low} to {high}, got {text!r}")
    return int(text)


def _require_one_world(rendezvous: Rendezvous) -> None:
    """Raise UsageError if MPI has another world than torchrun's variables."""
    for names in _MPI_VARIABLES:
        if not all(os.environ.get(name, "").isdecimal() for name in names):
            continue
        rank, size = (int(os.environ[name]) for name in names)
        if by_torchrun():
            # A torchrun on each host, started by MPI, is one world; a torchrun that does not know
            # of the others would train what they train too.
            if (hosts := os.environ.get("GROUP_WORLD_SIZE")) != str(size):
                raise SharedUsageError(
                    f"mpirun started {size} processes, and torchrun in each of them a job of "
                    f"{hosts or 1}: start the ranks with one of the two, or give torchrun "
                    f"--nnodes {size}"
                )
        elif (rank, size) != (rendezvous.rank, rendezvous.world_size):
            raise UsageError(
                f"RANK and WORLD_SIZE say rank {rendezvous.rank} of {rendezvous.world_size}, "
                f"but mpirun started rank {rank} of {size}: unset them, or set them to the same"
            )


def _opened(rendezvous: Rendezvous) -> Rendezvous:
    try:
        listener = open_listener(rendezvous.port)
    except OSError as error:
        raise UsageError(
            f"MASTER_PORT: rank 0 is to listen at port {rendezvous.port}, and cannot "
            f"({error.strerror}): choose another one, or end the program that holds it"
        ) from None
    return Rendezvous(
        rendezvous.rank, rendezvous.world_size, rendezvous.host, rendezvous.port, listener
    )


def _ask_mpi() -> Rendezvous:
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False  # both are done below, at once
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"expected mpi4py, to learn who the ranks are, got {error}: run `make install`, or "
            "start them with torchrun"
        ) from None
    if not MPI.Is_initialized():
        # mpi4py's own Init would hold the interpreter until the last rank has come.
        ctypes.CDLL(MPI.__file__).MPI_Init(None, None)
    world = MPI.COMM_WORLD
    rank, size = world.rank, world.size
    if size != launched_size():
        raise SharedUsageError(
            f"{launched_size()} ranks were launched, but MPI sees {size}: launch with mpirun (or "
            "horovodrun over MPI) of this environment, or with torchrun"
        )
    listener = open_listener(0) if rank == 0 else None
    port = listener.getsockname()[1] if listener else 0
    everyone = world.allgather((socket.gethostname(), addresses(), port))
    MPI.Finalize()
    return Rendezvous(rank, size, _rendezvous_host(everyone), everyone[0][2], listener)


def _rendezvous_host(everyone: list[tuple[str, list[str], int]]) -> str:
    """Where rank 0 is reached: by the address that most of the other hosts share a network with."""
    first, at, _ = everyone[0]
    found = [reachable(at, theirs) for host, theirs, _ in everyone if host != first]
    host = statistics.mode(found) if found else _LOOPBACK
    if host is None:
        raise SharedUsageError(
            "expected a network between the hosts, got none on that of rank 0: set RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        )
    return host
