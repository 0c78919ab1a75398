"""Ringsage as a library: open a graph, loop over its batches, train, read records.

    import ringsage

    graph = ringsage.open_graph("cora")
    loader = ringsage.make_loader(graph, fanouts=(10, 5), global_batch_size=64)
    for batch in loader.batches(epoch=0):
        ...  # the same batches as in every trainer, and on any number of ranks
    record = ringsage.train(dataset="cora", epochs=20, checkpoint_dir="saved")
    logits = ringsage.predict("saved", graph)

Functions raise `UsageError` with one line for what the caller can put right. PyTorch is imported by
`join`, `train` and `predict` alone; Horovod only for the strategy `horovod`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gnn_core.config import RunConfig, require_known
from gnn_core.data.batch import Batch, Block
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.loader import Loader
from gnn_core.measure.records import keep_record, read_records
from gnn_core.measure.run_record import RunRecord
from gnn_core.packages import require
from gnn_core.usage import UsageError

if TYPE_CHECKING:
    from horovod_gnn.parallel import SingleProcess

__all__ = [
    "Batch",
    "Block",
    "Graph",
    "Loader",
    "RunConfig",
    "RunRecord",
    "UsageError",
    "join",
    "make_loader",
    "open_graph",
    "predict",
    "read_records",
    "train",
    "write_graph",
]


def open_graph(
    name: str | os.PathLike[str],
    *,
    data_root: str | None = None,
    cache_dir: str | None = None,
    verify: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Graph:
    """Open a data set by name, or a graph folder; prepares it first if it has to be.

    Args:
        name: as `--dataset`: `synthetic`, `cora`, ..., or the path of a folder.
        data_root: where published files lie; None: RINGSAGE_DATA.
        cache_dir: where prepared graphs are kept; None: RINGSAGE_CACHE, else ~/.cache/ringsage.
        verify: check all of a large graph, not samples of it.
        progress: called with a line now and then while a graph is prepared.

    Returns:
        A graph whose arrays are memory-mapped, so that the processes of a host share one copy.

    Raises:
        UsageError: no such data set, or files that are damaged or missing.
    """
    from gnn_core.data import datasets

    if isinstance(name, os.PathLike):
        name = str(Path(name).absolute())  # a folder, also where a data set is called so
    return datasets.load(name, data_root, cache_dir, verify, progress=progress)


def make_loader(
    graph: Graph,
    *,
    split: str = "train",
    fanouts: tuple[int, ...] = (10, 5),
    global_batch_size: int = 1024,
    seed: int = 0,
    world: SingleProcess | None = None,
    prefetch: int = 2,
) -> Loader:
    """Make a loader whose batches depend on (seed, epoch, step), never on the number of ranks.

    Args:
        graph: to sample from.
        split: `train` (in a new order each epoch), `valid` or `test` (by ascending ids).
        fanouts: neighbours per node and hop, targets outward; -1 takes all.
        global_batch_size: targets per step over all ranks.
        seed: of order and draws.
        world: the other ranks, as `join` gives them; None: this process is alone.
        prefetch: batches that a thread draws ahead; 0 draws them when they are asked for.

    Returns:
        A loader; `loader.batches(epoch)` iterates over `Batch`.

    Raises:
        UsageError: the graph has no such split, or a number is out of range.
    """
    asked = {"fanouts": fanouts, "global_batch_size": global_batch_size, "seed": seed}
    _config({**asked, "prefetch": prefetch})  # what is out of range is refused
    return Loader(
        graph,
        split,
        fanouts,
        global_batch_size,
        seed=seed,
        shuffle=split == "train",
        prefetch=prefetch,
        rank=0 if world is None else world.rank,
        world_size=1 if world is None else world.world_size,
    )


def join(strategy: str = "single", config: RunConfig | None = None) -> SingleProcess:
    """Meet the other ranks that a launcher has started.

    Args:
        strategy: `single` (no other rank), `horovod` (under horovodrun or mpirun) or `ddp` (under
            torchrun or mpirun).
        config: how long to wait for the others; None waits as long as the trainers do.

    Returns:
        The ranks: `rank`, `world_size`, `local_rank`, and the collectives `sum_(tensor)`,
        `broadcast_(tensor)`, `gather(value)`, `barrier()`.

    Raises:
        UsageError: another strategy, a launcher that does not fit, PyTorch not installed, or ranks
            that do not come.
    """
    require("torch")
    if strategy == "single":
        from horovod_gnn.parallel import SingleProcess

        return SingleProcess()
    if strategy == "horovod":
        from horovod_gnn.parallel import HorovodWorld

        return HorovodWorld(config)
    if strategy == "ddp":
        from baselines import process_group

        return process_group.join(config)
    raise UsageError(f"strategy: expected single, horovod or ddp, got {strategy!r}")


def train(strategy: str = "single", **settings: Any) -> RunRecord:
    """Train, evaluate and write a record, as the programs do, in the calling process.

    Args:
        strategy: as of `join`.
        settings: the flags of the trainers as keywords: `dataset="cora"`, `epochs=20`,
            `fanouts=(10, 5)`, `checkpoint_dir="saved"`, `quiet=True`, ...

    Returns:
        The record of the run: `record.final["test_accuracy"]`, `record.epochs`, ... A run that
        failed has its reason in `record.error`.

    Raises:
        UsageError: settings, data or a machine that do not fit; on every rank alike.
    """
    require("torch")
    from gnn_core.measure.resources.resource_sampler import ResourceSampler
    from gnn_core.training.elastic_state import ElasticState
    from gnn_core.training.preparation import open_graph as open_for_training
    from gnn_core.training.trainer import Trainer
    from horovod_gnn.learner import TorchLearner, set_up_torch

    config = _config(settings)
    world = join(strategy, config)
    config, graph = open_for_training(config, world, set_up_torch)
    learner = TorchLearner.of(config, graph, world)
    trainer = Trainer(strategy, config, graph, world, learner)
    record = trainer.run(ElasticState(ResourceSampler(config.sample_seconds)))
    if world.rank == 0:
        keep_record(record, Path(config.records))
    return record


def predict(
    checkpoint_dir: str | Path,
    graph: Graph,
    *,
    nodes: npt.NDArray[np.int64] | None = None,
    weights: str = "best",
) -> npt.NDArray[Any]:
    """Compute the logits of nodes with a saved model, over all their neighbours.

    Args:
        checkpoint_dir: of a run, whichever trainer has made it.
        graph: that of the run, or another one of as many features and classes.
        nodes: their numbers, in any order; None: all.
        weights: `best` on the validation split, or `last`.

    Returns:
        `[len(nodes), classes]` in the order of `nodes`; for a link model embeddings
        `[len(nodes), width]`.

    Raises:
        UsageError: no such checkpoint, a damaged one, a graph that does not fit it, or numbers of
            no node.
    """
    require("torch")
    from gnn_core.training.evaluate import ExactEvaluator
    from horovod_gnn.parallel import SingleProcess
    from horovod_gnn.prediction import open_layers

    asked = np.arange(graph.num_nodes) if nodes is None else _nodes_of(graph, nodes)
    layers = open_layers(Path(checkpoint_dir), graph, weights)
    evaluator = ExactEvaluator(graph, SingleProcess(), layers)
    return np.array(evaluator.embeddings(np.unique(asked))[asked])


def _config(settings: dict[str, Any]) -> RunConfig:
    """The configuration of some settings, paths and NumPy's numbers among them. UsageError."""
    require_known(settings)

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(plain, value))
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        return value.item() if isinstance(value, np.generic) else value

    return RunConfig(**{name: plain(value) for name, value in settings.items()})


def _nodes_of(graph: Graph, nodes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Numbers of nodes as int64 `[k]`. UsageError."""
    asked = np.asarray(nodes)
    wanted = f"nodes: expected a list of whole numbers from 0 to {graph.num_nodes - 1}, got"
    if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iu"):
        raise UsageError(f"{wanted} {asked.dtype} of shape {list(asked.shape)}; change nodes")
    odd = asked[(asked < 0) | (asked >= graph.num_nodes)]
    if len(odd):
        raise UsageError(f"{wanted} {odd[0]}; change nodes")
    return asked.astype(np.int64)
