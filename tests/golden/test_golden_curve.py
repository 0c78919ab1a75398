"""Today's code trains exactly as it did: the stored curve, to nine digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.needs_torch
AGAIN = "if it is meant to move: python -m tests.golden.curve, and say why in CHANGELOG.md"


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    from tests.golden.curve import STORED

    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made_now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.golden.curve import train

    return train(Path(tmp_path_factory.mktemp("golden")))


def test_the_graph_is_the_same(stored: dict[str, Any], made_now: dict[str, Any]) -> None:
    assert made_now["graph"] == stored["graph"], AGAIN


def test_the_settings_are_the_same(stored: dict[str, Any], made_now: dict[str, Any]) -> None:
    assert json.loads(json.dumps(made_now["settings"])) == stored["settings"], AGAIN


def test_each_step_has_the_same_loss(stored: dict[str, Any], made_now: dict[str, Any]) -> None:
    assert len(stored["step_losses"]) == 26
    assert made_now["step_losses"] == pytest.approx(stored["step_losses"], rel=1e-9), AGAIN


def test_the_accuracies_are_the_same(stored: dict[str, Any], made_now: dict[str, Any]) -> None:
    for name in ("train_accuracy", "valid_accuracy"):
        assert made_now[name] == stored[name], AGAIN
    assert made_now["final"] == pytest.approx(stored["final"], rel=1e-9), AGAIN


def test_the_curve_goes_down(stored: dict[str, Any]) -> None:
    """A golden curve of a model that does not learn would guard nothing."""
    losses = stored["step_losses"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
