"""The models of this trainer by name: `register` adds one, `build_model` makes the run's,
`load_model` a saved one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from gnn_core.config import RunConfig
from gnn_core.data.datasets import find_cache
from gnn_core.data.graph import Graph
from gnn_core.data.pair_common import reads_common
from gnn_core.data.pair_structure import structure_width
from gnn_core.models import MODELS, ModelSettings, is_in_file
from gnn_core.training.learner import require_alike
from gnn_core.training.state import Weights
from gnn_core.usage import UsageError
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
    model = _on_device(config, graph.num_features, graph.num_classes, world)
    model.read_graph(graph)
    for tensor in model.state_dict().values():
        world.broadcast_(tensor)
    return model


def load_model(config: RunConfig, weights: Weights, world: SingleProcess) -> NodeModel | LinkModel:
    """The model of those settings with saved weights, on this rank's device.

    Raises UsageError for weights that are no such model's.
    """
    model = _on_device(config, *saved_widths(config, weights), world)
    try:
        require_alike({name: t.cpu().numpy() for name, t in model.state_dict().items()}, weights)
    except ValueError as error:
        raise _foreign(config, str(error)) from None
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in weights.items()})
    return model


def saved_widths(config: RunConfig, weights: Weights) -> tuple[int, int]:
    """Width of the features and number of classes of the model whose weights these are.

    They are read off the shapes that depend on them in a model of these settings, whatever its
    kind. For link prediction the second one means nothing. Raises UsageError where none fits.
    """
    narrow, wider, more = (_shapes(config, *widths) for widths in ((2, 2), (3, 2), (2, 3)))
    found = []
    for other in (wider, more):
        width = 2
        for name, shape in narrow.items():
            theirs = weights[name].shape if name in weights else ()
            if len(theirs) != len(shape):
                raise _foreign(config, f"{name}: expected {list(shape)}, got {list(theirs)}")
            for axis, (small, large) in enumerate(zip(shape, other[name], strict=True)):
                if small != large:
                    width = 2 + (theirs[axis] - small) // (large - small)
        found.append(max(width, 1))
    return found[0], found[1]


def _shapes(config: RunConfig, in_features: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    state = _model(config, in_features, num_classes, None).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _foreign(config: RunConfig, problem: str) -> UsageError:
    return UsageError(
        f"--checkpoint-dir: expected the weights of a model of the settings that stand beside them "
        f"(--model {config.model}), got others ({problem}); give another checkpoint"
    )


def _model(
    config: RunConfig, in_features: int, num_classes: int, native_bf16: bool | None
) -> NodeModel | LinkModel:
    is_link = config.task == "link"
    out_features = config.hidden if is_link else num_classes
    encoder = _build_encoder(config, in_features, out_features, native_bf16)
    if not is_link:
        return encoder
    return LinkModel(
        encoder, config.predictor_layers, config.seed, structure_width(config), reads_common(config)
    )


def _build_encoder(
    config: RunConfig, in_features: int, out_features: int, native_bf16: bool | None
) -> NodeModel:
    if is_in_file(config.model):
        settings = ModelSettings.of(config, in_features, out_features, native_bf16)
        return build_own(config.model, config.model_sha256, settings)
    return _BUILDERS[config.model](config, in_features, out_features, native_bf16)


def _on_device(
    config: RunConfig, in_features: int, num_classes: int, world: SingleProcess
) -> NodeModel | LinkModel:
    device = choose_device(config, world)
    rates = _agreed_rates(config, device, world)
    native_bf16 = None if rates is None else rates.native_bf16
    with world.errors_on_all_ranks():
        model = _model(config, in_features, num_classes, native_bf16)
    (model.encoder if isinstance(model, LinkModel) else model).rates = rates
    return model.to(device)


def check_model(config: RunConfig) -> None:
    """Refuse a model in a file that cannot be trained; raises UsageError."""
    if is_in_file(config.model):
        settings = ModelSettings.of(config, 5, config.hidden if config.task == "link" else 3)
        check_own(config.model, config.model_sha256, settings)


def _agreed_rates(
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
