"""Signals to stop: training ends after its present step, and what cannot end itself is ended.

Python runs a signal handler when the main thread is back from C, which may take minutes, or never
happen. A thread hears of the signal at once (`signal.set_wakeup_fd`), and ends a process that has
nothing to save, or that waits where no signal reaches it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from gnn_core.launch import STOP_SIGNALS, stop_signals
from gnn_core.training.world import World

_STARTING_SECONDS = 5.0  # after a signal, in which a run that has not begun to train may end itself
_LATER_SECONDS = 2.0  # than a wait that can be interrupted one that cannot be is ended
_TICK_SECONDS = 0.2


def listen_for_stop(world: World) -> None:
    """Let a signal to stop end the run at the next step; a second one ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        world.stop_signal = number
        signal.signal(number, signal.SIG_DFL)

    _Ear.world = world
    for number in stop_signals():
        signal.signal(number, stop)
    _Ear.open()


def listen_no_more() -> None:
    """The run is over: a signal is only for its own handler again."""
    _Ear.world = None


class _Ear:
    """What hears of signals beside the main thread; one in a process."""

    world: World | None = None
    _ends: tuple[socket.socket, socket.socket] | None = None

    @classmethod
    def open(cls) -> None:
        if cls._ends is None:
            cls._ends = socket.socketpair()
            cls._ends[1].setblocking(False)
            cls._ends[0].settimeout(_TICK_SECONDS)
            threading.Thread(target=cls._hear, name="stop signals", daemon=True).start()
        signal.set_wakeup_fd(cls._ends[1].fileno(), warn_on_full_buffer=False)

    @classmethod
    def _hear(cls) -> None:
        assert cls._ends is not None
        number = signalled_at = 0.0
        while True:
            try:
                heard = cls._ends[0].recv(1)[0]
            except TimeoutError:
                heard = 0
            if cls.world is None:
                number = 0
                continue
            if heard in STOP_SIGNALS:
                if number:  # the second one, which may not have reached its handler either
                    _end(int(number))
                number, signalled_at = heard, time.monotonic()
            if number and _is_late(cls.world, signalled_at):
                _end(int(number))


def _is_late(world: World, signalled_at: float) -> bool:
    """Whether the run would have ended itself by now if it could."""
    now = time.monotonic()
    if not world.can_save:
        return now - signalled_at > _STARTING_SECONDS
    since = world.monitor.waits_since() if world.monitor is not None else None
    if since is None:  # it computes or saves, and will hear of the signal
        return False
    return now - max(since, signalled_at) > world.grace_seconds + _LATER_SECONDS


def _end(number: int) -> None:
    sys.stdout.flush()
    os._exit(128 + number)
