"""The models of this trainer by name: `register` adds one, `build_model` makes the run's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch

from gnn_core.config import RunConfig
from gnn_core.data.datasets import find_cache
from gnn_core.data.graph import Graph
from gnn_core.models import MODELS, ModelSettings, is_in_file
from horovod_gnn.convolutions import Gat, Gcn, Gin, Sage
from horovod_gnn.device import choose_device
from horovod_gnn.layered import LayeredModel
from horovod_gnn.link import LinkModel
from horovod_gnn.model import GraphSAGE
from horovod_gnn.node_model import NodeModel
from horovod_gnn.own_model import build_own, check_own
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.product_rates import ProductRates, product_rates, slowest

# (settings, width of the features, width of the last layer, `Arithmetic`'s native_bf16) -> model
Builder = Callable[[RunConfig, int, int, bool | None], NodeModel]


def _sage(
    config: RunConfig, in_features: int, out_features: int, native_bf16: bool | None
) -> NodeModel:
    settings = ModelSettings.of(config, in_features, out_features, native_bf16)
    if not settings.plain:
        return Sage(settings)
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


def _layered(kind: type[LayeredModel]) -> Builder:
    return lambda *arguments: kind(ModelSettings.of(*arguments))


_BUILDERS: dict[str, Builder] = {
    "sage": _sage,
    "gcn": _layered(Gcn),
    "gat": _layered(Gat),
    "gin": _layered(Gin),
}


def register(name: str, title: str, builder: Builder) -> None:
    """Let `--model NAME` build this model; a name that is taken is replaced."""
    _BUILDERS[name] = builder
    MODELS[name] = title


def build_model(config: RunConfig, graph: Graph, world: SingleProcess) -> NodeModel | LinkModel:
    """The run's model on this rank's device, with the weights of rank 0.

    It gives logits of the graph's classes, or embeddings and scores of pairs for link prediction.
    """
    device = choose_device(config, world)
    rates = agreed_rates(config, device, world)
    native_bf16 = None if rates is None else rates.native_bf16
    out_features = config.hidden if config.task == "link" else graph.num_classes
    with world.errors_on_all_ranks():
        encoder = _build_encoder(config, graph.num_features, out_features, native_bf16)
    encoder.read_graph(graph)
    model: NodeModel | LinkModel = encoder
    if config.task == "link":
        model = LinkModel(encoder, config.predictor_layers, config.seed)
    model.to(device)
    for tensor in model.state_dict().values():
        world.broadcast_(tensor)
    return model


def check_model(config: RunConfig) -> None:
    """Refuse a model in a file that cannot be trained; raises UsageError."""
    if is_in_file(config.model):
        settings = ModelSettings.of(config, 5, config.hidden if config.task == "link" else 3)
        check_own(config.model, config.model_sha256, settings)


def _build_encoder(
    config: RunConfig, in_features: int, out_features: int, native_bf16: bool | None
) -> NodeModel:
    if is_in_file(config.model):
        settings = ModelSettings.of(config, in_features, out_features, native_bf16)
        return build_own(config.model, config.model_sha256, settings)
    return _BUILDERS[config.model](config, in_features, out_features, native_bf16)


def agreed_rates(
    config: RunConfig, device: torch.device, world: SingleProcess
) -> ProductRates | None:
    """What decides how all ranks multiply bfloat16; None if no rank does so on a CPU.

    All decide alike: the choice shows in the loss, if only by the rounding of bfloat16. Measured
    once on a machine, then read from its cache.
    """
    if config.precision != "bf16":
        return None
    on_cpu = device.type == "cpu"
    mine = asdict(product_rates(find_cache(config.cache_dir))) if on_cpu else None
    found = [ProductRates(**rates) for rates in world.gather(mine) if rates is not None]
    return slowest(found) if found else None
