"""Joining the other ranks: every wait before the first collective has a deadline and says for whom.

What joins ranks (MPI_Init, Horovod, TensorFlow) blocks in C, where neither a signal nor a deadline
reaches it: `call_in_time` runs it in a thread. `await_ranks` is for what can be asked.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar
from urllib import request

import psutil

from gnn_core.launch import STOP_SIGNALS, launched_rank, launched_size, leave_behind
from gnn_core.network import host_and_port
from gnn_core.usage import UsageError

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], Any] | int | None

_SLICE_SECONDS = 0.1  # of a wait; between two of them signals are handled
LONG_SECONDS = 5.0  # until it is printed who is waited for
_OPTION = "--start-timeout"
_ANSWER_SECONDS = 2.0  # of a store
STORE_ADDRESS, _STORE_PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"


def call_in_time(work: Callable[[], T], seconds: float, missing: Callable[[], str]) -> T:
    """What `work()` returns, or raises, if it does so within `seconds`.

    It runs in a thread of its own, which is left behind when the time is over: the process then
    has to end by `os._exit` (`gnn_core.launch.guarded` does). Signals are handled meanwhile, also
    where `work` installs handlers of its own, as TensorFlow does.

    Args:
        work: joins the other ranks.
        seconds: how long that may take.
        missing: says what is still waited for, such as `MPI still waits for rank 1`.

    Raises:
        UsageError: the time is over.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    begun = time.monotonic()
    reported_at = begun + LONG_SECONDS
    thread = threading.Thread(target=run, name="joining", daemon=True)
    thread.start()
    while True:
        try:
            value, error = answers.get(timeout=_SLICE_SECONDS)
            break
        except queue.Empty:
            _install(handlers)
        now = time.monotonic()
        if now - begun > seconds:
            leave_behind(thread)
            raise UsageError(
                f"expected {_all_ranks()} within {seconds:g} s, but {missing()}; start "
                f"them all, or wait longer with {_OPTION}"
            )
        if now > reported_at:
            reported_at = now + max(LONG_SECONDS, now - begun)
            if launched_rank() == 0:
                print(f"waiting    for all ranks to join: {missing()}", flush=True)
    _install(handlers)
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def await_ranks(
    is_here: Callable[[int], bool],
    rank: int,
    world_size: int,
    where: str,
    deadline: float,
    seconds: float,
) -> None:
    """Wait until every rank is here.

    Args:
        is_here: whether that rank has come; may raise what else ends the wait.
        rank: of this process.
        world_size: number of ranks.
        where: they are to arrive, for the message.
        deadline: on `time.monotonic`'s clock.
        seconds: from the start to the deadline, for the message.

    Raises:
        UsageError: some did not come; it names them.
    """
    missing = list(range(world_size))
    reported_at = time.monotonic() + LONG_SECONDS
    while missing := [one for one in missing if not is_here(one)]:
        now = time.monotonic()
        who = ", ".join(f"rank {one}" for one in missing)
        if now > deadline:
            raise UsageError(
                f"expected {world_size} ranks within {seconds:g} s, got "
                f"{world_size - len(missing)}: {who} did not arrive at {where}; start all of them, "
                f"or wait longer with {_OPTION}"
            )
        if now > reported_at:
            if rank == 0:
                print(f"waiting    for {who}", flush=True)
            reported_at = now + LONG_SECONDS
        time.sleep(0.02)


def waited_for_by_mpi() -> str:
    """What is known of the ranks that MPI waits for: those of this host that cannot come.

    mpirun's environment tells a job's processes apart from all others.
    """
    found = []
    mine = _program(psutil.Process())
    for rank, process in sorted(_ranks_here().items()):
        try:
            if process.status() == psutil.STATUS_STOPPED:
                found.append(f"rank {rank} (pid {process.pid}) is stopped")
            elif (program := _program(process)) != mine:
                found.append(f"rank {rank} (pid {process.pid}) runs `{' '.join(program)}`")
        except psutil.Error:
            found.append(f"rank {rank} has ended")
    return f"MPI still waits for some of them{': ' if found else ''}{', '.join(found)}"


def _all_ranks() -> str:
    return f"{launched_size()} ranks" if launched_size() > 1 else "all ranks"


def _ranks_here() -> dict[int, psutil.Process]:
    """The processes that the same mpirun has started on this host, by rank; this one left out."""
    job = os.environ.get("PMIX_NAMESPACE")
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter() if job else ():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        rank = variables.get("OMPI_COMM_WORLD_RANK", "")
        if variables.get("PMIX_NAMESPACE") == job and rank.isdigit():
            found.setdefault(int(rank), process)  # in order of pid: what it started comes later
    found.pop(launched_rank(), None)
    return found


def _program(process: psutil.Process) -> list[str]:
    words = process.cmdline()
    return words[:2] if words else [process.name()]


def _install(handlers: Mapping[signal.Signals, Handler]) -> None:
    """Put Python's handlers back where a library has put its own in their place."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # it was not Python that installed it
                signal.signal(number, handler)


def await_ranks_at_store(rank: int, world_size: int, seconds: float) -> None:
    """Wait for all ranks at the store over HTTP that a `horovodrun` over Gloo keeps.

    Raises:
        UsageError: some did not come; it names them.
    """
    where = host_and_port(os.environ[STORE_ADDRESS], int(os.environ[_STORE_PORT]))
    past_proxies = request.build_opener(request.ProxyHandler({}))

    def ask(one: int, method: str) -> bool:
        asked = request.Request(
            f"http://{where}/ringsage/rank_{one}",
            method=method,
            data=b"here" if method == "PUT" else None,
        )
        try:
            with past_proxies.open(asked, timeout=_ANSWER_SECONDS):
                return True
        except OSError:  # not found, or no answer
            return False

    deadline = time.monotonic() + seconds
    while not ask(rank, "PUT"):
        if time.monotonic() > deadline:
            raise UsageError(
                f"expected horovodrun at {where} ({STORE_ADDRESS}) within {seconds:g} s, got no "
                f"answer: see that its host is reached from here, or wait longer with {_OPTION}"
            )
        time.sleep(_SLICE_SECONDS)
    await_ranks(lambda one: ask(one, "GET"), rank, world_size, where, deadline, seconds)
