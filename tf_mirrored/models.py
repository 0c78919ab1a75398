"""The models of this trainer by name."""

from __future__ import annotations

from collections.abc import Callable

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.pair_structure import structure_width
from gnn_core.usage import UsageError
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE


def _sage(config: RunConfig, in_features: int, out_features: int) -> GraphSAGE:
    return GraphSAGE(
        in_features,
        config.hidden,
        out_features,
        layers=config.layers,
        aggregator=config.aggregator,
        precision=config.precision,
        seed=config.seed,
    )


# (settings, width of the features, width of the last layer) -> model
_BUILDERS: dict[str, Callable[[RunConfig, int, int], GraphSAGE]] = {"sage": _sage}


def build_model(config: RunConfig, graph: Graph) -> GraphSAGE | LinkModel:
    """The run's model, for the scope of the strategy.

    It gives logits of the graph's classes, or embeddings and scores of pairs for link prediction.

    Raises:
        UsageError: only another trainer has that model.
    """
    if config.model not in _BUILDERS:
        raise UsageError(
            f"--model {config.model}: expected a model that tf_mirrored has, "
            f"{' or '.join(_BUILDERS)}; train this one with horovod_gnn/train.py"
        )
    out_features = config.hidden if config.task == "link" else graph.num_classes
    model = _BUILDERS[config.model](config, graph.num_features, out_features)
    if config.task != "link":
        return model
    return LinkModel(model, config.predictor_layers, config.seed, structure_width(config))
