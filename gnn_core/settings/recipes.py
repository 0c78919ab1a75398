"""Sensible settings per data set, for whatever the user did not set.

A recipe is only a starting point: a flag beats the configuration file, which beats the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Far beyond any useful GraphSAGE; it keeps a typing slip from filling the memory.
MOST_LAYERS = 64

_SAMPLED_THREE_LAYERS: Mapping[str, Any] = {
    "layers": 3,
    "hidden": 256,
    "fanouts": (15, 10, 5),
    "dropout": 0.5,
    "input_dropout": 0.0,
    "epochs": 20,
    "eval_every": 1,
    "global_batch_size": 1024,
    "lr": 0.003,
    "weight_decay": 0.0,
    "patience": 0,
}
# A few thousand nodes with 140 (120, 60) labels: whole neighbourhoods fit, and only strong
# regularisation keeps the model from learning the labels by heart. Chosen on Cora's validation
# split, among nine settings, with seeds that no reported figure uses.
_SMALL_CITATION: Mapping[str, Any] = {
    "layers": 2,
    "hidden": 128,
    "fanouts": (-1, -1),
    "dropout": 0.8,
    "input_dropout": 0.8,
    "epochs": 200,
    "eval_every": 1,
    "global_batch_size": 140,
    "lr": 0.01,
    "weight_decay": 1e-3,
    "patience": 50,
}
_SYNTHETIC: Mapping[str, Any] = {
    "layers": 2,
    "hidden": 128,
    "fanouts": (10, 10),
    "dropout": 0.3,
    "input_dropout": 0.0,
    "epochs": 10,
    "eval_every": 1,
    "global_batch_size": 1024,
    "lr": 0.005,
    "weight_decay": 0.0,
    "patience": 0,
}

# Of a folder or an imported graph before it is opened; `fitted` then fits them to the graph.
_BY_STEPS: Mapping[str, Any] = {"epochs": 500, "eval_every": 10, "patience": 10}
_UNFITTED: Mapping[str, Any] = {**_SYNTHETIC, **_BY_STEPS}

# Short epochs of citations with many negatives each. Chosen on validation references of HEP-TH
# (results/plans/links.yaml).
_LINK: Mapping[str, Any] = {
    "layers": 2,
    "hidden": 128,
    "fanouts": (10, 5),
    "dropout": 0.0,
    "input_dropout": 0.0,
    "epochs": 15,
    "eval_every": 3,  # to rank references takes half as long as to train an epoch
    "global_batch_size": 128,
    "lr": 0.001,
    "weight_decay": 0.0,
    "patience": 0,
}

# A few thousand citations. Chosen on validation edges that seeds of no reported figure hold out.
_SMALL_LINK: Mapping[str, Any] = {
    **_LINK,
    "fanouts": (-1, -1),
    "dropout": 0.5,
    "input_dropout": 0.3,
    "epochs": 60,
    "eval_every": 5,  # to rank references takes longer than to train an epoch
    "global_batch_size": 1024,
    "lr": 0.003,
    "weight_decay": 1e-4,
}

RECIPES: dict[str, Mapping[str, Any]] = {
    "default": _UNFITTED,
    "synthetic": _SYNTHETIC,
    "synthetic-arxiv": _SAMPLED_THREE_LAYERS,
    "cora": _SMALL_CITATION,
    "citeseer": _SMALL_CITATION,
    "pubmed": _SMALL_CITATION,
    "ogbn-arxiv": _SAMPLED_THREE_LAYERS,
    "ogbn-products": _SAMPLED_THREE_LAYERS,
    "ogbn-papers100M": _SAMPLED_THREE_LAYERS,
    "link default": {**_LINK, **_BY_STEPS},
    "link synthetic": _LINK,
    "link cora": _SMALL_LINK,
    "link citeseer": _LINK,
    "link pubmed": _LINK,
    "link cit-hepth": _LINK,
    "link ogbn": _LINK,
    "link ogbl": _LINK,
}
_LINK_WORD = "link "
# The data sets that have a recipe of their own: all that have a name, and are no user's import.
_KNOWN = frozenset(
    (
        "synthetic",
        "synthetic-100k",
        "synthetic-arxiv",
        "cora",
        "cora-linqs",
        "citeseer",
        "pubmed",
        "ogbn-arxiv",
        "ogbn-products",
        "ogbn-papers100M",
        "ogbl-citation2",
        "cit-hepth",
    )
)
_HOLD_OUT = {"cora": "random", "ogbl-citation2": "published"}
_HELD_OUT = {"newest": 0.05, "random": 0.1}
# Chosen on validation edges (results/plans/links.yaml).
_NEGATIVES = 64
_POOL = 512  # papers that the negatives of a step are drawn from
_LARGE_POOL = {"cora": 1024}  # of larger steps
_EDGES, _SHORT_EPOCH = {"cora": 0}, 10_000  # of an epoch
_PREDICTOR = {"cora": "content"}


def recipe_name(dataset: str, task: str = "node") -> str:
    """Name the recipe of a data set: the longest name that begins it, or `default`.

    `synthetic:papers=1e6` is `synthetic`, `cora-linqs` is `cora`; a folder or an imported graph is
    `default`, whatever it is called. Those of link prediction have `link` before it.
    """
    if task == "link":
        names = [name for name in RECIPES if name.startswith(_LINK_WORD)]
        return _LINK_WORD + _begins(dataset, [name.removeprefix(_LINK_WORD) for name in names])
    return _begins(dataset, [name for name in RECIPES if not name.startswith(_LINK_WORD)])


def _begins(dataset: str, names: Iterable[str]) -> str:
    is_synthetic = dataset.startswith("synthetic")
    stem = dataset.partition(":")[0] if is_synthetic else dataset
    if stem not in _KNOWN:
        return "default"
    begins = [name for name in names if f"{stem}-".startswith(f"{name}-")]
    return max(begins, key=len, default="default")


def fill(
    values: Mapping[str, Any], recipe: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill what is None from the recipe of `values["dataset"]`, or from the settings it follows.

    `recipe` is one to take instead, fitted to the graph.

    Returns the filled values and, for each field filled here, its origin: `recipe` or `derived`.
    Values that are wrong are carried through untouched: judging them is the work of the checks.
    """
    filled = dict(values)
    origins: dict[str, str] = {}
    dataset = values["dataset"]
    dataset = dataset if isinstance(dataset, str) else "default"
    task = values["task"] if isinstance(values["task"], str) else "node"
    recipe = recipe or RECIPES[recipe_name(dataset, task)]
    derived = _depth(values, recipe)
    for name, value in {**recipe, **derived}.items():
        if filled[name] is None:
            filled[name] = value
            origins[name] = "derived" if name in derived else "recipe"
    followers: dict[str, Any] = {}
    if task == "link":
        if filled["hold_out"] is None:
            followers["hold_out"] = _HOLD_OUT.get(_begins(dataset, _HOLD_OUT), "newest")
        followers["negatives"] = _NEGATIVES
        followers["edges_per_epoch"] = _EDGES.get(_begins(dataset, _EDGES), _SHORT_EPOCH)
        pool = _LARGE_POOL.get(_begins(dataset, _LARGE_POOL), _POOL)
        followers["negatives_pool"] = 0 if filled["shared_negatives"] else pool
        followers["negatives_kind"] = "uniform" if filled["shared_negatives"] else "dated"
        followers["predictor"] = _PREDICTOR.get(_begins(dataset, _PREDICTOR), "structure")
        followers["link_loss"] = "softmax"
        how = filled["hold_out"] or followers["hold_out"]
        followers["held_out"] = _HELD_OUT.get(how) if isinstance(how, str) else None
    if filled["eval"] == "sampled":
        followers["eval_fanouts"] = filled["fanouts"]
    if filled["lr_schedule"] == "step":
        epochs = filled["epochs"]
        followers["lr_step_epochs"] = max(1, epochs // 3) if type(epochs) is int else None
        followers["lr_gamma"] = 0.5
    for name, value in followers.items():
        if filled[name] is None:
            filled[name], origins[name] = value, "derived"
    return filled, origins


def follows_graph(dataset: str, task: str) -> bool:
    """Whether a data set has no recipe of its own, as a folder and an imported graph have none."""
    return recipe_name(dataset, task) in ("default", _LINK_WORD + "default")


def _depth(values: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Layers out of the fan-outs, or fan-outs out of the layers, when just one of them is given."""
    layers, fanouts = values["layers"], values["fanouts"]
    if layers is None and isinstance(fanouts, tuple):
        return {"layers": len(fanouts)}
    if fanouts is None and type(layers) is int and 1 <= layers <= MOST_LAYERS:
        pattern = recipe["fanouts"]
        return {"fanouts": (pattern + pattern[-1:] * layers)[:layers]}
    return {}
