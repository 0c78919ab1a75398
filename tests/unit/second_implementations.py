"""Second implementations of what the program has one of: a feature store, assignments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnn_core.data.assign import ByCluster, ByOwner, ExpectedEdges
from gnn_core.data.clusters import find_clusters
from gnn_core.data.feature_store import FeatureStore, IntArray
from gnn_core.data.features import Features
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Assign


class RowStore(FeatureStore):
    """Gives rows alone; it keeps the first ones as a cache would."""

    CACHED = 10

    def __init__(self, table: Features):
        super().__init__(*table.shape, table.dtype, table.itemsize * table.shape[1])
        self._rows = np.asarray(table)
        self.announced: list[IntArray] = []

    def prefetch(self, ids: IntArray) -> None:
        """Remember what was announced."""
        self.announced.append(ids)

    def _gather(self, ids: IntArray, out: npt.NDArray) -> int:
        out[:] = self._rows[ids]
        return int((ids < self.CACHED).sum())


def uneven(targets: IntArray, world_size: int, epoch: int, step: int) -> IntArray:
    """An `Assign`: targets at random, by epoch and step; some ranks have most, others few or none.

    Of an even step the first target is the last rank's, of a step divisible by three all are.
    """
    random = np.random.default_rng([epoch, step])
    weights = random.dirichlet(np.full(world_size, 0.5))
    ranks = random.choice(world_size, len(targets), p=weights)
    if step % 2 == 0:
        ranks[0] = world_size - 1
    if step % 3 == 0:
        ranks[:] = world_size - 1
    return ranks


def assigns_of(graph: Graph, fanouts: tuple[int, ...] = (3, 2)) -> dict[str, Assign]:
    """Each `Assign` that there is for a graph, by name; the first two give unequal numbers."""
    edges = graph.train_edges
    loads = ExpectedEdges(graph, fanouts, edges, negatives=1)
    return {
        "uneven": uneven,
        "by owner": ByOwner(lambda nodes: nodes * nodes % 5, 5, edges=edges),
        "by cluster": ByCluster(find_clusters(graph), edges=edges, loads=loads),
    }
