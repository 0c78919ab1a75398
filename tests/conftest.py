"""What every test may use: a tiny graph, the real ones when they are there, commands, ranks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from gnn_core.data.graph import Graph

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # the tests also run where the packages are not installed
    sys.path.insert(0, str(ROOT))

# OpenMP's idle threads spin unless told otherwise, and take the cores from the other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Otherwise threads of gRPC abort what `subprocess` forks after it was used in the same process.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tests.forked import Forked, is_possible, server  # noqa: E402
from tests.patience import patient  # noqa: E402

# Of pytest-timeout, and here because it scales: no test, and no preparation of one, takes so long.
os.environ.setdefault("PYTEST_TIMEOUT", str(patient(200)))

Run = subprocess.CompletedProcess[str]
Started = subprocess.Popen[str] | Forked
# Marker -> the module that must be there.
NEEDS = {
    "needs_torch": "torch",
    "needs_horovod": "horovod.torch",
    "needs_tensorflow": "tensorflow",
    "needs_mpi4py": "mpi4py",
    "needs_kubernetes_schema": "kubernetes_validate",
    "needs_prometheus_client": "prometheus_client",
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, so that a misspelled one is an error under --strict-markers."""
    for marker, module in NEEDS.items():
        config.addinivalue_line("markers", f"{marker}: skipped where {module} is not installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a module that is not there, and say which one."""
    for marker, module in NEEDS.items():
        if item.get_closest_marker(marker) and not _is_installed(module):
            pytest.skip(f"{module} is not installed: `make install` installs it")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around a submodule is missing
        return False


@pytest.fixture(scope="session")
def tiny_graph() -> Graph:
    """Make 120 nodes in 4 classes: 64 train, 28 valid, 28 test; features `[120, 8]` float32.

    Neighbours mostly share the class and the features hint at it, so a model can learn the labels
    in a few epochs, and learns them better with the graph than without.
    """
    from gnn_core.data.graph import Graph

    num_nodes, num_classes, num_features = 120, 4, 8
    random = np.random.default_rng(7)
    labels = np.arange(num_nodes) % num_classes
    same_class = labels[:, None] == labels[None, :]
    chance = np.where(same_class, 0.16, 0.008)
    linked = np.triu(random.random((num_nodes, num_nodes)) < chance, k=1)
    linked |= linked.T
    indptr = np.concatenate([[0], np.cumsum(linked.sum(axis=1))])
    indices = np.nonzero(linked)[1]
    features = random.normal(0, 1, (num_nodes, num_features)).astype(np.float32)
    features[np.arange(num_nodes), labels] += 1
    splits = random.permutation(np.repeat([1, 2, 3], [64, 28, 28]))
    return Graph.from_arrays("tiny", indptr, indices, features, labels, splits)


@pytest.fixture
def real_data_root() -> Path:
    """Find the folder of published raw graphs, or skip: they are not part of the repository.

    RINGSAGE_DATA names it; otherwise a `shared/data` beside the checkout is taken.
    """
    named = os.environ.get("RINGSAGE_DATA")
    root = Path(named) if named else ROOT.parent / "shared" / "data"
    if not root.is_dir():
        where = "RINGSAGE_DATA names no folder" if named else "RINGSAGE_DATA is not set"
        pytest.skip(f"no published graphs here: {where}")
    return root.resolve()


@pytest.fixture
def run_cli() -> Callable[..., Run]:
    """Give `run_cli(command, timeout=60, env=None, cwd=<repository>)`: run it, return all it said.

    The word `python` stands for this interpreter. A command that hangs fails the test, with what
    it said until then, and is ended with everything that it started.
    """
    return _run


@pytest.fixture
def horovodrun() -> Callable[..., Run]:
    """Give `horovodrun(num_ranks, args, launcher="horovodrun", timeout=120, env=None)`.

    It starts `python <args>` on so many ranks of this machine, by horovodrun or mpirun of the
    interpreter's environment, and skips the test where the launcher or horovod is missing.
    """
    return _launch


def _launch(
    num_ranks: int,
    args: Sequence[str],
    launcher: str = "horovodrun",
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Run:
    program = Path(sys.executable).parent / launcher
    if not program.exists():
        pytest.skip(f"{launcher} is not installed beside {sys.executable}: `make install`")
    if not _is_installed("horovod.torch"):
        pytest.skip("horovod.torch is not installed: `make install` builds it")
    placing = {
        "horovodrun": ["-H", f"localhost:{num_ranks}"],
        "mpirun": ["--oversubscribe", "--bind-to", "none"],
    }[launcher]
    # Containers run tests as root, which mpirun refuses unless it is told twice. When a rank fails,
    # mpirun sleeps the sigkill timeout out, twice, whatever happens: a test need not wait for that.
    mpi = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_odls_base_sigkill_timeout": "1",
        # horovodrun looks for mpirun on the path, as in an activated environment.
        "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    command = [str(program), "-np", str(num_ranks), *placing, sys.executable, *args]
    return _run(command, timeout=timeout, env={**mpi, **(env or {})}, cwd=cwd)


def _run(
    command: Sequence[str],
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Run:
    limit = patient(timeout)
    words = [sys.executable if word == "python" else str(word) for word in command]
    process = _started(words, env or {}, cwd)
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        stdout, stderr = _end(process)
        shown = f"stdout:\n{stdout[-4000:]}\nstderr:\n{stderr[-4000:]}"
        pytest.fail(f"still running after {limit:g} s: {' '.join(words)}\n{shown}")
    except BaseException:  # Ctrl-C leaves nothing behind either
        _end(process)
        raise
    return subprocess.CompletedProcess(words, process.returncode or 0, stdout, stderr)


def _started(words: list[str], more: Mapping[str, str], cwd: Path) -> Started:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **more}
    if words[0] == sys.executable and is_possible(words[1:], more):
        return server().start(words[1:], env, cwd)
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        env=env,
        start_new_session=True,  # so that a launcher can be ended with its ranks
    )


def _end(process: Started) -> tuple[str, str]:
    for sign, patience_seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        for pid in _session_members(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=patience_seconds)
    return "", ""  # something holds the pipes open; there is no more to be done from here


def _session_members(session: int) -> list[int]:
    """Find every process of a session: mpirun puts each rank into a process group of its own."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) == session:
                members.append(int(folder.name))
    return members or [session]
