"""A saved model in torch, at work on a graph or on its way to PyTorch Geometric.

`horovod_gnn/predict.py` and `baselines/predict.py` differ in how ranks meet; this is what they do
then.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from gnn_core.config import RunConfig
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.inference.job import names_of_classes, open_graphs, predict, require_widths
from gnn_core.inference.request import (
    Plan,
    Request,
    plan_of,
    read_request,
    require_place,
    settings_of,
)
from gnn_core.launch import launched_rank
from gnn_core.measure.console import Console
from gnn_core.training.checkpoint import SavedModel, model_of, read_model
from gnn_core.training.job import run_on_all_ranks
from gnn_core.training.memory_plan import plan_memory
from gnn_core.training.preparation import require_launched_hosts, require_same_job
from gnn_core.training.tasks import feature_store, open_store
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole
from horovod_gnn.evaluate import Layers, LinkLayers
from horovod_gnn.exchange import to_pyg
from horovod_gnn.learner import set_up_torch
from horovod_gnn.link import LinkModel
from horovod_gnn.model import GraphSAGE
from horovod_gnn.models import load_model, saved_widths
from horovod_gnn.node_model import NodeModel
from horovod_gnn.parallel import SingleProcess

_W = TypeVar("_W", bound=SingleProcess)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for, and the checkpoint, which rank 0 alone has to have."""

    request: Request
    checkpoint: bytes


def run(doc: str | None, join: Callable[[RunConfig | None], _W]) -> int:
    """Read the command line, join the other ranks, predict; the exit code.

    Args:
        doc: of the program, for its help.
        join: meets the other ranks.

    Raises:
        UsageError: something the user can put right; on every rank alike.
    """
    return run_on_all_ranks(
        partial(_read, doc), lambda asked: join(asked.request.place if asked else None), _work
    )


def open_layers(folder: Path, graph: Graph, weights: str = "best") -> Layers | LinkLayers:
    """A saved model over the features of a graph, in this process.

    Args:
        folder: of the checkpoints.
        graph: of the feature width and the classes that it was trained with.
        weights: `best` or `last`.

    Raises:
        UsageError: no checkpoint, a damaged one, or a graph that does not fit it.
    """
    saved = model_of(read_model(folder, f"{weights}.safetensors"))
    config = settings_of(saved, device="cpu")
    require_widths(saved_widths(config, saved.weights), graph, config)
    if config.task == "node":
        names_of_classes(saved, graph)
    store = feature_store(graph, config)
    return _layers(load_model(config, saved.weights, SingleProcess()), graph, store)


def _layers(model: NodeModel | LinkModel, graph: Graph, store: FeatureStore) -> Layers | LinkLayers:
    model.read_graph(graph)
    model.eval()
    return LinkLayers(model, store) if isinstance(model, LinkModel) else Layers(model, store)


def _read(doc: str | None) -> _Asked:
    request = read_request(doc, sys.argv[1:])
    if launched_rank() > 0:
        return _Asked(request, b"")
    data = read_model(request.checkpoint_dir, f"{request.weights}.safetensors")
    require_place(request)
    return _Asked(request, data)


def _work(asked: _Asked, world: SingleProcess) -> int:
    """Predict, or export, with all ranks; the exit code."""
    saved = model_of(world.broadcast_bytes(asked.checkpoint))
    with world.errors_on_all_ranks():
        require_launched_hosts(world)
        plan = plan_of(asked.request, saved)
        set_up_torch(plan.config, world)
    if asked.request.export:
        _export(asked.request, plan, saved, world)
        return 0
    with world.errors_on_all_ranks():
        graphs = open_graphs(plan.config, saved, Console.of(plan.config, world.rank))
        require_widths(saved_widths(plan.config, saved.weights), graphs.read, plan.config)
    require_same_job(plan.config, graphs.read, world)
    with world.errors_on_all_ranks():
        memory = plan_memory(plan.config, graphs.read, world, trains=False)
        config = memory.applied(plan.config, graphs.read)
    store = open_store(config, graphs.read, world)
    layers = _layers(load_model(config, saved.weights, world), graphs.read, store)
    world.can_save = True  # a signal ends it at the next chunk
    predict(asked.request, plan, graphs, world, layers)
    world.leave()
    return 0


def _export(request: Request, plan: Plan, saved: SavedModel, world: SingleProcess) -> None:
    """Write the state dict of PyTorch Geometric's GraphSAGE; raises UsageError on every rank."""
    config = plan.config
    model = load_model(config, saved.weights, world)
    with world.errors_on_all_ranks():
        encoder = model.encoder if isinstance(model, LinkModel) else model
        if not isinstance(encoder, GraphSAGE) or config.aggregator == "none":
            raise UsageError(
                "--export pyg: expected a model of --model sage with an aggregator, got --model "
                f"{config.model} --aggregator {config.aggregator}; PyTorch Geometric has no such "
                "layer"
            )
        if world.rank == 0:
            buffer = io.BytesIO()
            torch.save(to_pyg(encoder), buffer)
            write_whole(request.output, buffer.getvalue())
    num_features, _ = saved_widths(config, saved.weights)
    Console.of(config, world.rank).say(
        f"fits       torch_geometric.nn.models.GraphSAGE({num_features}, {config.hidden}, "
        f"{config.layers}, {encoder.widths[-1]}, aggr={config.aggregator!r})"
        + ("; it embeds papers: the predictor is not in it" * isinstance(model, LinkModel))
        + f"\noutput     {request.output}"
    )
    world.leave()
