"""A process's own variables, before anything reads them: only one launcher's are left.

A shell, a container or a pod keeps variables of another launcher than the one that started this
process. `settle` is called once: it removes what was left over, and refuses what contradicts
itself. The table of all of them is `gnn_core.env.launch_variables`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from gnn_core.env.launch_variables import (
    FAMILIES,
    HOROVODRUN,
    MPIRUN,
    SRUN,
    TORCHRUN,
    is_proved,
    of_family,
)
from gnn_core.usage import SharedUsageError, UsageError

_CONTROLLERS = ("mpi", "gloo")
_STORE, _PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
_COUNTS = ("NUMBA_NUM_THREADS",)
_COUNT = re.compile(r" *0*[1-9][0-9]{0,3} *")
_NUMBERS = ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", _PORT)


def settle(environ: MutableMapping[str, str], meets_by_rank: bool = False) -> None:
    """Remove what another launcher has left over, and refuse what contradicts itself.

    Args:
        environ: of this process, `os.environ`.
        meets_by_rank: whether the program meets by RANK and WORLD_SIZE without torchrun, too.

    Raises:
        UsageError: it names the variable, what is expected of it and what to do.
    """
    controller = environ.get("HOROVOD_CONTROLLER", "").lower()
    by_mpirun = is_proved(MPIRUN, environ) and MPIRUN.names[0] in environ
    # What srun has started may be a launcher of its own, or one process, which meets nobody.
    in_step = by_mpirun or any(is_proved(one, environ) for one in (HOROVODRUN, TORCHRUN))
    for family in FAMILIES:
        # horovodrun over Gloo always names its controller: without it, mpirun came later.
        outdated = family is HOROVODRUN and by_mpirun and controller != "gloo"
        if family is SRUN:
            outdated = in_step or environ.get(SRUN.size) == "1"
        kept = is_proved(family, environ) or (family is TORCHRUN and meets_by_rank)
        if outdated or not kept:
            for name in of_family(family, environ):
                del environ[name]
    _require_counts(environ)
    _require_known_operations(environ)
    _require_whole(environ)
    if by_mpirun:
        _require_one_rank(environ, controller)
        _require_one_mpi(environ)


@contextlib.contextmanager
def without_wrong_counts() -> Iterator[None]:
    """Set aside, for an import, the variables that `settle`, called later, refuses as counts."""
    wrong = {name: os.environ.pop(name) for name in _wrong_counts(os.environ)}
    try:
        yield
    finally:
        os.environ.update(wrong)


def _wrong_counts(environ: Mapping[str, str]) -> list[str]:
    return [name for name in _COUNTS if name in environ and not _COUNT.fullmatch(environ[name])]


def _require_counts(environ: Mapping[str, str]) -> None:
    for name in _wrong_counts(environ):
        raise SharedUsageError(
            f"{name}: expected a whole number from 1 to 9999, got {environ[name]!r}: correct or "
            "unset it"
        )


def _require_known_operations(environ: Mapping[str, str]) -> None:
    """Horovod ends a process in which one of them is anything else, without a Python exception."""
    for name in ("HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"):
        value = environ.get(name)
        if value is not None and value.lower() not in _CONTROLLERS:
            raise SharedUsageError(
                f"{name}: expected {' or '.join(_CONTROLLERS)}, got {value!r}: unset it"
            )


def _require_whole(environ: Mapping[str, str]) -> None:
    """Raise where a store of horovodrun over Gloo is named without all that it sets beside it."""
    if not is_proved(HOROVODRUN, environ):
        return
    for name in _NUMBERS:
        if not environ.get(name, "").isdecimal():
            got = repr(environ[name]) if name in environ else "nothing"
            raise UsageError(
                f"{name}: expected a whole number beside {_STORE}, as horovodrun sets it, got "
                f"{got}: unset {_STORE}, or start the ranks with horovodrun"
            )


def _require_one_rank(environ: Mapping[str, str], controller: str) -> None:
    """Raise where Horovod would meet over Gloo, but it was mpirun that started the ranks."""
    if controller != "gloo":
        return
    if not is_proved(HOROVODRUN, environ):
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
            f"OMPI_COMM_WORLD_RANK says rank {rank} of {size}, HOROVOD_RANK of rank "
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
