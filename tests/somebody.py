"""Commands as somebody else: a user without a name and a home, as in `docker run --user 12345`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


def opened(folder: Path) -> None:
    """Let others look into a folder of pytest, which closes it."""
    for one in (folder, *folder.parents):
        if one.stat().st_uid == os.getuid() and one.is_relative_to("/tmp") and one != Path("/tmp"):
            one.chmod(0o755)
