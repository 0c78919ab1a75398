"""What the fuzzer says of itself, and the child that all its tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fuzz.worker import Worker

SEED = "RINGSAGE_FUZZ_SEED"


def pytest_report_header() -> str:
    """Say how to get the same inputs again."""
    return f"fuzz: seed {os.environ.get(SEED) or 'of the tests themselves'} ({SEED})"


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A child that runs programs."""
    made = Worker(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()
