"""What the tasks ask of a graph: targets, what loads them, and what evaluates a model on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.assign import MOST_ABOVE_SHARE, ByCluster, ByOwner, BySlices, ExpectedEdges
from gnn_core.data.batch import Batch
from gnn_core.data.checks import SPLIT_NAMES, untrained_classes
from gnn_core.data.clusters import with_clusters
from gnn_core.data.disk_store import DiskStore
from gnn_core.data.feature_store import FeatureStore, TableStore
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.data.link_loader import LinkLoader
from gnn_core.data.loader import Assign, Loader, equal_slices
from gnn_core.data.meta import MISSING_ALLOWED
from gnn_core.data.pair_structure import pair_structure
from gnn_core.data.partitioned_store import PartitionedStore
from gnn_core.data.progress import Say
from gnn_core.data.shares import LEAST_SHARE, Shares
from gnn_core.data.table_dtype import with_table_dtype
from gnn_core.settings.fitted import GraphFacts
from gnn_core.training.balance import Balancer
from gnn_core.training.evaluate import Evaluator, ExactEvaluator, LayerwiseModel, SampledEvaluator
from gnn_core.training.link_ranking import LinkEvaluator, LinkScorer
from gnn_core.training.parts import partitioned_store, require_parts_suffice
from gnn_core.training.world import World
from gnn_core.usage import read_size

# Data sets that have a version with the direction of citations, which link prediction needs.
_DIRECTED = {"cora": "cora-linqs"}
_LEAST_EDGES_TRAINED = 20  # sampled edges of a run per edge of the graph, for --assign auto


def open_for(config: RunConfig, say: Say) -> Graph:
    """The run's graph, with edges held out if links are to be predicted. Raises UsageError."""
    graph = load_for(config, say)
    if config.task == "node":
        _require_labels(graph, config.follows_graph)
    return trained_on(config, graph, say)


def load_for(config: RunConfig, say: Say) -> Graph:
    """The graph that `--dataset` names, of which the task may need a version of its own."""
    is_link = config.task == "link"
    name = _DIRECTED.get(config.dataset, config.dataset) if is_link else config.dataset
    place = (config.data_root, config.cache_dir, config.verify)
    has_parts = config.partitions is not None
    graph = datasets.load(name, *place, progress=say, has_parts=has_parts)
    if config.partition_topology:
        graph = graph.without_indices()
    require_parts_suffice(config, graph)
    return graph


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
    return {name: graph.split_size(name) for name in names}


def targets_per_epoch(config: RunConfig, graph: Graph) -> int:
    """Training targets of one epoch: nodes, or edges."""
    num_targets = split_sizes(graph, config.task)["train"]
    if config.task == "link" and config.edges_per_epoch:
        return min(num_targets, config.edges_per_epoch)
    return num_targets


def facts_of(config: RunConfig, graph: Graph) -> GraphFacts:
    """What a recipe follows of the graph that a run trains on."""
    features, num_inputs = graph.features, float(graph.num_features)
    if isinstance(features, SparseFeatures):
        num_inputs = len(features.values) / len(features)
    return GraphFacts(
        num_targets=targets_per_epoch(config, graph),
        num_nodes=graph.num_nodes,
        num_edges=graph.num_edges,
        num_features=graph.num_features,
        num_classes=graph.num_classes,
        num_inputs=num_inputs,
    )


def feature_store(graph: Graph, config: RunConfig | None = None) -> FeatureStore:
    """Where this process reads the features of a graph from: in place, unless `config` says disk.

    Raises UsageError for a file of features that is not as it was.
    """
    features = graph.features
    assert features is not None
    if config is not None and config.feature_store == "disk" and isinstance(features, np.memmap):
        return DiskStore(features, read_size(config.disk_cache or "0"))
    return TableStore(features)


def open_store(config: RunConfig, graph: Graph, world: World) -> FeatureStore:
    """Where a run reads the features of a graph from: its table, or the parts of all ranks.

    Collective. Raises UsageError, on every rank, for parts that do not fit the run.
    """
    if config.partitions is None:
        return feature_store(graph, config)
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
    balancer: Balancer | None = None,
) -> Loader:
    """The batches that one rank trains on, of the targets that `assign` gives to it.

    Without one, see `assignment`; the ranks' shares are those of `balancer`. `store` is where rows
    are read, if it has to know of the batches beforehand.
    """
    shares = balancer.shares if balancer else None
    common: dict[str, Any] = {
        "fanouts": config.fanouts,
        "global_batch_size": config.global_batch_size,
        "seed": config.seed,
        "rank": rank,
        "world_size": world_size,
        "prefetch": prefetch,
        "assign": assign or assignment(config, graph, store, shares),
        "store": store,
    }
    if config.task == "link":
        return LinkLoader(
            graph,
            **common,
            negatives=config.negatives or 1,
            shared_negatives=config.shared_negatives,
            pool=config.negatives_pool or 0,
            hide_targets=config.hide_targets,
            dated=config.negatives_kind == "dated",
            structure=pair_structure(config, graph),
            edges_per_epoch=config.edges_per_epoch or 0,
        )
    return Loader(graph, "train", **common)


def assigned_by(graph: Graph, config: RunConfig | None = None) -> str:
    """How the targets of a step are shared: `owner`, or as `--assign` names it."""
    if config is not None and assigns_to_owners(config):
        return "owner"
    return "slices" if graph.clusters is None else "locality"


def assignment(
    config: RunConfig, graph: Graph, store: FeatureStore | None = None, shares: Shares | None = None
) -> Assign:
    """Who computes which target: its owner, where features lie in parts; else by clusters.

    By slices where the graph has no clusters, or `--assign slices` asks for it.
    """
    edges = graph.train_edges if config.task == "link" else None
    if isinstance(store, PartitionedStore) and assigns_to_owners(config):
        partition, loads = store.partition, expected_edges(config, graph)
        return ByOwner(
            partition.owners, partition.num_parts, edges=edges, loads=loads, shares=shares
        )
    if graph.clusters is None:
        return equal_slices if shares is None else BySlices(shares)
    return ByCluster(
        graph.clusters, edges=edges, loads=expected_edges(config, graph), shares=shares
    )


def expected_edges(config: RunConfig, graph: Graph) -> ExpectedEdges:
    """The edges that a training target is expected to have sampled."""
    if config.task == "link":
        negatives = 0 if config.negatives_pool else config.negatives or 1
        return ExpectedEdges(graph, config.fanouts, graph.train_edges, negatives)
    return ExpectedEdges(graph, config.fanouts)


def assigns_by_locality(config: RunConfig, graph: Graph, num_replicas: int) -> bool:
    """Whether the targets of a step are shared by where they lie; all hosts answer alike.

    With --assign auto they are if the clusters are found in little time beside training: that
    visits each edge some twenty times, which takes about as long as to train on one sampled edge.
    """
    if num_replicas == 1 or config.assign == "slices" or config.partitions is not None:
        return False
    if config.assign == "locality":
        return True
    num_targets = targets_per_epoch(config, graph)
    num_steps = -(-num_targets // config.global_batch_size)
    expected = expected_edges(config, graph).mean * num_targets
    # Nodes that targets share are expanded once: no step samples more than all edges in each hop.
    an_epoch = min(expected, num_steps * config.layers * graph.num_edges)
    return config.epochs * an_epoch >= _LEAST_EDGES_TRAINED * graph.num_edges


def most_targets(config: RunConfig, graph: Graph, num_replicas: int) -> int:
    """The targets of a step that one replica computes, at most, if they are alike."""
    share = -(-config.global_batch_size // num_replicas)
    if config.balance:
        left = config.global_batch_size * LEAST_SHARE * (num_replicas - 1) / num_replicas
        return math.ceil(config.global_batch_size - left)
    if not (assigns_to_owners(config) or assigns_by_locality(config, graph, num_replicas)):
        return share
    return min(config.global_batch_size, math.ceil((1 + MOST_ABOVE_SHARE) * share))


def open_clusters(config: RunConfig, graph: Graph, num_replicas: int, say: Say) -> Graph:
    """The graph, with its clusters if the run assigns by them. Raises UsageError."""
    if not assigns_by_locality(config, graph, num_replicas):
        return graph
    return with_clusters(graph, datasets.find_cache(config.cache_dir), say)


def assigns_to_owners(config: RunConfig) -> bool:
    """Whether each target of a step goes to a rank that owns its part."""
    return config.partitions is not None and config.assign != "slices"


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
            structure=pair_structure(config, graph),
            loss=config.link_loss or "bce",
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
            most=config.eval_nodes,
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
    if is_folder and not graph.meta.get("provenance", {}).get(MISSING_ALLOWED):
        _require_trained_classes(graph)


def _require_trained_classes(graph: Graph) -> None:
    """Raise UsageError for a class that is evaluated and not trained on."""
    assert graph.labels is not None and graph.splits is not None
    classes = untrained_classes(graph.labels, graph.splits, graph.num_classes)
    if len(classes):
        raise UsageError(
            f"graph {graph.name}: expected a training node of every class that validation or test "
            f"nodes have, got none of class {', '.join(map(str, classes[:5]))}"
            f"{', ...' * (len(classes) > 5)}; write the folder anew with another splits.npy (0 "
            "none, 1 train, 2 valid, 3 test), or import it with --allow-missing-classes"
        )
