"""Environment variables that decide how ranks meet: who sets them, and what is done with them.

`gnn_core.launch_environment` removes and refuses by this table, `make doctor` lists what is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = [
    "FAMILIES",
    "HOROVODRUN",
    "MPIRUN",
    "PMI",
    "SRUN",
    "TORCHRUN",
    "Family",
    "Found",
    "found",
    "is_proved",
    "of_family",
]


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
    (
        "HOROVOD_RANK",
        "HOROVOD_SIZE",
        "HOROVOD_LOCAL_*",
        "HOROVOD_CROSS_*",
        "HOROVOD_HOSTNAME",
        "HOROVOD_ELASTIC",
        "HOROVOD_GLOO_RENDEZVOUS_*",
    ),
    "HOROVOD_SIZE",
    ("HOROVOD_GLOO_RENDEZVOUS_ADDR",),
    "they tell a process its rank and where the ranks meet",
)
PMI = Family(
    "mpiexec of MPICH or srun --mpi=pmi2",
    ("PMI_RANK", "PMI_SIZE"),
    "PMI_SIZE",
    ("PMI_FD", "PMI_PORT", "PMI_JOBID"),
    "no program here meets by them: such a launch is refused",
)
SRUN = Family(
    "srun",
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"),
    "SLURM_STEP_NUM_TASKS",
    ("SLURM_STEP_NUM_TASKS",),
    "baselines/ddp.py meets by them; programs that meet through MPI refuse such a launch",
)
TORCHRUN = Family(
    "torchrun, or a PyTorchJob's pod",
    (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_*",
    ),
    "WORLD_SIZE",
    ("TORCHELASTIC_RUN_ID",),
    "baselines/ddp.py meets by them; set without torchrun, other programs ignore them",
)
FAMILIES = (MPIRUN, HOROVODRUN, PMI, SRUN, TORCHRUN)

_OTHERS: tuple[tuple[str, str, str], ...] = (
    ("TF_CONFIG", "a TFJob, or a user", "only --strategy multiworker takes it, for its workers"),
    ("HOROVOD_CONTROLLER", "horovodrun, or a user", "how Horovod's ranks meet: mpi or gloo"),
    ("HOROVOD_CPU_OPERATIONS", "a user", "what adds up Horovod's tensors: mpi or gloo"),
    ("HOROVOD_GLOO_TIMEOUT_SECONDS", "a user", "after so long Horovod's Gloo aborts its ranks"),
    ("GLOO_SOCKET_IFNAME", "a user", "the network that baselines/ddp.py meets in"),
    ("OMPI_MCA_*", "a user, or the MPI Operator", "settings of Open MPI"),
    ("PMIX_INSTALL_PREFIX", "mpirun", "where its Open MPI lies; every Python here sets its own"),
    ("*_proxy", "a user", "downloads go through it, the traffic between ranks does not"),
    ("*_PROXY", "a user", "downloads go through it, the traffic between ranks does not"),
)
_CREDENTIALS = re.compile(r"//[^/@]*@")  # of a proxy


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
        left_over = not is_proved(family, environ)
        for name in sorted(of_family(family, environ)):
            yield Found(name, environ[name], family.set_by, family.use, left_over)
    for pattern, set_by, use in _OTHERS:
        for name in sorted(name for name in environ if fnmatchcase(name, pattern)):
            if environ[name]:
                value = _CREDENTIALS.sub("//***@", environ[name])
                yield Found(name, value, set_by, use, False)


def is_proved(family: Family, environ: Mapping[str, str]) -> bool:
    """Whether the family's launcher has set the variables; otherwise they are left over."""
    return any(environ.get(name) for name in family.proof)


def of_family(family: Family, environ: Mapping[str, str]) -> list[str]:
    """The names of the family's variables that are set."""
    return [name for name in environ if any(fnmatchcase(name, each) for each in family.names)]
