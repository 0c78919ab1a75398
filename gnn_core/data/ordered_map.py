"""`map` by a few threads, for work that lets go of the interpreter: Arrow's and compiled loops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gnn_core.env.granted import available_cores

In = TypeVar("In")
Out = TypeVar("Out")
_MOST_THREADS = 8


def threads_to_use() -> int:
    """One for each core, up to 8."""
    return min(_MOST_THREADS, available_cores())


def ordered_map(
    work: Callable[[In], Out], items: Iterable[In], threads: int, ahead: int = 1
) -> Iterator[Out]:
    """The results in the order of the items, of which `threads + ahead` are begun at most."""
    if threads == 1 and not ahead:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, "ordered map") as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
