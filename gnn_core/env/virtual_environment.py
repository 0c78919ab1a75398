"""The virtual environment being installed into: its Python, its facts, how to call its pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gnn_core.env.mpi_settings import site_packages

__all__ = ["VirtualEnvironment", "cache_folder", "clean_environment", "pip_command"]

_FACTS = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "prefix": sys.prefix,
    "tag": "cp%d%d" % sys.version_info[:2] if sys.implementation.name == "cpython"
           else sys.implementation.cache_tag,
    "platform": sysconfig.get_platform().replace("-", "_").replace(".", "_"),
    "libc": "".join(platform.libc_ver()) or "unknown",
    "include": sysconfig.get_paths()["include"],
}))
"""


@dataclass(frozen=True)
class VirtualEnvironment:
    """A virtual environment and what its own Python says about itself."""

    venv: Path
    version: tuple[int, int, int]
    python_tag: str
    platform: str
    libc: str
    include: Path

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.venv / "bin" / "python"

    @property
    def scratch(self) -> Path:
        """Where pip unpacks what it installs; emptied by each installation."""
        return self.venv / "tmp"

    def torch_version(self) -> tuple[str | None, str | None]:
        """(version, CUDA version) of the installed torch, read without importing it; or None."""
        try:
            text = (site_packages(self.venv) / "torch" / "version.py").read_text(encoding="utf-8")
        except OSError:
            return None, None
        version = re.search(r"^__version__ *(?::[^=]*)?= *'([^']+)'", text, re.MULTILINE)
        cuda = re.search(r"^cuda *(?::[^=]*)?= *'([^']+)'", text, re.MULTILINE)
        return (version[1] if version else None), (cuda[1] if cuda else None)

    @classmethod
    def inspect(cls, venv: Path) -> VirtualEnvironment:
        """Ask the environment's Python; raises OSError or SubprocessError when it is broken."""
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-I", "-c", _FACTS],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        facts = json.loads(done.stdout)
        major, minor, micro = facts["version"]
        return cls(
            venv,
            (major, minor, micro),
            facts["tag"],
            facts["platform"],
            facts["libc"],
            Path(facts["include"]),
        )


def pip_command(target: VirtualEnvironment) -> list[str]:
    """The start of a pip command: deaf to PYTHONPATH and user packages, open to pip's settings."""
    return [str(target.python), "-I", "-u", "-m", "pip"]


def clean_environment(
    target: VirtualEnvironment, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables for commands that install: our PATH first, pip's settings respected."""
    env = dict(os.environ if environ is None else environ)
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        env.pop(name, None)  # each of them would put packages elsewhere than into the environment
    env.update(
        PATH=f"{target.venv / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}",
        VIRTUAL_ENV=str(target.venv),
        PIP_USER="0",
        PIP_NO_INPUT="1",
        PIP_PROGRESS_BAR="off",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_COLOR="1",
        PYTHONUNBUFFERED="1",
    )
    # What a killed pip leaves behind, hundreds of MB, is then deleted by the next installation.
    env.setdefault("TMPDIR", str(target.scratch))
    return env


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The user's cache: RINGSAGE_CACHE, else XDG_CACHE_HOME/ringsage, else ~/.cache/ringsage."""
    if environ.get("RINGSAGE_CACHE"):
        return Path(os.path.expanduser(environ["RINGSAGE_CACHE"]))  # noqa: PTH111 - never raises
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "ringsage"
    try:
        return Path.home() / ".cache" / "ringsage"
    except RuntimeError:  # no HOME, and a user that the system does not know
        return Path(tempfile.gettempdir(), f"ringsage-{os.getuid()}")
