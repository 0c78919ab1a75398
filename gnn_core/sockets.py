"""The sockets that a library in C opens, found by the descriptors that it leaves behind.

Horovod 0.28.1 asks for it: what its Gloo opens for a world stays open when that has ended, so
that another rank waits until its time is out, and it does not see that a host was cut off.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_DESCRIPTORS = Path("/proc/self/fd")
_PROBES = 3


class OpenedSockets:
    """`with opened: library.connect()`; then `opened` are the sockets that it has opened in there.

    None are known where there is no /proc. Those of other threads are taken for the library's, too:
    a short-lived one is gone when something is done to it.
    """

    def __init__(self) -> None:
        self._before: dict[int, str] = {}
        self._opened: dict[int, str] = {}

    def __enter__(self) -> OpenedSockets:
        self._before = _sockets()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened = dict(_sockets().items() - self._before.items())

    def miss_after(self, seconds: int) -> None:
        """Let the kernel end a connection whose other side has not answered for so long."""
        pause = max(1, seconds // (_PROBES + 1))
        for one in self._still_open():
            for level, option, value in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
                # Of what was sent and not acknowledged: keepalive begins when there is none.
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds),
            ):
                with contextlib.suppress(OSError):
                    one.setsockopt(level, option, value)

    def shut(self) -> None:
        """End the connections, so that the other sides notice; the library may close them later."""
        for one in self._still_open():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _still_open(self) -> Iterator[socket.socket]:
        """Each that has not been closed since, on a descriptor of our own."""
        for descriptor, _ in _sockets().items() & self._opened.items():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
                yield one


def _sockets() -> dict[int, str]:
    """The kernel's name of each socket of this process, by descriptor."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in _DESCRIPTORS.iterdir():
            with contextlib.suppress(OSError):
                if (name := str(entry.readlink())).startswith("socket:"):
                    found[int(entry.name)] = name
    return found
