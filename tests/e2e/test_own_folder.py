"""A graph folder of one's own: a recipe in steps, and what such a run says at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnn_core.data.graph import Graph, write_graph
from gnn_core.training.describe import BEST_IS_LAST
from tests.e2e.small import Place

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def own(tiny_graph: Graph, place: Place) -> dict[str, Any]:
    """Settings of a run on a folder with 64 training nodes; its recipe decides how long it is."""
    folder: Path = place.folder / "mine"
    write_graph(tiny_graph, folder)
    return {"dataset": folder, "epochs": None, "global_batch_size": None, "progress": "off"}


def test_a_dry_run_tells_how_long_it_will_be(
    single: Callable, place: Place, own: dict[str, Any]
) -> None:
    done = single(place.flags(**own, dry_run=True))
    assert (done.code, done.err) == (0, "")
    assert (
        "recipe     500 steps: 500 epochs of 1 for 64 training targets, evaluated every 10; "
        "stops after 10 evaluations without a gain" in done.out.splitlines()
    )
    given = single(place.flags(**{**own, "epochs": 3}, dry_run=True))
    assert (given.code, "\nrecipe " in given.out) == (0, False)


def test_a_run_is_long_enough_to_learn_and_goes_on_with_the_same_settings(
    single: Callable, place: Place, own: dict[str, Any]
) -> None:
    first = single(place.saving(**own))
    assert first.code == 0, first.err
    record = place.record()
    assert (record.config["epochs"], record.config["global_batch_size"]) == (500, 64)
    assert record.config["eval_every"] == record.config["patience"] == 10
    assert record.final["test_accuracy"] > 0.8
    assert record.epochs[9].valid_loss is not None and record.epochs[8].valid_loss is None
    again = single(place.saving(**own, resume=True))
    assert again.code == 0, again.err
    assert place.record().config_digest == record.config_digest


def test_a_run_whose_best_epoch_is_the_last_says_so(
    single: Callable, place: Place, own: dict[str, Any]
) -> None:
    for epochs in (1, 30):
        done = single(place.flags(**{**own, "epochs": epochs}, eval_every=1, patience=0))
        assert done.code == 0, done.err
        record = place.record()
        is_last = record.final["best_epoch"] == epochs - 1
        assert is_last == (epochs == 1)
        assert (BEST_IS_LAST in record.notes) == is_last
        assert (f"note       {BEST_IS_LAST}" in done.out.splitlines()) == is_last
