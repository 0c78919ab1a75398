"""What the tests of whole runs share: a place for each, and runs inside this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gnn_core.measure.run_record import RunRecord
from tests.e2e.small import DATASET, Place
from tests.known_machine import known_machine


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder with the small graph in it."""
    from gnn_core.data import datasets

    cache = tmp_path_factory.mktemp("cache")
    datasets.load(DATASET, cache_dir=cache)
    return cache


@pytest.fixture
def place(tmp_path: Path, prepared: Path) -> Place:
    """Where this test keeps what its runs write."""
    return Place(tmp_path, prepared)


@dataclass(frozen=True)
class Outcome:
    """How a run inside this process ended."""

    code: int
    out: str
    err: str


Main = Callable[[], int]


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Main, Sequence[str]], Outcome]]:
    """Give `in_process(main, words)`: a program of torch, without a new process.

    That saves the seconds in which torch is imported.
    """
    torch = pytest.importorskip("torch")
    from gnn_core.launch import STOP_SIGNALS, guarded

    monkeypatch.setattr(torch, "set_num_interop_threads", lambda count: None)  # only once a process
    before = [(number, signal.getsignal(number)) for number in STOP_SIGNALS]
    threads = torch.get_num_threads()

    def start(main: Main, words: Sequence[str], **options: bool) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["program.py", *map(str, words)])
        capsys.readouterr()
        with known_machine():
            code = guarded(main, **options)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    yield start
    torch.set_num_threads(threads)
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def single(in_process: Callable) -> Callable[[Sequence[str]], Outcome]:
    """Give `single(words)`: `python baselines/single.py <words>`, inside this process."""
    from baselines.single import main

    return lambda words: in_process(main, words)


@pytest.fixture(scope="session")
def records_of_whole() -> dict[int, RunRecord]:
    """What `whole` has given, by the number of epochs."""
    return {}


@pytest.fixture
def whole(
    single: Callable, place: Place, records_of_whole: dict[int, RunRecord]
) -> Callable[[int], RunRecord]:
    """Give `whole(epochs=2)`: the record of the small run in one process, undisturbed."""

    def run(epochs: int = 2) -> RunRecord:
        if epochs not in records_of_whole:
            elsewhere = Place(place.folder / "whole", place.cache)
            assert single(elsewhere.flags(epochs=epochs, progress="off")).code == 0
            records_of_whole[epochs] = elsewhere.record()
        return records_of_whole[epochs]

    return run
