"""Environment variables that decide how ranks meet: who sets them, and what is done with them.

A shell, a container or a pod keeps variables of another launcher than the one that started this
process. `settle` is called once, before anything else reads them: it removes what was left over,
and refuses what contradicts itself. `make doctor` lists those that are set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gnn_core.usage import SharedUsageError, UsageError


@dataclass(frozen=True)
class Family:
    """Variables that one launcher sets together.

    Attributes:
        set_by: the launcher.
        names: of the variables, as patterns; the first is that of the rank.
        size: name of the number of ranks.
        proof: variables of which it always sets one; without them the others are left over.
        use: what is done with them.
    """

    set_by: str
    names: tuple[str, ...]
    size: str
    proof: tuple[str, ...]
    use: str


MPIRUN = Family(
    "mpirun",
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_*"),
    "OMPI_COMM_WORLD_SIZE",
    ("PMIX_NAMESPACE",),
    "they tell a process its rank",
)
HOROVODRUN = Family(
    "horovodrun over Gloo",
    ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_*", "HOROVOD_CROSS_*", "HOROVOD_HOSTNAME",
     "HOROVOD_ELASTIC", "HOROVOD_GLOO_RENDEZVOUS_*"),
    "HOROVOD_SIZE",
    ("HOROVOD_GLOO_RENDEZVOUS_ADDR",),
    "they tell a process its rank and where the ranks meet",
)  # fmt: skip
PMI = Family(
    "mpiexec of MPICH or srun --mpi=pmi2",
    ("PMI_RANK", "PMI_SIZE"),
    "PMI_SIZE",
    ("PMI_FD", "PMI_PORT", "PMI_JOBID"),
    "no program here meets by them: such a launch is refused",
)
TORCHRUN = Family(
    "torchrun, or a PyTorchJob's pod",
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
     "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_*"),
    "WORLD_SIZE",
    ("TORCHELASTIC_RUN_ID",),
    "baselines/ddp.py meets by them; set without torchrun, other programs ignore them",
)  # fmt: skip
FAMILIES = (MPIRUN, HOROVODRUN, PMI, TORCHRUN)

_OTHERS: tuple[tuple[str, str, str], ...] = (
    ("TF_CONFIG", "a TFJob, or by hand", "--strategy multiworker takes its workers from it"),
    ("HOROVOD_CONTROLLER", "horovodrun, or by hand", "how Horovod's ranks meet: mpi or gloo"),
    ("HOROVOD_CPU_OPERATIONS", "by hand", "what adds up Horovod's tensors: mpi or gloo"),
    ("HOROVOD_GLOO_TIMEOUT_SECONDS", "by hand", "after so long Horovod's Gloo aborts its ranks"),
    ("GLOO_SOCKET_IFNAME", "by hand", "the network that baselines/ddp.py meets in"),
    ("OMPI_MCA_*", "by hand, or the MPI Operator", "settings of Open MPI"),
    ("OPAL_PREFIX", "mpirun, and every Python of the environment", "where Open MPI lies"),
    ("*_proxy", "by hand", "downloads go through it, the traffic between ranks does not"),
    ("*_PROXY", "by hand", "downloads go through it, the traffic between ranks does not"),
)
_CONTROLLERS = ("mpi", "gloo")


@dataclass(frozen=True)
class Found:
    """A variable that is set."""

    name: str
    value: str
    set_by: str
    use: str
    left_over: bool  # by a launcher that did not start this process


def found(environ: Mapping[str, str]) -> Iterator[Found]:
    """Every variable that is set and decides how ranks meet, in the order of the table."""
    for family in FAMILIES:
        left_over = not _is_proved(family, environ)
        for name in sorted(_of(family, environ)):
            yield Found(name, environ[name], family.set_by, family.use, left_over)
    for pattern, set_by, use in _OTHERS:
        for name in sorted(name for name in environ if fnmatchcase(name, pattern)):
            if environ[name]:
                yield Found(name, environ[name], set_by, use, False)


def settle(environ: MutableMapping[str, str], meets_by_rank: bool = False) -> None:
    """Remove what another launcher has left over, and refuse what contradicts itself.

    Args:
        environ: of this process, `os.environ`.
        meets_by_rank: whether the program meets by RANK and WORLD_SIZE without torchrun, too.

    Raises:
        UsageError: it names the variable, what is expected of it and what to do.
    """
    controller = environ.get("HOROVOD_CONTROLLER", "").lower()
    by_mpirun = _is_proved(MPIRUN, environ) and MPIRUN.names[0] in environ
    for family in FAMILIES:
        # horovodrun over Gloo always names its controller: without it, mpirun came later.
        outdated = family is HOROVODRUN and by_mpirun and controller != "gloo"
        kept = _is_proved(family, environ) or (family is TORCHRUN and meets_by_rank)
        if outdated or not kept:
            for name in _of(family, environ):
                del environ[name]
    _require_known_operations(environ)
    if by_mpirun:
        _require_one_rank(environ, controller)
        _require_one_mpi(environ)


def _is_proved(family: Family, environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in family.proof)


def _of(family: Family, environ: Mapping[str, str]) -> list[str]:
    return [name for name in environ if any(fnmatchcase(name, each) for each in family.names)]


def _require_known_operations(environ: Mapping[str, str]) -> None:
    """Horovod ends a process in which one of them is anything else, without a Python exception."""
    for name in ("HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"):
        value = environ.get(name)
        if value is not None and value.lower() not in _CONTROLLERS:
            raise SharedUsageError(
                f"{name}: expected {' or '.join(_CONTROLLERS)}, got {value!r}: unset it"
            )


def _require_one_rank(environ: Mapping[str, str], controller: str) -> None:
    """Raise where Horovod would meet over Gloo, but it was mpirun that started the ranks."""
    if controller != "gloo":
        return
    if not _is_proved(HOROVODRUN, environ):
        raise SharedUsageError(
            "HOROVOD_CONTROLLER: expected mpi under mpirun, got gloo: unset it, or start the ranks "
            "with horovodrun --gloo"
        )
    of_each = [
        tuple(environ.get(name, "?") for name in (family.names[0], family.size))
        for family in (MPIRUN, HOROVODRUN)
    ]
    if of_each[0] != of_each[1]:
        (rank, size), (other_rank, other_size) = of_each
        raise UsageError(
            f"OMPI_COMM_WORLD_RANK tells of rank {rank} of {size}, HOROVOD_RANK of rank "
            f"{other_rank} of {other_size}: unset HOROVOD_CONTROLLER and HOROVOD_RANK under "
            "mpirun, or start horovodrun outside of mpirun"
        )


def _require_one_mpi(environ: MutableMapping[str, str]) -> None:
    """Call the folder of Open MPI by one name: by two, it waits in MPI_Init for ever.

    Raises SharedUsageError where mpirun is another MPI's.
    """
    ours, mpiruns = environ.get("OPAL_PREFIX"), environ.get("PMIX_INSTALL_PREFIX")
    if not ours or not mpiruns or ours == mpiruns:
        return
    if Path(mpiruns).exists() and not Path(mpiruns).samefile(ours):
        raise SharedUsageError(
            f"expected the mpirun of {ours}, which this Python is of, got that of {mpiruns}: put "
            f"{ours}/bin first on PATH"
        )
    environ["PMIX_INSTALL_PREFIX"] = ours
