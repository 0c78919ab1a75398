"""The model of this trainer."""

from __future__ import annotations

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.pair_common import reads_common
from gnn_core.data.pair_structure import structure_width
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE


def build_model(config: RunConfig, graph: Graph) -> GraphSAGE | LinkModel:
    """The run's model, for the scope of the strategy.

    It gives logits of the graph's classes, or embeddings and scores of pairs for link prediction.
    """
    model = GraphSAGE(
        graph.num_features,
        config.hidden,
        config.hidden if config.task == "link" else graph.num_classes,
        layers=config.layers,
        aggregator=config.aggregator,
        precision=config.precision,
        seed=config.seed,
    )
    if config.task != "link":
        return model
    return LinkModel(
        model, config.predictor_layers, config.seed, structure_width(config), reads_common(config)
    )
