"""Recipes: which one a data set gets, and what follows from one setting to another."""

from __future__ import annotations

import pytest

from gnn_core.config import OPTIONS, RECIPES, RunConfig
from gnn_core.settings.recipes import recipe_name


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("synthetic", "synthetic"),
        ("synthetic:papers=1e6", "synthetic"),
        ("synthetic-arxiv", "synthetic-arxiv"),
        ("synthetic-arxiv:seed=3", "synthetic-arxiv"),
        ("Cora", "cora"),
        ("cora-linqs", "cora"),
        ("coral", "default"),
        ("ogbn-papers100M", "ogbn-papers100M"),
        ("ogbn-mag", "default"),
        ("/data/cora", "default"),
        ("cora/graph", "default"),
        ("./synthetic", "default"),
    ],
)
def test_the_longest_name_that_begins_the_data_set(dataset: str, name: str) -> None:
    assert recipe_name(dataset) == name


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_whole_and_valid(name: str) -> None:
    per_data_set = {option.name for option in OPTIONS.values() if option.per_data_set}
    assert set(RECIPES[name]) == per_data_set
    RunConfig(dataset=name)


@pytest.mark.parametrize(
    ("argv", "layers", "fanouts"),
    [
        ("--layers 4", 4, (15, 10, 5, 5)),
        ("--layers 2", 2, (15, 10)),
        ("--layers 1", 1, (15,)),
        ("--fanouts 8,4", 2, (8, 4)),
        ("--fanouts 8,4,2,1", 4, (8, 4, 2, 1)),
        ("", 3, (15, 10, 5)),
    ],
)
def test_layers_and_fanouts_follow_each_other(parse, argv: str, layers: int, fanouts) -> None:
    config = parse("--dataset", "ogbn-arxiv", *argv.split())
    assert (config.layers, config.fanouts) == (layers, fanouts)


def test_what_follows_another_setting_is_filled(parse) -> None:
    config = parse("--lr-schedule", "step", "--epochs", "9", "--eval", "sampled")
    assert (config.lr_step_epochs, config.lr_gamma) == (3, 0.5)
    assert config.eval_fanouts == config.fanouts
