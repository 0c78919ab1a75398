"""Structural features of pairs, against the same counted with sets, one pair after the other."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data.graph import Graph
from gnn_core.data.pair_structure import STRUCTURE, WIDTH, PairStructure
from gnn_core.usage import UsageError
from tests.unit.made_links import as_graph, citing, linked_graph


@pytest.fixture(scope="module", params=[True, False], ids=["years", "no years"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    how = "newest" if request.param else "random"
    return linked_graph(tmp_path_factory.mktemp("cache"), how, years=request.param)


Sets = tuple[set[tuple[int, int]], dict[int, set[int]]]


def sets_of(graph: Graph) -> Sets:
    """Who cites whom, and the neighbours of each paper."""
    edges = {(int(a), int(b)) for a, b in np.asarray(graph.train_edges)}
    ends = np.split(np.asarray(graph.indices), graph.indptr[1:-1])
    return edges, {node: {int(other) for other in row} for node, row in enumerate(ends)}


def counted(graph: Graph, sets: Sets, u: int, v: int) -> list[float]:
    """The features of one pair, from their definitions."""
    edges, rows = sets
    years = np.zeros(graph.num_nodes, int) if graph.years is None else graph.years
    degree = {n: len(rows[n]) for n in rows}
    near = {n: {w for w in rows[n] - {u, v} if years[w] <= years[u]} for n in (u, v)}
    common = near[u] & near[v]

    def kind(own_way: bool, other_way: bool) -> int:
        """Common neighbours that u cites (or that cite u) and that v cites (or that cite v)."""
        return sum(
            ((u, w) if own_way else (w, u)) in edges and ((v, w) if other_way else (w, v)) in edges
            for w in common
        )

    walks, paths = 0.0, 0.0
    for first in near[u]:
        for second in rows[first] & near[v]:
            walks += 1 / (degree[first] * degree[second])
            paths += 1 / sqrt(degree[first] * degree[second])

    mean = graph.num_edges / graph.num_nodes
    both = [w for w in common if (u, w) in edges and (v, w) in edges and u != v]

    def couplings(which: int) -> list[float]:
        """How closely u is coupled with papers that cite v: all, of late, the strongest, three."""
        power, own = (0.5, 1)[which // 2], (0.5, 1)[which % 2]
        strengths = []
        for citing in (w for w in near[v] if (w, v) in edges):
            shared = [w for w in near[u] if (u, w) in edges and (citing, w) in edges]
            strength = sum((mean / degree[w]) ** power for w in shared)
            is_recent = years[citing] >= years[u] - 1
            strengths.append((strength * (mean / degree[citing]) ** own, is_recent))
        of_late = sum(strength for strength, is_recent in strengths if is_recent)
        three = [0.0, 0.0, 0.0, *sorted(strength for strength, _ in strengths)][-3:]
        return [sum(strength for strength, _ in strengths), of_late, three[-1], sum(three)]

    citing = [w for w in near[v] if (w, v) in edges]
    last = max([int(years[v]), *(int(years[w]) for w in citing)])
    recent = sum((w, v) in edges and years[w] >= years[u] - 1 for w in near[v])
    total = graph.num_edges / (max(len(near[u]), 1) * max(len(near[v]), 1))
    return [
        log(1 + len(common)),
        log(1 + sum(1 / log(max(degree[w], 2)) for w in common)),
        log(1 + kind(True, False)),
        log(1 + kind(True, True)),
        log(1 + kind(False, False)),
        log(1 + kind(False, True)),
        len(common) / max(len(near[u] | near[v]), 1),
        log(1 + len(near[u])),
        log(1 + len(near[v])),
        log(1 + recent),
        log(1 + total * sum(1 / degree[w] for w in common)),
        log(1 + total * walks),
        log(1 + paths),
        log(1 + abs(int(years[u]) - int(years[v]))),
        float(years[u] == years[v]),
        log(1 + len(citing)),
        log(1 + abs(int(years[u]) - last)),
        log(1 + sum(mean / degree[w] for w in citing if (u, w) in edges)),
        *(
            log(
                1
                + sum((mean / degree[w]) ** power for w in both)
                * (mean / max(degree[v], 1)) ** power
            )
            for power in (0.5, 1)
        ),
        *(log(1 + value) for which in range(4) for value in couplings(which)),
    ]


def test_features_are_those_counted_with_sets(graph: Graph) -> None:
    random = np.random.default_rng(0)
    linked = np.asarray(graph.train_edges, np.int64)[:60]  # these must not see themselves
    others = np.concatenate([linked[:, 1:], random.integers(0, graph.num_nodes, (60, 8))], axis=1)
    found = PairStructure(graph).of(linked[:, 0], others)
    sets = sets_of(graph)
    expected = [
        [counted(graph, sets, u, v) for v in row]
        for u, row in zip(linked[:, 0].tolist(), others.tolist(), strict=True)
    ]
    assert found.shape == (60, 9, WIDTH)
    assert found.dtype == np.float32
    for name, ours, theirs in zip(STRUCTURE, found.T, np.array(expected).T, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)
    seen = np.ptp(found.reshape(-1, WIDTH), axis=0) > 0
    never = set(STRUCTURE[13:15]) | {STRUCTURE[16]} if graph.years is None else set()
    assert {name for name, varies in zip(STRUCTURE, seen, strict=True) if not varies} == never


def test_a_training_edge_looks_as_it_would_if_it_were_missing(tmp_path: Path) -> None:
    whole = citing(seed=3)
    first = np.asarray(whole.citations, np.int64)[0]
    kept = whole.citations[~np.isin(whole.citations, first).all(axis=1)]
    without = as_graph(kept, whole.num_nodes, years=whole.years)
    pair = (first[:1], first[None, 1:])
    # Degrees on the way do not change, since a way between the two never leads over their edge.
    linked, missing = PairStructure(whole).of(*pair), PairStructure(without).of(*pair)
    # These are relative to the number of edges, of which one is missing.
    relative = [10, 11, *range(STRUCTURE.index("years since the other was cited") + 1, WIDTH)]
    same = np.setdiff1d(np.arange(WIDTH), relative)
    np.testing.assert_allclose(linked[..., same], missing[..., same], rtol=1e-6)
    np.testing.assert_allclose(linked[..., relative], missing[..., relative], rtol=0.02)


def test_negatives_of_a_training_edge_look_as_if_it_were_missing_too(tmp_path: Path) -> None:
    whole = citing(seed=3)
    edges = np.asarray(whole.citations, np.int64)
    years = np.asarray(whole.years)
    random = np.random.default_rng(1)
    for paper, cited in edges[:8].tolist():
        if paper == cited:
            continue
        kept = edges[~(np.isin(edges, (paper, cited)).all(axis=1))]
        without = as_graph(kept, whole.num_nodes, years=years)
        others = [n for n in random.integers(0, 150, 20).tolist() if n not in (paper, cited)]
        pair = (np.array([paper]), np.array([[cited, *others]]))
        linked, missing = (
            PairStructure(g).of(*pair, hides_first=hides)
            for g, hides in ((whole, True), (without, False))
        )
        names = ("common neighbours", "Jaccard", "links of the citing paper")
        same = [STRUCTURE.index(name) for name in names]
        np.testing.assert_allclose(linked[..., same], missing[..., same], rtol=1e-6)


def test_the_order_and_company_of_pairs_do_not_matter(graph: Graph) -> None:
    edges = np.asarray(graph.train_edges, np.int64)[:20]
    structure = PairStructure(graph)
    together = structure.of(edges[:, 0], edges[:, 1:])
    backwards = structure.of(edges[::-1, 0], edges[::-1, 1:])[::-1]
    alone = np.concatenate([PairStructure(graph).of(e[:1], e[None, 1:]) for e in edges])
    assert np.array_equal(together, backwards)
    assert np.array_equal(together, alone)


def test_an_id_that_no_paper_has_is_damage(graph: Graph) -> None:
    broken = replace(graph, train_edges=np.array([[0, graph.num_nodes]]))
    with pytest.raises(UsageError, match="rows of node ids"):
        PairStructure(broken)
