"""The models of this trainer by name: `register` adds one, `build` makes the run's."""

from __future__ import annotations

from collections.abc import Callable

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.models import MODELS
from horovod_gnn.model import GraphSAGE
from horovod_gnn.node_model import NodeModel

# (settings, width of the features, width of the last layer, `Arithmetic`'s native_bf16) -> model
Builder = Callable[[RunConfig, int, int, bool | None], NodeModel]


def _sage(
    config: RunConfig, in_features: int, out_features: int, native_bf16: bool | None
) -> GraphSAGE:
    return GraphSAGE(
        in_features,
        config.hidden,
        out_features,
        layers=config.layers,
        aggregator=config.aggregator,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        precision=config.precision,
        native_bf16=native_bf16,
        seed=config.seed,
    )


_BUILDERS: dict[str, Builder] = {"sage": _sage}


def register(name: str, title: str, builder: Builder) -> None:
    """Let `--model NAME` build this model; a name that is taken is replaced."""
    _BUILDERS[name] = builder
    MODELS[name] = title


def build(config: RunConfig, graph: Graph, native_bf16: bool | None) -> NodeModel:
    """The run's model: logits of the graph's classes, or embeddings to predict links from."""
    out_features = config.hidden if config.task == "link" else graph.num_classes
    return _BUILDERS[config.model](config, graph.num_features, out_features, native_bf16)
