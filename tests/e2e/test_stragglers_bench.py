"""The stragglers benchmark, run small: its three rows, and that a slowed rank gets less to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.small import Place

pytestmark = [pytest.mark.needs_horovod, pytest.mark.long]


def test_the_slowed_rank_computes_less_of_the_same_curve(run_cli: Callable, place: Place) -> None:
    file = place.folder / "stragglers.json"
    words = ["--rounds", "1", "--epochs", "8", "--balance", "5", "--json", file]
    done = run_cli(["python", "-m", "baselines.stragglers_bench", *map(str, words)], timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads(Path(file).read_text())
    shares = {row[0]: float(row[-1]) for row in record["rows"]}
    assert shares["one slowed, --balance"] < shares["one slowed"] - 0.05
    assert "loss of a step: at most" in done.stdout


@pytest.mark.parametrize("speed", ["0", "1", "nan"])
def test_what_is_no_lower_speed_is_refused(run_cli: Callable, speed: str) -> None:
    done = run_cli(["python", "-m", "baselines.stragglers_bench", "--speed", speed])
    assert done.returncode == 2
    assert "--speed: expected 0.05 or more, below 1" in done.stderr
