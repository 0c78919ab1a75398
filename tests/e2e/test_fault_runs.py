"""The faults bench, run small: a run that is hit, and one that goes on from what it has left."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.small import Place

pytestmark = [pytest.mark.needs_horovod, pytest.mark.long]


def test_runs_are_hit_resumed_and_end_like_the_one_that_is_not(
    run_cli: Callable, place: Place
) -> None:
    file = place.folder / "faults.json"
    words = ["--only", "mpirun", "--runs", "3", "--json", str(file)]
    done = run_cli(["python", "-m", "baselines.faults_bench", *words], timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads(file.read_text())["runs"]
    assert len(runs) == 3 and not any(one["problems"] or one["left"] for one in runs)
    assert any(one["was_hit"] and one["resumed"] for one in runs)
