"""Which packages may be missing in an environment, and the command that installs them.

`pip install .` brings what `gnn_core` needs; torch, TensorFlow and what the report draws with are
extras of pyproject.toml. Nothing third-party is imported here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from gnn_core.usage import UsageError

ROOT = Path(__file__).resolve().parents[1]
BASE = ("numpy", "numba", "yaml", "filelock", "psutil", "safetensors", "scipy", "pyarrow", "tqdm")
"""The modules of the dependencies in pyproject.toml, which need no extra."""

EXTRAS = {
    "torch": ("torch", "tensorboardX"),
    "tf": ("tensorflow", "keras"),
    "report": ("pandas", "matplotlib", "networkx", "jinja2", "ipykernel"),
    "deploy": ("kubernetes_validate",),
    "examples": ("sklearn",),
    "partition": ("pymetis",),
    "metrics": ("prometheus_client",),
    "track": ("mlflow",),
    "sql": ("sqlalchemy", "pandas"),
    "param-server": ("grpc", "google.protobuf"),
}
"""Extra of pyproject.toml -> the modules that it brings."""


def require(*modules: str) -> None:
    """Raise UsageError, with the command that installs it, where one of the modules is missing.

    Args:
        modules: names of EXTRAS. Those of BASE are looked for as well. Nothing is imported.
    """
    for module in (*BASE, *modules):
        if problem := missing(module):
            raise UsageError(problem)


def missing(module: str) -> str | None:
    """What to say of a module that is not installed; None for one that is, or is not known here."""
    extra = next((name for name, modules in EXTRAS.items() if module in modules), "")
    if not (extra or module in BASE) or _is_installed(module):
        return None
    return f"expected the package {module}, got none installed: {install_command(extra)}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def install_command(extra: str = "") -> str:
    """The pip command, in backquotes, that brings an extra into this environment."""
    try:
        folder = importlib.metadata.distribution("ringsage").locate_file("")
        installed = (
            Path(str(folder)).resolve() != ROOT
        )  # what a build left there is no installation
    except importlib.metadata.PackageNotFoundError:
        installed = False
    return f"`pip install '{'ringsage' if installed else ROOT}{f'[{extra}]' if extra else ''}'`"
