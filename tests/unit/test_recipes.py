"""Recipes: which one a data set gets, and what follows from one setting to another."""

from __future__ import annotations

import pytest

from gnn_core.config import OPTIONS, RECIPES, RunConfig, UsageError
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


@pytest.mark.parametrize(
    ("num_targets", "batch", "epochs", "eval_every"),
    [
        (5, 8, 500, 10),
        (140, 144, 500, 10),
        (1024, 1024, 500, 10),
        (1025, 1024, 250, 5),
        (12_000, 1024, 42, 1),
        (1_000_000, 1024, 10, 1),
    ],
)
def test_the_recipe_of_a_folder_is_a_number_of_steps(
    parse, num_targets: int, batch: int, epochs: int, eval_every: int
) -> None:
    config = parse("--dataset", "./mine").for_graph(num_targets)
    assert (config.global_batch_size, config.epochs) == (batch, epochs)
    assert (config.eval_every, config.patience) == (eval_every, 10)
    assert config.epochs * -(-num_targets // batch) >= 500
    assert config.origins["epochs"] == config.origins["global_batch_size"] == "recipe"
    assert config.for_graph(num_targets) == config


def test_what_is_given_beats_the_number_of_steps(parse, yaml_file) -> None:
    """And the rest follows it."""
    config = parse("--dataset", "./mine", "--global-batch-size", "32").for_graph(140)
    assert (config.global_batch_size, config.epochs, config.eval_every) == (32, 100, 2)
    path = yaml_file("epochs: 7\npatience: 0\n")
    config = parse("--dataset", "./mine", "--config", path).for_graph(140)
    assert (config.epochs, config.eval_every, config.patience) == (7, 1, 0)
    assert config.global_batch_size == 144
    recorded = RunConfig.from_dict(RunConfig(dataset="./mine").to_dict())
    assert recorded.for_graph(5) == recorded


def test_what_follows_the_epochs_follows_those_of_the_graph(parse) -> None:
    words = ("--dataset", "./mine", "--lr-schedule", "step", "--layers", "3")
    config = parse(*words).for_graph(1025)
    assert (config.epochs, config.lr_step_epochs, config.fanouts) == (250, 83, (10, 10, 10))
    assert config.origins["lr_step_epochs"] == config.origins["fanouts"] == "derived"
    config = parse("--dataset", "./mine", "--warmup-epochs", "20")
    assert config.for_graph(140).warmup_epochs == 20
    with pytest.raises(UsageError, match="--warmup-epochs: .* than the 10 epochs of the run"):
        config.for_graph(1_000_000)


def test_links_of_a_folder_are_counted_in_steps_too(parse) -> None:
    config = parse("--dataset", "./mine", "--task", "link").for_graph(4343)
    assert (config.global_batch_size, config.epochs, config.eval_every) == (4096, 250, 5)


@pytest.mark.parametrize("dataset", ["synthetic", "cora", "citeseer", "ogbn-arxiv", "cit-hepth"])
@pytest.mark.parametrize("task", ["node", "link"])
def test_a_data_set_with_a_name_keeps_its_epochs(parse, dataset: str, task: str) -> None:
    if (dataset, task) != ("cit-hepth", "node"):  # it has no labels
        config = parse("--dataset", dataset, "--task", task)
        assert config.for_graph(140) is config
        assert config.patience in (0, 50)
