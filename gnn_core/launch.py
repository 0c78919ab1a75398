"""What a launcher set for this process before any framework was started, and who may speak.

Read from the environment when asked, never at import. Needed where no communicator exists yet: to
report a bad flag once and not once per rank, and to notice copies of a one-process program.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gnn_core.files import NO_ROOM, reason
from gnn_core.launch_environment import settle
from gnn_core.packages import missing, require
from gnn_core.streams import drop_from_now_on, fails, open_what_is_closed
from gnn_core.usage import Lost, SharedUsageError, UsageError, one_line

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What ends a run in order: SIGUSR1 and 2 are how batch systems say that the time is nearly up."""

_BY_SRUN = "SLURM_PROCID"
_RANKS = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", _BY_SRUN, "RANK")
_SIZES = (
    *("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE"),
    *("SLURM_STEP_NUM_TASKS", "WORLD_SIZE"),
)
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_FIRST_WORD_SECONDS = 2.0
_MOST_CHARACTERS = 4000  # of a message: what came may be a book
_GLOO_ADDRESS, _GLOO_PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
_LAUNCHER_SECONDS = 5.0  # between two looks at the launcher, and the patience of each
_LAUNCHER_MISSES = 3  # in a row
_LAST_SECONDS = 30.0  # from SIGTERM on
_watching = threading.Event()
_SLOTS = re.compile(r"\bslots=(\d+)")
_left_behind: list[threading.Thread] = []


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


def by_srun() -> bool:
    """Whether srun started this process as one of several; asked after `settle`."""
    return _BY_SRUN in os.environ


def require_mpi_launcher() -> None:
    """Raise SharedUsageError under srun, where this Open MPI ends a process in MPI_Init."""
    if by_srun():
        raise SharedUsageError(
            f"srun started {launched_size()} copies of this program, which meet through MPI, and "
            "cannot under srun, whatever its --mpi says: start them with mpirun inside the job, as "
            "the script of `python -m gnn_core.deploy slurm` does"
        )


def placement_problem(rank_hosts: Sequence[str]) -> str | None:
    """What is wrong with where the ranks run, as far as this one can tell; None if nothing is.

    The MPI Operator lists the hosts in a file that its launcher's pod alone has. Open MPI 5 ignores
    it and starts every rank in that pod, where the file is seen; ranks of workers compare nothing.

    Args:
        rank_hosts: short name of each rank's host.
    """
    file = Path(os.environ.get("OMPI_MCA_orte_default_hostfile", ""))
    if os.environ.get("K_MPI_JOB_ROLE") != "launcher" or not under_launcher() or not file.is_file():
        return None
    asked: list[str] = []  # as many as so many ranks fill, slot by slot
    num_slots = 0
    for line in file.read_text("utf-8").splitlines():
        if line.strip() and num_slots < len(rank_hosts):
            asked.append(line.split()[0].partition(".")[0])
            slots = _SLOTS.search(line)
            num_slots += int(slots[1]) if slots else 1
    used = sorted(set(rank_hosts))
    if set(used) <= set(asked) and len(used) == len(asked):
        return None
    return (
        f"expected the ranks on {', '.join(asked)} ({file}), got {len(rank_hosts)} on "
        f"{', '.join(used)}: start them with an mpirun of Open MPI 4, which reads that file "
        "(5 does not), and give it no hosts of your own"
    )


def seconds_until_killed() -> float:
    """How long whatever ends a job leaves its ranks between SIGTERM and SIGKILL."""
    names = [name for name in _RANKS if name not in ("RANK", _BY_SRUN)]
    if not by_torchrun() and any(name in os.environ for name in names):
        timeout = os.environ.get("OMPI_MCA_odls_base_sigkill_timeout", "")
        return float(timeout) if timeout.isdecimal() else 2.0
    return 30.0  # of torchrun, of Kubernetes and, by default, of Slurm


def stop_without_launcher() -> None:
    """Stop this rank, as by SIGTERM, when the `horovodrun` that started it by ssh has gone.

    No word of that reaches a rank on another host, which would train on beside the job that is
    started next. mpirun and torchrun see to their ranks themselves. Calls after the first do
    nothing.
    """
    address, port = os.environ.get(_GLOO_ADDRESS), os.environ.get(_GLOO_PORT, "")
    if not address or not port.isdecimal() or _watching.is_set():
        return
    _watching.set()
    where = (address, int(port))
    threading.Thread(target=_watch_launcher, args=where, name="launcher watch", daemon=True).start()


def _watch_launcher(address: str, port: int) -> None:
    missed = 0
    while missed < _LAUNCHER_MISSES:
        time.sleep(_LAUNCHER_SECONDS)
        try:
            socket.create_connection((address, port), _LAUNCHER_SECONDS).close()
        except OSError:
            missed += 1
        else:
            missed = 0
    with contextlib.suppress(OSError):  # what the launcher has opened may have gone with it
        os.write(sys.stderr.fileno(), b"horovodrun has gone: this rank stops\n")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_SECONDS)
    os._exit(128 + signal.SIGTERM)  # it waits where no signal reaches it, such as for the launcher


def stop_signals() -> list[signal.Signals]:
    """STOP_SIGNALS; without SIGHUP if this process was started to ignore it, as by `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [one for one in STOP_SIGNALS if one != signal.SIGHUP or not ignored]


def shares_output() -> bool:
    """Whether a launcher shows what all ranks say at one place, and ends all when one has failed.

    A rank that was started by hand, or in a pod of its own, has to speak for itself.
    """
    return by_torchrun() or any(name in os.environ for name in _RANKS if name != "RANK")


def guarded(main: Callable[[], int], meets_by_rank: bool = False) -> int:
    """Run a program's main; a `UsageError` becomes one line on stderr and exit code 2.

    So does a file that cannot be read or written, a package that is not installed and memory that
    is not there: no guard foresees all of them. A reader that went away is no mistake: that ends
    the program as it ends others, with 141; output that cannot be written, as on a full disk, with
    1. Ctrl-C is 130.

    Rank 0 prints it. Another rank does so only when rank 0 has not ended the job meanwhile, which
    means that the mistake is this rank's own. Where a rank still waits in C for others, the process
    ends here.

    Args:
        main: returns the exit code.
        meets_by_rank: whether it meets other ranks by RANK and WORLD_SIZE, whoever has set them.
    """
    open_what_is_closed()
    try:
        settle(os.environ, meets_by_rank)
        if launched_rank() > 0 and shares_output() and {"-h", "--help"}.intersection(sys.argv):
            return 0  # rank 0 gives it, once
        try:
            _require_working_folder()
            code = main()
        except SystemExit:  # after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # here, where a failure can be reported
        return _ended(code)
    except UsageError as error:
        _tell(error, isinstance(error, SharedUsageError))
    except Lost as error:
        sys.stderr.write(f"rank {launched_rank()} failed: {one_line(error)}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # to end in order would wait for the others
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        drop_from_now_on(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if fails(sys.stdout) or (error.filename is None and error.errno in NO_ROOM):
            drop_from_now_on(sys.stdout)
            _tell(f"cannot write the output: {reason(error)}")
            return 1
        if error.filename is None:  # of a network or a process: the traceback says where
            raise
        _tell(f"{error.filename}: {reason(error)}")
    except ModuleNotFoundError as error:
        problem = missing((error.name or "").partition(".")[0])
        if problem is None:
            raise
        _tell(problem)
    except MemoryError as error:
        why = str(error) or "the system gives no more"
        _tell(f"not enough memory ({why}): lower what is asked for")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return _ended(2)


def require_packages(*modules: str) -> None:
    """End this program with one line and exit code 2 where a package that it imports is missing.

    Called before imports at the top of a program, whose failures `guarded` does not see.

    Args:
        modules: as of `packages.require`.
    """
    open_what_is_closed()
    try:
        require(*modules)
    except UsageError as error:
        _tell(error)
        sys.exit(2)


def _require_working_folder() -> None:
    """Raise UsageError where the working folder was removed: no relative path means anything."""
    try:
        os.getcwd()  # noqa: PTH109 - the question itself
    except OSError as error:
        raise UsageError(
            f"cannot tell the working folder ({error.strerror}): change to one that is there"
        ) from None


def _tell(error: object, by_all: bool = False) -> None:
    """Say on stderr what ends this program; `by_all`: every rank ends with the same words."""
    rank = launched_rank()
    if rank > 0 and shares_output():
        # The launcher ends every rank as soon as one has failed, and this one in its sleep.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_FIRST_WORD_SECONDS)
    if rank == 0 or not by_all or not shares_output():
        of = f"rank {rank}: " if rank else ""
        # In one piece: mpirun tags every write, and a line end of its own becomes a line.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: {of}{one_line(error)[:_MOST_CHARACTERS]}\n")
            sys.stderr.flush()


def leave_behind(thread: threading.Thread) -> None:
    """Give up a thread that waits in C: as long as it does, no interpreter can end in order."""
    _left_behind.append(thread)


def _ended(code: int) -> int:
    """The exit code; with a thread left behind, the process ends with it here."""
    if any(thread.is_alive() for thread in _left_behind):
        sys.stdout.flush()
        os._exit(code)
    return code


def _first_integer(names: tuple[str, ...], default: int) -> int:
    # mpirun may start a torchrun on each host: the ranks are then torchrun's, whose names are last.
    for name in reversed(names) if by_torchrun() else names:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return default
