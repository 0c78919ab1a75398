"""Who computes which target of a global batch: near targets on one rank, or each on its owner.

An `Assign` decides what a rank has to read and to compute, never the loss curve. All of these are
pure functions of the targets and the shares of the ranks, in whole numbers where ranks must agree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.graph import Graph
from gnn_core.data.loader import IntArray
from gnn_core.data.shares import Shares

MOST_ABOVE_SHARE = 0.05  # of a rank's share, that `ByOwner` gives to it beyond that
_SAMPLE = 1 << 14  # nodes that the mean work of a neighbour is taken from
_MOST_BEHIND = 1 << 20  # edges behind an edge; with many hops their number would have no end

Loads = Callable[[IntArray], IntArray]  # targets int64 [n] -> the work of each, int64 [n], above 0


class ExpectedEdges:
    """The edges that are expected to be sampled for a target, if no node is met twice.

    A target of degree d draws min(d, fan-out) edges in each hop; what lies behind an edge is taken
    for the mean over all edges of the graph. `mean` is the mean over all nodes of the graph, or, of
    link prediction, of pairs of them.

    Args:
        graph: that is sampled from.
        fanouts: neighbours per node and hop, from the targets outward; -1 is all.
        edges: of link prediction, `[M, 2]`: targets are numbers of its rows.
        negatives: of link prediction, papers beside the two ends of an edge.
    """

    def __init__(
        self,
        graph: Graph,
        fanouts: tuple[int, ...],
        edges: npt.NDArray[np.integer] | None = None,
        negatives: int = 0,
    ):
        self._indptr, self._edges = np.asarray(graph.indptr), edges  # a memmap indexes slower
        self._fanouts = [fanout if fanout >= 0 else graph.num_edges for fanout in fanouts]
        self._factors = [1] * len(fanouts)  # edges that follow from one of the hop, and itself
        sample = np.arange(0, graph.num_nodes, -(-graph.num_nodes // _SAMPLE) or 1)
        degrees = self._degrees(sample)
        total = max(1, int(degrees.sum()))
        for hop in reversed(range(len(fanouts) - 1)):
            # Whom an edge leads to is met as often as it has edges. Python's integers: no overflow.
            behind = self._drawn(degrees, hop + 1).tolist()
            met = sum(d * edges for d, edges in zip(degrees.tolist(), behind, strict=True))
            self._factors[hop] = min(1 + met // total, _MOST_BEHIND)
        of_node = 1 + int(self._drawn(degrees, 0).sum()) // max(1, len(sample))
        self._negatives = negatives * of_node
        self.mean = of_node if edges is None else 2 * of_node + self._negatives

    def __call__(self, targets: IntArray) -> IntArray:
        """The edges of each target, int64 `[n]`; at least 1."""
        if self._edges is None:
            return self._of_nodes(targets)
        ends = np.asarray(self._edges[targets], np.int64)
        return self._of_nodes(ends[:, 0]) + self._of_nodes(ends[:, 1]) + self._negatives

    def _of_nodes(self, nodes: IntArray) -> IntArray:
        return 1 + self._drawn(self._degrees(nodes), 0)

    def _degrees(self, nodes: IntArray) -> IntArray:
        degrees: IntArray = self._indptr[nodes + 1] - self._indptr[nodes]
        return degrees

    def _drawn(self, degrees: IntArray, first_hop: int) -> IntArray:
        """Edges drawn from some hop on for nodes that are destinations there."""
        drawn = np.zeros(len(degrees), np.int64)
        for fanout, factor in zip(
            self._fanouts[first_hop:], self._factors[first_hop:], strict=True
        ):
            drawn += np.minimum(degrees, fanout) * factor
        return drawn


class BySlices:
    """An `Assign`: consecutive targets, as many for each rank as its share says.

    Args:
        shares: of the ranks.
    """

    def __init__(self, shares: Shares):
        self._shares = shares

    def __call__(self, targets: IntArray, world_size: int, epoch: int, step: int) -> IntArray:
        """The rank of each target: int64 `[n]`."""
        shares = _shares(self._shares, world_size)
        ends = np.rint(np.cumsum(shares) * len(targets)).astype(np.int64)
        return np.repeat(np.arange(world_size), np.diff(ends, prepend=0))


class ByCluster:
    """An `Assign`: targets in the order of their clusters, cut into runs of equal work.

    Ranks get targets that lie near each other and share neighbours, so that fewer nodes are
    computed twice.

    Args:
        clusters: uint8 `[N]`, the cluster of each node; those of near numbers are near each other.
        edges: of link prediction, `[M, 2]`: targets are numbers of its rows, and lie where the
            citing paper does.
        loads: the work of targets; alike for all if None.
        shares: of the ranks in the work; equal ones if None.
    """

    def __init__(
        self,
        clusters: npt.NDArray[np.uint8],
        *,
        edges: npt.NDArray[np.integer] | None = None,
        loads: Loads | None = None,
        shares: Shares | None = None,
    ):
        self._clusters, self._edges = np.asarray(clusters), edges
        self._loads, self._shares = loads, shares

    def __call__(self, targets: IntArray, world_size: int, epoch: int, step: int) -> IntArray:
        """The rank of each target: int64 `[n]`."""
        nodes = targets if self._edges is None else self._edges[targets, 0]
        order = np.argsort(self._clusters[nodes], kind="stable")
        loads = _loads(self._loads, targets)[order]
        ends = np.cumsum(loads)
        limits = np.cumsum(_shares(self._shares, world_size))[:-1] * float(ends[-1])
        firsts = np.searchsorted(ends - loads / 2, limits)
        ranks = np.empty(len(targets), np.int64)
        ranks[order] = np.repeat(
            np.arange(world_size), np.diff(firsts, prepend=0, append=len(targets))
        )
        return ranks


class ByOwner:
    """An `Assign`: each target goes to a rank that owns it, until that has more than its share.

    A rank gets `MOST_ABOVE_SHARE` above its share at most; targets beyond that go to the rank that
    has the least, one by one.

    Args:
        owners: gives the part of nodes int64 `[n]`, an array `[n]` of numbers below `num_parts`.
        num_parts: part p belongs to rank p * ranks // num_parts; where there are fewer parts than
            ranks, several ranks share one.
        edges: as in `ByCluster`.
        loads: as in `ByCluster`.
        shares: as in `ByCluster`.
    """

    def __init__(
        self,
        owners: Callable[[IntArray], npt.NDArray[np.integer]],
        num_parts: int,
        *,
        edges: npt.NDArray[np.integer] | None = None,
        loads: Loads | None = None,
        shares: Shares | None = None,
    ):
        self._owners, self._num_parts, self._edges = owners, num_parts, edges
        self._loads, self._shares = loads, shares

    def __call__(self, targets: IntArray, world_size: int, epoch: int, step: int) -> IntArray:
        """The rank of each target: int64 `[n]`."""
        nodes = targets if self._edges is None else np.asarray(self._edges[targets, 0], np.int64)
        parts = np.arange(self._num_parts + 1) * world_size // self._num_parts
        owners = self._owners(nodes)
        firsts, lasts = parts[owners], parts[owners + 1]
        loads = _loads(self._loads, targets)
        shares = _shares(self._shares, world_size)
        ranks = np.empty(len(targets), np.int64)
        most = np.ceil((1 + MOST_ABOVE_SHARE) * float(loads.sum()) * shares)
        _give(firsts, np.maximum(lasts, firsts + 1), loads, shares, most, ranks)
        return ranks


def _loads(loads: Loads | None, targets: IntArray) -> IntArray:
    return np.ones(len(targets), np.int64) if loads is None else loads(targets)


def _shares(shares: Shares | None, world_size: int) -> npt.NDArray[np.float64]:
    """The share of each rank; they add up to 1."""
    if shares is None:
        return np.full(world_size, 1 / world_size)
    if len(shares.values) != world_size:
        raise ValueError(f"expected shares of {world_size} ranks, got {len(shares.values)}")
    return shares.values


@njit(cache=True, nogil=True)
def _emptiest(held, shares, first, last):  # type: ignore[no-untyped-def]
    best = first
    for rank in range(first + 1, last):
        if held[rank] / shares[rank] < held[best] / shares[best]:
            best = rank
    return best


@njit(cache=True, nogil=True)
def _give(firsts, lasts, loads, shares, most, ranks):  # type: ignore[no-untyped-def]
    """Write the rank of each target, whose owners are the ranks firsts[i] .. lasts[i] - 1.

    A rank that has nothing takes one target, however much work it is.
    """
    held = np.zeros(len(shares), np.int64)
    for i in range(len(ranks)):
        rank = _emptiest(held, shares, firsts[i], lasts[i])
        fits = held[rank] == 0 or held[rank] + loads[i] <= most[rank]
        ranks[i] = rank if fits else -1
        held[rank] += loads[i] if fits else 0
    for i in range(len(ranks)):
        if ranks[i] < 0:
            ranks[i] = _emptiest(held, shares, 0, len(shares))
            held[ranks[i]] += loads[i]
