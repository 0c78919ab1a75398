"""Tests that pass unchanged on any number of ranks: `mpirun -np 4 python -m pytest tests/parallel`.

Under plain `pytest` they run on one. Rank 0 alone reports; a rank in which a test fails says so
itself and ends the job, since its world would wait for it in a collective for ever.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from gnn_core.launch import launched_rank, launched_size, under_launcher

if TYPE_CHECKING:
    from horovod_gnn.parallel import SingleProcess


class WholeLines:
    """Hand on whole lines: a launcher tags what it is given piece by piece."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._held = ""

    def write(self, text: str) -> None:
        whole, end, self._held = (self._held + text).rpartition("\n")
        self._stream.write(whole + end)
        self._stream.flush()

    def flush(self) -> None:
        pass


@pytest.hookimpl(trylast=True)  # the reporter is made in the same hook
def pytest_configure(config: pytest.Config) -> None:
    """Let rank 0 alone write to the terminal, a line at a time."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and under_launcher():
        writer = reporter._tw
        quiet = launched_rank() > 0
        writer._file = Path(os.devnull).open("w") if quiet else WholeLines(writer._file)
        writer.hasmarkup = False
        config.option.tbstyle = "short"  # several ranks may have the same to say


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure under a launcher: tell it in one piece, and end the job."""
    if report.failed and launched_size() > 1:
        heading = f"rank {launched_rank()} failed in {report.nodeid} ({report.when})"
        sys.__stderr__.write(f"\n{heading}\n{report.longreprtext}\n")
        sys.__stderr__.flush()
        os._exit(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as a run has by default: ranks that spin for a core slow each other down."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def parallel() -> SingleProcess:
    """All ranks of this job, joined by Horovod; or this process alone where it is not installed."""
    parallel_module = pytest.importorskip("horovod_gnn.parallel", reason="torch is not installed")
    try:
        import horovod.torch  # noqa: F401
    except ImportError:
        if launched_size() > 1:
            raise
        pytest.skip("horovod.torch is not installed: `make install` builds it")
    return parallel_module.HorovodWorld()


@pytest.fixture(scope="session")
def process_group(parallel: SingleProcess) -> Iterator[SingleProcess]:
    """The same ranks joined by torch.distributed; through Horovod they hear where to meet."""
    from torch import distributed

    from baselines.process_group import ProcessGroup

    store = None
    if parallel.rank == 0:
        store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = parallel.gather(store.port if store else None)[0]
    if store is None:
        store = distributed.TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    group = ProcessGroup(store, parallel.rank, parallel.world_size)
    yield group
    group.leave()


@pytest.fixture(params=["alone", "Horovod", "torch.distributed"])
def either(request: pytest.FixtureRequest) -> SingleProcess:
    """A world of this process alone, and those of all ranks: they keep the same promises."""
    if request.param == "alone":
        return pytest.importorskip("horovod_gnn.parallel").SingleProcess()
    fixture = {"Horovod": "parallel", "torch.distributed": "process_group"}[request.param]
    return request.getfixturevalue(fixture)


@pytest.fixture(params=["parallel", "process_group"], ids=["Horovod", "torch.distributed"])
def together(request: pytest.FixtureRequest) -> SingleProcess:
    """Either world of all ranks."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def shared_path(parallel: SingleProcess, tmp_path: Path) -> Path:
    """A new folder that is the same one on every rank of this machine."""
    return Path(parallel.gather(str(tmp_path))[0])


@pytest.fixture
def same_everywhere(parallel: SingleProcess) -> Callable[[object], None]:
    """Give `same_everywhere(value)`: fail unless every rank has the same JSON-able value."""

    def check(value: object) -> None:
        everyone = parallel.gather(value)
        assert all(theirs == everyone[0] for theirs in everyone)

    return check
