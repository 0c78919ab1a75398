"""The model that the settings ask for."""

from __future__ import annotations

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from tf_mirrored.link import LinkModel
from tf_mirrored.model import GraphSAGE


def build_model(config: RunConfig, graph: Graph) -> GraphSAGE | LinkModel:
    """A node classifier or a link predictor; call it in the scope of the strategy."""
    is_link = config.task == "link"
    model = GraphSAGE(
        graph.num_features,
        config.hidden,
        config.hidden if is_link else graph.num_classes,
        layers=config.layers,
        aggregator=config.aggregator,
        precision=config.precision,
        seed=config.seed,
    )
    if not is_link:
        return model
    return LinkModel(model, config.predictor_layers, config.seed)
