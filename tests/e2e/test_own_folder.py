"""A graph folder of one's own: its recipe, and what such a run says at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data.checks import SPLIT_NAMES
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.meta import MISSING_ALLOWED
from gnn_core.training.describe import BEST_IS_LAST
from tests.e2e.small import Place

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def own(tiny_graph: Graph, place: Place) -> dict[str, Any]:
    """Settings of a run on a folder; the recipe of the graph decides all others."""
    folder: Path = place.folder / "mine"
    write_graph(tiny_graph, folder)
    left = ("epochs", "global_batch_size", "hidden", "fanouts", "dropout", "input_dropout", "lr")
    return {"dataset": folder, **dict.fromkeys(left), "progress": "off"}


def test_a_run_tells_its_recipe_and_why(
    single: Callable, place: Place, own: dict[str, Any], tiny_graph: Graph
) -> None:
    done = single(place.flags(**own, dry_run=True))
    assert (done.code, done.err) == (0, "")
    degree = tiny_graph.num_edges / tiny_graph.num_nodes
    facts = f"64 labelled nodes in 4 classes, mean degree {degree:.1f}, 8 features"
    assert (
        f"recipe     {facts}: whole-split batches, all neighbours, up to 1,000 steps, evaluated "
        "every 2 steps and stopped after 50 evaluations without a gain (recipe whole graph, few "
        "labels)" in done.out.splitlines()
    )
    given = {**own, "epochs": 3, "global_batch_size": 16, "fanouts": "5,5", "patience": 0}
    given["progress"] = "lines"
    done = single(place.flags(**given))
    assert (
        f"recipe     {facts}: batches of 16, fan-outs 5,5, 12 steps, evaluated every 4 steps "
        "(recipe whole graph, few labels, but for --fanouts, --epochs, --global-batch-size, "
        "--patience)" in done.out.splitlines()
    )
    named = single(place.flags(dry_run=True))
    assert (named.code, "\nrecipe " in named.out) == (0, False)


def test_a_class_that_is_tested_and_not_trained_on_is_refused(
    single: Callable, place: Place, own: dict[str, Any], tiny_graph: Graph
) -> None:
    assert tiny_graph.labels is not None and tiny_graph.splits is not None
    is_third = (tiny_graph.labels == 3) & (tiny_graph.splits == SPLIT_NAMES.index("train"))
    splits = np.where(is_third, 0, tiny_graph.splits).astype(np.uint8)
    graph = dataclasses.replace(tiny_graph, splits=splits)
    write_graph(graph, own["dataset"])
    done = single(place.flags(**own))
    assert done.code == 2
    assert "expected a training node of every class" in done.err
    assert "got none of class 3; write the folder anew" in done.err
    allowed = {**graph.meta, "provenance": {MISSING_ALLOWED: True}}
    write_graph(dataclasses.replace(graph, meta=allowed), own["dataset"])
    done = single(place.flags(**own, dry_run=True))
    assert (done.code, done.err) == (0, "")


def test_a_run_is_long_enough_to_learn_and_goes_on_with_the_same_settings(
    single: Callable, place: Place, own: dict[str, Any]
) -> None:
    first = single(place.saving(**own))
    assert first.code == 0, first.err
    record = place.record()
    assert (record.config["epochs"], record.config["global_batch_size"]) == (1000, 64)
    assert (record.config["eval_every"], record.config["patience"]) == (2, 50)
    assert record.config["fanouts"] == [-1, -1]
    assert record.final["test_accuracy"] > 0.8
    assert record.epochs[1].valid_loss is not None and record.epochs[0].valid_loss is None
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
