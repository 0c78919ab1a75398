"""Recipes: which one a data set gets, and what follows from one setting to another."""

from __future__ import annotations

import pytest

from gnn_core.config import OPTIONS, RECIPES, RunConfig, UsageError, parse_config
from gnn_core.data import datasets
from gnn_core.settings.fitted import Fitted, GraphFacts
from gnn_core.settings.recipes import follows_graph, recipe_name


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("synthetic", "synthetic"),
        ("synthetic:papers=1e6", "synthetic"),
        ("synthetic-arxiv", "synthetic-arxiv"),
        ("synthetic-arxiv:seed=3", "synthetic-arxiv"),
        ("cora", "cora"),
        ("cora-linqs", "cora"),
        ("Cora", "default"),
        ("cora-mine", "default"),
        ("cora:mine", "default"),
        ("synthetic-mine", "default"),
        ("ogbn-papers100M-mine", "default"),
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
    config = RunConfig(dataset="./mine", fitted=Fitted(name, RECIPES[name]))
    assert {field: getattr(config, field) for field in per_data_set} == RECIPES[name]


@pytest.mark.parametrize("name", datasets.names())
def test_every_data_set_with_a_name_has_a_recipe_of_its_own(name: str) -> None:
    assert not (follows_graph(name, "node") and follows_graph(name, "link"))
    assert follows_graph(f"{name}-mine", "node") and follows_graph(f"{name}-mine", "link")
    assert RunConfig(dataset=f"{name}-mine", task="link").hold_out == "newest"


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


def facts(num_targets: int, num_inputs: float = 18.2, **changes: int) -> GraphFacts:
    """Of a graph of bags of words; 140 targets are 20 a class, as Cora has them."""
    of_cora = {"num_nodes": 2708, "num_edges": 10556, "num_features": 1433, "num_classes": 7}
    return GraphFacts(**{"num_targets": num_targets, **of_cora, **changes}, num_inputs=num_inputs)


LARGE = {"num_nodes": 100_000, "num_edges": 1_000_000, "num_features": 128}


@pytest.mark.parametrize(
    ("graph", "name", "expected"),
    [
        (
            facts(140),
            "whole graph, few labels",
            {"fanouts": (-1, -1), "dropout": 0.8, "input_dropout": 0.8, "weight_decay": 1e-3},
        ),
        (facts(350), "whole graph, few labels", {"global_batch_size": 352}),
        (
            facts(351),
            "whole graph, many words",
            {"fanouts": (-1, -1), "dropout": 0.8, "input_dropout": 0.5, "lr": 0.003},
        ),
        (facts(351, num_inputs=10), "whole graph, many words", {"weight_decay": 5e-4}),
        (
            facts(351, num_inputs=9.9),
            "whole graph",
            {"fanouts": (-1, -1), "dropout": 0.5, "input_dropout": 0.0, "weight_decay": 5e-4},
        ),
        (facts(351, num_inputs=358), "whole graph, many words", {}),
        (facts(351, num_inputs=359), "whole graph", {"input_dropout": 0.0}),
        (facts(351, num_features=255), "whole graph", {"input_dropout": 0.0, "lr": 0.01}),
        (facts(140, num_features=255), "whole graph, few labels", {"input_dropout": 0.0}),
        (facts(140, num_features=256), "whole graph, few labels", {"input_dropout": 0.8}),
        (facts(140, num_edges=2_000_000), "whole graph, few labels", {"fanouts": (-1, -1)}),
        (
            facts(140, num_edges=2_000_001),
            "sampled neighbours, few labels",
            {"fanouts": (10, 10), "dropout": 0.8, "global_batch_size": 144},
        ),
        (facts(25_000, num_nodes=50_000), "whole graph, many words", {"global_batch_size": 25_000}),
        (
            facts(25_000, num_nodes=50_001),
            "sampled neighbours",
            {"fanouts": (10, 10), "dropout": 0.3, "input_dropout": 0.0, "lr": 0.005},
        ),
        (facts(2000, num_nodes=50_000, num_features=2684), "whole graph, many words", {}),
        (facts(2000, num_nodes=50_000, num_features=2685), "sampled neighbours", {}),
    ],
)
def test_the_recipe_follows_the_graph(
    parse, graph: GraphFacts, name: str, expected: dict[str, object]
) -> None:
    for dataset in ("./mine", "cora-mine"):
        config = parse("--dataset", dataset).for_graph(graph)
        assert config.recipe == name
        assert {field: getattr(config, field) for field in expected} == expected
        assert {option.name for option in OPTIONS.values() if option.per_data_set} <= {
            field for field, origin in config.origins.items() if origin == "recipe"
        }
        assert config.for_graph(graph) == config


def test_the_recipe_is_the_same_for_each_strategy(parse) -> None:
    fitted = [
        parse_config(["--dataset", "./mine"], strategy).for_graph(facts(140))
        for strategy in ("single", "horovod", "ddp", "keras")
    ]
    assert len({config.digest() for config in fitted}) == 1


@pytest.mark.parametrize(
    ("graph", "batch", "epochs", "eval_every", "patience"),
    [
        (facts(5), 8, 1000, 2, 50),
        (facts(140), 144, 1000, 2, 50),
        (facts(1025), 1032, 1000, 2, 50),
        (facts(1000, **LARGE), 1000, 500, 10, 10),
        (facts(1025, **LARGE), 1024, 250, 5, 10),
        (facts(12_000, **LARGE), 1024, 42, 1, 10),
        (facts(1_000_000, **LARGE), 1024, 10, 1, 10),
    ],
)
def test_the_recipe_is_a_number_of_steps(
    parse, graph: GraphFacts, batch: int, epochs: int, eval_every: int, patience: int
) -> None:
    config = parse("--dataset", "./mine").for_graph(graph)
    assert (config.global_batch_size, config.epochs) == (batch, epochs)
    assert (config.eval_every, config.patience) == (eval_every, patience)


def test_what_is_given_beats_the_recipe_of_the_graph(parse, yaml_file) -> None:
    """And the rest follows it."""
    config = parse("--dataset", "./mine", "--global-batch-size", "32").for_graph(facts(140))
    assert (config.global_batch_size, config.epochs, config.eval_every) == (32, 200, 1)
    path = yaml_file("epochs: 7\npatience: 0\ndropout: 0.1\n")
    config = parse("--dataset", "./mine", "--config", path).for_graph(facts(140))
    assert (config.epochs, config.eval_every, config.patience) == (7, 1, 0)
    assert (config.global_batch_size, config.dropout, config.input_dropout) == (144, 0.1, 0.8)
    recorded = RunConfig.from_dict(RunConfig(dataset="./mine").to_dict())
    assert recorded.for_graph(facts(5)) == recorded


def test_what_follows_the_recipe_follows_that_of_the_graph(parse) -> None:
    words = ("--dataset", "./mine", "--lr-schedule", "step", "--layers", "3")
    config = parse(*words).for_graph(facts(1025))
    assert (config.epochs, config.lr_step_epochs) == (1000, 333)
    assert config.fanouts == (-1, -1, -1)
    assert config.origins["lr_step_epochs"] == config.origins["fanouts"] == "derived"
    config = parse("--dataset", "./mine", "--warmup-epochs", "20")
    assert config.for_graph(facts(140)).warmup_epochs == 20
    with pytest.raises(UsageError, match="--warmup-epochs: .* than the 10 epochs of the run"):
        config.for_graph(facts(1_000_000, **LARGE))


def test_links_of_a_folder_are_counted_in_steps_too(parse) -> None:
    config = parse("--dataset", "cora-mine", "--task", "link").for_graph(facts(4343))
    assert (config.global_batch_size, config.epochs, config.eval_every) == (128, 59, 1)
    assert (config.recipe, config.fanouts) == ("sampled links", (10, 5))


@pytest.mark.parametrize("dataset", ["synthetic", "cora", "citeseer", "ogbn-arxiv", "cit-hepth"])
@pytest.mark.parametrize("task", ["node", "link"])
def test_a_data_set_with_a_name_keeps_its_recipe(parse, dataset: str, task: str) -> None:
    if (dataset, task) != ("cit-hepth", "node"):  # it has no labels
        config = parse("--dataset", dataset, "--task", task)
        assert config.for_graph(facts(140)) is config
        assert config.patience in (0, 50)
