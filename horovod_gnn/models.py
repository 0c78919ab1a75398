"""The model that the settings ask for, with the same weights on every rank."""

from __future__ import annotations

from dataclasses import asdict

import torch

from gnn_core.config import RunConfig
from gnn_core.data.datasets import find_cache
from gnn_core.data.graph import Graph
from horovod_gnn.device import choose_device
from horovod_gnn.link import LinkModel
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.product_rates import ProductRates, product_rates, slowest


def build_model(config: RunConfig, graph: Graph, world: SingleProcess) -> GraphSAGE | LinkModel:
    """A node classifier or a link predictor on this rank's device, with the weights of rank 0."""
    device = choose_device(config, world)
    rates = agreed_rates(config, device, world)
    is_link = config.task == "link"
    sage = GraphSAGE(
        graph.num_features,
        config.hidden,
        config.hidden if is_link else graph.num_classes,
        layers=config.layers,
        aggregator=config.aggregator,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        precision=config.precision,
        native_bf16=None if rates is None else rates.native_bf16,
        seed=config.seed,
    )
    model = LinkModel(sage, config.predictor_layers, config.seed) if is_link else sage
    model.to(device)
    for tensor in model.state_dict().values():
        world.broadcast_(tensor)
    return model


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
