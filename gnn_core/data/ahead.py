"""ahead: an iterator that runs in a thread of its own, some items in front of its consumer."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

# (done) -> None: calls `done(seconds)`, which waits so long at most, until it is true. May raise
# what ends the wait.
Wait = Callable[[Callable[[float], bool]], None]
_SECONDS = 60.0  # of one wait, where nothing ends it earlier
_END = object()
_Item = TypeVar("_Item")


def wait_forever(done: Callable[[float], bool]) -> None:
    """The default `Wait`."""
    while not done(_SECONDS):
        pass


def ahead(
    batches: Generator[_Item], depth: int, wait: Wait | None = wait_forever
) -> Generator[_Item]:
    """Run an iterator in a thread, at most `depth` items ahead; its exceptions surface here.

    One thread suffices: the sampler releases the GIL, and a loader *process* would need a copy
    of everything it hands over. The thread also closes the iterator when the consumer leaves.

    Args:
        batches: the iterator.
        depth: items that it may be ahead, also the one being made.
        wait: waits for the thread; None is forever.
    """
    wait = wait or wait_forever
    ready: queue.SimpleQueue = queue.SimpleQueue()
    room = threading.Semaphore(depth)  # counts batches, also the one being drawn
    stop = threading.Event()
    taken: list[Any] = []  # of the queue, at most one item

    def arrived(seconds: float) -> bool:
        with contextlib.suppress(queue.Empty):
            taken.append(ready.get(timeout=seconds))
        return bool(taken)

    def ended(seconds: float) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    thread = threading.Thread(
        target=_work, args=(batches, ready, room, stop), name="ringsage-prefetch", daemon=True
    )
    thread.start()
    try:
        while True:
            wait(arrived)
            item = taken.pop()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        wait(ended)


def _work(
    batches: Generator[Any],
    ready: queue.SimpleQueue,
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """Put items into `ready` while there is room, and _END or an exception after the last."""
    item: object = None
    try:
        while item is not _END and not isinstance(item, BaseException):
            room.acquire()
            if stop.is_set():
                return
            try:
                item = next(batches, _END)
            except BaseException as error:  # noqa: BLE001 - for the consumer, who raises it
                item = error
            ready.put(item)
    finally:
        with contextlib.suppress(Exception):  # the consumer has left
            batches.close()
