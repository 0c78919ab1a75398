"""`njit` of Numba, whose cache of compiled functions is optional: a place for it, or none.

Numba keeps compiled functions beside their source or in the user's cache, refuses to define a
function where neither can be written, and fails for ever on a file of its cache that was cut, as by
a full disk. Neither should keep a program from running: compiling again takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnn_core.launch_environment import without_wrong_counts

with without_wrong_counts():  # Numba would answer them with a traceback
    import numba
    from numba import types
    from numba.core.caching import FunctionCache

__all__ = ["njit", "types"]


def njit(*signatures: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these arguments; with `cache=True` compiled code is kept where it can be.

    That is where NUMBA_CACHE_DIR says, else beside the source, else in a folder of the user. With
    signatures the function is compiled at once, for those alone.
    """
    is_cached = options.pop("cache", False)

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if is_cached and (cache := _cache_of(function)) is not None:
            dispatcher._cache = cache  # what `cache=True` sets, or fails to
        for signature in signatures:
            dispatcher.compile(signature)
        if signatures:
            dispatcher.disable_compile()
        return dispatcher

    return decorate


class _ForgivingCache(FunctionCache):
    """A cache that takes what it cannot read for nothing, and writes it anew."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 - whatever unpickling a cut or foreign file raises
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError, EOFError):  # a full disk, or a file as above
            super().save_overload(sig, data)


def _cache_of(function: Callable[..., Any]) -> FunctionCache | None:
    """Where the compiled function is kept; None where nothing can be written."""
    source = Path(function.__code__.co_filename)
    settings: Any = numba.config
    if not settings.CACHE_DIR and not _is_writable(source.parent / "__pycache__"):
        settings.CACHE_DIR = str(_folder_of_user() or "")  # for all functions from now on
        if not settings.CACHE_DIR:
            return None
    try:
        return _ForgivingCache(function)
    except RuntimeError:  # no locator available
        return None


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in the folder, which may have to be made itself."""
    try:
        folder.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _folder_of_user() -> Path | None:
    """A folder that this user alone can write to, since what lies there is executed."""
    places = []
    if cache := os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(cache))
    with contextlib.suppress(RuntimeError):  # no HOME, and no such user
        places.append(Path.home() / ".cache")
    with contextlib.suppress(OSError):
        places.append(Path(tempfile.gettempdir()))
    for place in places:
        folder = place / f"ringsage-numba-{os.getuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = folder.lstat()
            is_mine = facts.st_uid == os.getuid() and stat.S_ISDIR(facts.st_mode)
            if is_mine and not facts.st_mode & 0o022 and _is_writable(folder):
                return folder
    return None
