"""The recipe of a folder or an imported graph, which follows what is known of it beforehand.

The rules read counts alone, so that neither the number of ranks nor where the graph is stored
changes them. `results/plans/recipes.yaml` compares their settings on validation splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gnn_core.settings.recipes import RECIPES

# Up to here a step on the whole graph takes about as long as one on sampled neighbours.
_MOST_NODES, _MOST_EDGES = 50_000, 2_000_000
_MOST_INPUTS = 1 << 27  # numbers in the features of all nodes; 512 MiB as float32
_FEW_PER_CLASS = 50
_WIDE = 256  # features; of as many, such as a bag of words, most can be dropped
_MANY_INPUTS = 10  # numbers of a node; of fewer, those that are dropped are missed

# Steps of a run that early stopping does not end before, and evaluations in them, at most.
_WHOLE = 1000, 500
_SAMPLED = 500, 50
_LINKS = 2000, 50
_LEAST_EPOCHS = 10

_WHOLE_GRAPH: Mapping[str, Any] = {
    "fanouts": (-1, -1),
    "dropout": 0.5,
    "lr": 0.01,
    "weight_decay": 5e-4,
    "patience": 50,
}
_FEW_LABELS: Mapping[str, Any] = {"dropout": 0.8, "weight_decay": 1e-3, "lr": 0.01}
_MANY_WORDS: Mapping[str, Any] = {"dropout": 0.8, "input_dropout": 0.5, "lr": 0.003}


@dataclass(frozen=True)
class GraphFacts:
    """What the recipe follows of a graph."""

    num_targets: int  # training nodes, or training edges of one epoch
    num_nodes: int
    num_edges: int  # messages, in both directions
    num_features: int
    num_classes: int  # 0 without labels
    num_inputs: float  # numbers other than 0 in the features of a node, on average


@dataclass(frozen=True)
class Fitted:
    """A recipe that was fitted to a graph."""

    name: str  # such as `whole graph, few labels`
    settings: Mapping[str, Any]  # field name -> value, of every field that a recipe fills


def fitted_recipe(facts: GraphFacts, task: str, given: Mapping[str, Any]) -> Fitted:
    """The recipe for a graph: a number of steps, with early stopping.

    A batch is no larger than the split, rounded up to a multiple of 8, so that 2, 4 or 8 replicas
    get slices of equal size. The epochs follow the batch, and the evaluations follow the epochs.

    Args:
        facts: of the graph.
        task: `node` or `link`.
        given: the settings that the user gave (field name -> value).
    """
    if task == "link":
        return Fitted("sampled links", _in_steps(RECIPES["link default"], facts, given, _LINKS))
    settings = dict(RECIPES["default"])
    name = "sampled neighbours"
    if is_whole := _fits_whole(facts):
        settings |= _WHOLE_GRAPH
        name = "whole graph"
    is_wide = facts.num_features >= _WIDE
    if facts.num_targets <= _FEW_PER_CLASS * facts.num_classes:
        settings |= {**_FEW_LABELS, "input_dropout": 0.8 if is_wide else 0.0}
        name += ", few labels"
    elif is_whole and is_wide and _MANY_INPUTS <= facts.num_inputs <= facts.num_features / 4:
        settings |= _MANY_WORDS
        name += ", many words"
    length = _WHOLE if is_whole else _SAMPLED
    return Fitted(name, _in_steps(settings, facts, given, length, is_whole))


def _fits_whole(facts: GraphFacts) -> bool:
    """Whether each step can pass messages along all edges of the graph."""
    return (
        facts.num_nodes <= _MOST_NODES
        and facts.num_edges <= _MOST_EDGES
        and facts.num_nodes * facts.num_features <= _MOST_INPUTS
    )


def _in_steps(
    settings: Mapping[str, Any],
    facts: GraphFacts,
    given: Mapping[str, Any],
    length: tuple[int, int],
    is_whole: bool = False,
) -> dict[str, Any]:
    """The settings with the batch, epochs and evaluations that make a run of such a length."""
    steps, evaluations = length
    num_targets = max(1, facts.num_targets)
    batch = num_targets if is_whole else min(settings["global_batch_size"], num_targets)
    batch = -(-batch // 8) * 8
    steps_of_epoch = -(-num_targets // given.get("global_batch_size", batch))
    epochs = max(_LEAST_EPOCHS, -(-steps // steps_of_epoch))
    eval_every = max(1, given.get("epochs", epochs) // evaluations)
    return {**settings, "global_batch_size": batch, "epochs": epochs, "eval_every": eval_every}
