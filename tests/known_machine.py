"""What a record tells of the machine and of the source, found out once for all runs of a process.

To find it out takes longer than a run of a few steps: all processes of the machine are looked at,
the metadata of packages is parsed, git is asked.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from gnn_core.measure import machine

_NAMES = ("hardware", "versions", "commit")


@functools.cache
def _found() -> dict[str, Any]:
    return {name: getattr(machine, name)() for name in _NAMES}


@contextlib.contextmanager
def known_machine() -> Iterator[None]:
    """Runs begun meanwhile are told what the first one found."""
    found = _found()
    with contextlib.ExitStack() as patches:
        for name in _NAMES:
            patches.enter_context(mock.patch.object(machine, name, return_value=found[name]))
        yield
