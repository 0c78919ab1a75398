"""What the tasks ask of a graph: targets, what loads them, and what evaluates a model on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.assign import ByOwner, ExpectedEdges
from gnn_core.data.batch import Batch
from gnn_core.data.checks import SPLIT_NAMES
from gnn_core.data.feature_store import FeatureStore, TableStore
from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.data.link_loader import LinkLoader
from gnn_core.data.loader import Assign, Loader, equal_slices
from gnn_core.data.partitioned_store import PartitionedStore
from gnn_core.data.progress import Say
from gnn_core.data.table_dtype import with_table_dtype
from gnn_core.training.evaluate import Evaluator, ExactEvaluator, LayerwiseModel, SampledEvaluator
from gnn_core.training.link_ranking import LinkEvaluator, LinkScorer
from gnn_core.training.parts import partitioned_store
from gnn_core.training.world import World

# Data sets that have a version with the direction of citations, which link prediction needs.
_DIRECTED = {"cora": "cora-linqs"}


def open_for(config: RunConfig, say: Say) -> Graph:
    """The run's graph, with edges held out if links are to be predicted. Raises UsageError."""
    graph = load_for(config, say)
    if config.task == "node":
        _require_labels(graph, config.counts_steps)
    return trained_on(config, graph, say)


def load_for(config: RunConfig, say: Say) -> Graph:
    """The graph that `--dataset` names, of which the task may need a version of its own."""
    is_link = config.task == "link"
    name = _DIRECTED.get(config.dataset, config.dataset) if is_link else config.dataset
    return datasets.load(name, config.data_root, config.cache_dir, config.verify, progress=say)


def trained_on(config: RunConfig, graph: Graph, say: Say) -> Graph:
    """What a run trains on of a graph: with edges held out, and with features as it reads them."""
    cache = datasets.find_cache(config.cache_dir)
    if config.task == "link":
        assert config.hold_out is not None
        split = LinkSplit(config.hold_out, config.held_out or 0.0, config.seed, config.svd_width)
        graph = link_graph(graph, split, cache, say)
    return with_table_dtype(graph, config.table_dtype, cache, say)


def split_sizes(graph: Graph, task: str) -> dict[str, int]:
    """Targets of each split: nodes, or edges."""
    names = ("train", "valid", "test")
    if task == "link":
        return {name: len(getattr(graph, f"{name}_edges")) for name in names}
    return {name: len(graph.split(name)) for name in names}


def targets_per_epoch(config: RunConfig, graph: Graph) -> int:
    """Training targets of one epoch: nodes, or edges."""
    num_targets = split_sizes(graph, config.task)["train"]
    if config.task == "link" and config.edges_per_epoch:
        return min(num_targets, config.edges_per_epoch)
    return num_targets


def feature_store(graph: Graph) -> FeatureStore:
    """Where this process reads the features of a graph from."""
    assert graph.features is not None
    return TableStore(graph.features)


def open_store(config: RunConfig, graph: Graph, world: World) -> FeatureStore:
    """Where a run reads the features of a graph from: its table, or the parts of all ranks.

    Collective. Raises UsageError, on every rank, for parts that do not fit the run.
    """
    if config.partitions is None:
        return feature_store(graph)
    source = graph
    if config.task == "link":  # its graph has other edges, and is not the one that was cut
        with world.errors_on_all_ranks():
            source = load_for(config, lambda line: None)
            if source.features is None:
                raise UsageError(
                    f"--partitions: the features of this run are made of the training edges of "
                    f"{graph.name}, and are in no part: leave --partitions out"
                )
    return partitioned_store(config, source, world)


def train_loader(
    config: RunConfig,
    graph: Graph,
    rank: int,
    world_size: int,
    prefetch: int,
    assign: Assign | None = None,
    store: FeatureStore | None = None,
) -> Loader:
    """The batches that one rank trains on, of the targets that `assign` gives to it.

    Without one each target goes to a rank that owns it, where features lie in parts. `store` is
    where rows are read, if it has to know of the batches beforehand.
    """
    assign = assign or assignment(config, graph, store)
    if config.task == "link":
        return LinkLoader(
            graph,
            config.fanouts,
            config.global_batch_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            prefetch=prefetch,
            assign=assign,
            store=store,
            negatives=config.negatives or 1,
            shared_negatives=config.shared_negatives,
            hide_targets=config.hide_targets,
            edges_per_epoch=config.edges_per_epoch,
        )
    return Loader(
        graph,
        "train",
        config.fanouts,
        config.global_batch_size,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        prefetch=prefetch,
        assign=assign,
        store=store,
    )


def assignment(config: RunConfig, graph: Graph, store: FeatureStore | None) -> Assign:
    """Who computes which target: its owner, where features lie in parts."""
    if not isinstance(store, PartitionedStore):
        return equal_slices
    edges = graph.train_edges if config.task == "link" else None
    loads = ExpectedEdges(graph, config.fanouts, edges, config.negatives or 1)
    partition = store.partition
    return ByOwner(partition.owners, partition.num_parts, edges=edges, loads=loads)


class EvaluatedModel(LayerwiseModel, Protocol):
    """What a framework brings for evaluation; a `LinkScorer`, too, for link prediction."""

    def logits_of(self, batch: Batch) -> npt.NDArray[Any]:
        """Logits `[num_real, classes]` of a batch's real targets, without dropout."""


def build_evaluator(
    config: RunConfig,
    graph: Graph,
    world: World,
    model: EvaluatedModel,
    replicas: Sequence[int],
    num_replicas: int,
    prefetch: int,
) -> Evaluator:
    """The run's evaluator: exact, sampled, or ranking links.

    Args:
        config: the run's.
        graph: what to evaluate on.
        world: the other ranks.
        model: what is evaluated.
        replicas: those of this rank, which work at the same time; the rank itself if it has one.
        num_replicas: of all ranks.
        prefetch: batches drawn ahead by each sampled loader.
    """
    if config.task == "link":
        assert isinstance(model, LinkScorer)
        return LinkEvaluator(
            graph,
            world,
            model,
            candidates=config.candidates,
            most_edges=config.eval_edges,
            threads=len(replicas),
        )
    if config.eval == "exact":
        return ExactEvaluator(graph, world, model, threads=len(replicas))
    shares = [
        _sampled_loaders(config, graph, one, num_replicas, prefetch, model.store)
        for one in replicas
    ]
    loaders = {split: [share[split] for share in shares] for split in shares[0]}
    return SampledEvaluator(loaders, world, model.logits_of)


def _sampled_loaders(
    config: RunConfig, graph: Graph, rank: int, world_size: int, prefetch: int, store: FeatureStore
) -> dict[str, Loader]:
    """The nodes of each split that one replica evaluates on sampled neighbours, in order."""
    return {
        split: Loader(
            graph,
            split,
            config.eval_fanouts or config.fanouts,
            config.global_batch_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            shuffle=False,
            prefetch=prefetch,
            store=store,
        )
        for split in ("valid", "test")
    }


def _require_labels(graph: Graph, is_folder: bool) -> None:
    missing = [what for what in ("features", "labels", "splits") if getattr(graph, what) is None]
    sizes = {} if missing else split_sizes(graph, "node")
    empty = [split for split, size in sizes.items() if not size]
    if missing or empty:
        lacks = missing[0] if missing else f"{empty[0]} nodes"
        change = "choose another --dataset"
        if is_folder and empty:
            change = (
                f"write the folder anew with some nodes of value {SPLIT_NAMES.index(empty[0])} in "
                "splits.npy (0 none, 1 train, 2 valid, 3 test)"
            )
        elif is_folder:
            change = f"write the folder anew with {missing[0]}"
        raise UsageError(
            f"graph {graph.name}: node classification needs {lacks}, and it has none; {change}"
        )
