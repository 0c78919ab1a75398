"""Wrong inputs of every kind, by the hundred: each is refused in a line, or taken; nothing breaks.

A failing input is made as small as it can be, and printed as a `Case`, to be pasted into a test.
The inputs are the same each time; RINGSAGE_FUZZ_SEED=7 gives others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: `make install`")

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402

from tests.fuzz.conftest import SEED  # noqa: E402
from tests.fuzz.inputs import KINDS  # noqa: E402
from tests.fuzz.worker import Case, Worker  # noqa: E402

pytestmark = pytest.mark.needs_torch
_FEW, _MANY = 5, 200


def try_all(kind: str, count: int, worker: Worker) -> None:
    """Have hypothesis look for an input of that kind that breaks a program."""
    reported = os.environ.get(SEED) or None  # make passes it on empty where it has none

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=reported is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(KINDS[kind]())
    def holds(case: Case) -> None:
        assert worker.problem(case) is None

    check: Callable[[], Any] = holds if reported is None else seed(int(reported))(holds)
    check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_inputs_of_each_kind(kind: str, worker: Worker) -> None:
    try_all(kind, _FEW, worker)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_inputs_of_each_kind(kind: str, worker: Worker) -> None:
    try_all(kind, _MANY, worker)
