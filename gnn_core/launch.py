"""What a launcher told this process before any framework was started, and who may speak.

Read from the environment when asked, never at import. Needed where no communicator exists yet: to
report a bad flag once and not once per rank, and to notice copies of a one-process program.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from gnn_core.usage import SharedUsageError, UsageError

_RANKS = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", "RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE", "WORLD_SIZE")
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_FIRST_WORD_SECONDS = 2.0


def launched_rank() -> int:
    """The rank this process was launched as; 0 when it was started by hand."""
    return _first_integer(_RANKS, 0)


def launched_size() -> int:
    """How many processes were launched together; 1 when this one was started by hand."""
    return _first_integer(_SIZES, 1)


def under_launcher() -> bool:
    """Whether a launcher started this process, even just one of it.

    mpirun gives its local ranks a pseudo-terminal: `isatty()` does not tell a person's terminal.
    """
    return any(name in os.environ for name in _RANKS)


def by_torchrun() -> bool:
    """Whether it was torchrun that started this process, whatever had started torchrun."""
    return _TORCHRUN in os.environ


def seconds_until_killed() -> float:
    """How long whatever ends a job leaves its ranks between SIGTERM and SIGKILL."""
    if not by_torchrun() and any(name in os.environ for name in _RANKS if name != "RANK"):
        return float(os.environ.get("OMPI_MCA_odls_base_sigkill_timeout", 2))
    return 30.0  # of torchrun and of Kubernetes


def guarded(main: Callable[[], int]) -> int:
    """Run a program's main; a `UsageError` becomes one line on stderr and exit code 2.

    Rank 0 tells it. Another rank does so only when rank 0 has not ended the job meanwhile, which
    means that the mistake is this rank's own.
    """
    if launched_rank() > 0 and {"-h", "--help"}.intersection(sys.argv):
        return 0  # rank 0 gives it, once
    try:
        return main()
    except UsageError as error:
        rank = launched_rank()
        if rank > 0:
            # The launcher ends every rank as soon as one has failed, and this one in its sleep.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(_FIRST_WORD_SECONDS)
        if rank == 0 or not isinstance(error, SharedUsageError):
            of = f"rank {rank}: " if rank else ""
            # In one piece: mpirun tags every write, and a line end of its own becomes a line.
            sys.stderr.write(f"error: {of}{error}\n")
            sys.stderr.flush()
        return 2


def _first_integer(names: tuple[str, ...], default: int) -> int:
    # mpirun may start a torchrun on each host: the ranks are then torchrun's, whose names are last.
    for name in reversed(names) if by_torchrun() else names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return default
