"""Commands as somebody else: a user without a name and a home, as in `docker run --user 12345`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_BECOME = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]


def somebody_else() -> list[str]:
    """The words before a command that make it somebody else's; skips where that cannot be."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become somebody else, by setpriv")
    if subprocess.run([*_BECOME, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{sys.executable} is closed to others")
    return _BECOME


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that others can look into; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
