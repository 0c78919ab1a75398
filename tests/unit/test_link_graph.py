"""The graph that link prediction trains on: nothing in it knows of what was held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph, svd_features
from gnn_core.data.progress import silent
from gnn_core.usage import UsageError
from tests.unit.made_links import as_graph, both_ways, citing, linked_graph, odd_citations

NEWEST, RANDOM = LinkSplit("newest", 0.2, 0, 8), LinkSplit("random", 0.1, 0, 8)
HELD = ("train_edges", "valid_edges", "test_edges")


def adjacency(graph: Graph) -> set[tuple[int, int]]:
    """All messages of the graph: (receiver, sender)."""
    receivers = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    return set(zip(receivers.tolist(), graph.indices.tolist(), strict=True))


@pytest.mark.parametrize("split", [NEWEST, RANDOM], ids=lambda split: split.how)
def test_messages_pass_along_training_edges_alone_both_ways(
    tmp_path: Path, split: LinkSplit
) -> None:
    graph = link_graph(citing(), split, tmp_path)
    assert adjacency(graph) == both_ways(graph.train_edges)
    assert not adjacency(graph) & both_ways(graph.valid_edges, graph.test_edges)
    for row in range(graph.num_nodes):
        neighbours = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
        assert (np.diff(neighbours) > 0).all()


def test_what_is_known_of_papers_stays_and_labels_are_not_there(tmp_path: Path) -> None:
    whole = citing()
    graph = link_graph(whole, NEWEST, tmp_path)
    assert np.array_equal(graph.features, whole.features)
    assert np.array_equal(graph.years, whole.years)
    assert graph.labels is None and graph.splits is None and graph.citations is None
    assert graph.num_classes == 0 and graph.num_nodes == whole.num_nodes


@pytest.mark.parametrize("split", [NEWEST, RANDOM], ids=lambda split: split.how)
def test_features_are_made_of_the_training_edges_alone(tmp_path: Path, split: LinkSplit) -> None:
    graph = link_graph(citing(width=0), split, tmp_path)
    ours = svd_features(np.asarray(graph.train_edges), graph.num_nodes, 8, silent)
    assert np.array_equal(graph.features, ours)


@pytest.mark.parametrize("held", ["valid_edges", "test_edges"])
def test_changing_a_held_out_edge_changes_nothing_else(tmp_path: Path, held: str) -> None:
    citations, years = odd_citations()
    before = link_graph(as_graph(citations, len(years), years=years), NEWEST, tmp_path / "a")
    paper, cited = getattr(before, held)[3].tolist()
    stranger = next(n for n in range(len(years)) if (paper, n) not in both_ways(citations))
    assert stranger != paper
    row = citations.tolist().index([paper, cited])
    others = np.delete(np.arange(len(citations)), row)
    assert (cited, paper) not in both_ways(citations[others])
    citations[row, 1] = stranger

    after = link_graph(as_graph(citations, len(years), years=years), NEWEST, tmp_path / "b")
    for name in ("indptr", "indices", "features", "years", "train_edges"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    rows = {tuple(edge) for edge in getattr(before, held).tolist()}
    assert {tuple(edge) for edge in getattr(after, held).tolist()} == rows - {(paper, cited)} | {
        (paper, stranger)
    }


def test_features_tell_where_a_paper_stands() -> None:
    """Of two groups that know each other little, one is above the other in some column."""
    edges = [(a + 10 * c, b + 10 * c) for c in (0, 1) for a in range(10) for b in range(a)]
    features = svd_features(np.array([*edges, (0, 10)]), 21, 2, silent)
    assert features.dtype == np.float32 and features.shape == (21, 2)
    one, other, nobody = np.split(features, [10, 20])
    assert not nobody.any()
    assert ((one.max(axis=0) < other.min(axis=0)) | (other.max(axis=0) < one.min(axis=0))).any()
    np.testing.assert_allclose(features.std(axis=0), 1, rtol=1e-5)


def test_a_graph_of_few_edges_has_few_features() -> None:
    """Rounding errors are not blown up to look like knowledge; the rest is zeros."""
    edges = np.array([(0, 1), (1, 2), (2, 3), (5, 6)])
    features = svd_features(edges, 60, 20, silent)
    assert np.isfinite(features).all()
    isolated = np.setdiff1d(np.arange(60), edges)
    assert not features[isolated].any()
    assert 3 <= features.any(axis=0).sum() <= 6


@pytest.mark.parametrize("split", [NEWEST, RANDOM], ids=lambda split: split.how)
@pytest.mark.parametrize("width", [0, 6])
def test_it_is_always_the_same(tmp_path: Path, split: LinkSplit, width: int) -> None:
    found = [link_graph(citing(width=width), split, tmp_path / place) for place in "ab"]
    assert found[0].folder != found[1].folder
    assert found[0].fingerprint == found[1].fingerprint
    assert np.array_equal(found[0].features, found[1].features)


def test_a_split_is_prepared_once_and_each_has_its_place(tmp_path: Path) -> None:
    said: list[str] = []
    graphs = {}
    for split in (
        NEWEST,
        replace(NEWEST, seed=1),
        replace(NEWEST, svd_width=9),
        replace(NEWEST, share=0.1),
        RANDOM,
        replace(RANDOM, seed=1),
        RANDOM,
    ):
        graphs[split] = link_graph(citing(), split, tmp_path, said.append)
    # The newest need no seed, and who has features needs no other ones.
    assert graphs[NEWEST].folder == graphs[replace(NEWEST, seed=1)].folder
    assert graphs[NEWEST].folder == graphs[replace(NEWEST, svd_width=9)].folder
    assert len({graph.fingerprint for graph in graphs.values()}) == 4 == len(said)
    assert link_graph(citing(seed=5), NEWEST, tmp_path).folder != graphs[NEWEST].folder
    narrow = link_graph(citing(width=0), NEWEST, tmp_path)
    wide = link_graph(citing(width=0), replace(NEWEST, svd_width=9), tmp_path)
    assert (narrow.num_features, wide.num_features) == (8, 9)


def without_citations() -> Graph:
    graph = citing()
    return Graph.from_arrays("bare", graph.indptr, graph.indices, graph.features)


MISTAKES = {
    "no citations": (without_citations, NEWEST, "needs to know who cites whom"),
    "no years": (lambda: citing(years=False), NEWEST, "a year for each paper.*--hold-out random"),
    "nothing published": (citing, replace(NEWEST, how="published"), "published without held-out"),
    "nothing left": (citing, replace(RANDOM, share=0.6), "expected to leave edges to train on"),
    "wide features": (
        lambda: citing(width=0),
        replace(NEWEST, svd_width=150),
        "--svd-width 150: expected less than the number of papers, 150; lower it",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_reported_and_leave_nothing_behind(tmp_path: Path, case: str) -> None:
    make, split, words = MISTAKES[case]
    with pytest.raises(UsageError, match=words) as caught:
        link_graph(make(), split, tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock" and path.is_file()]


@pytest.mark.parametrize("how", ["newest", "random"])
def test_what_is_published_with_held_out_edges_keeps_them(tmp_path: Path, how: str) -> None:
    published = linked_graph(tmp_path)
    with pytest.raises(UsageError, match="others would not compare; use published"):
        link_graph(published, LinkSplit(how, 0.1, 0, 8), tmp_path)
    same = link_graph(published, LinkSplit("published", 0.0, 0, 8), tmp_path)
    assert same.folder == published.folder


def test_published_edges_of_papers_without_features(tmp_path: Path) -> None:
    graph = linked_graph(tmp_path)
    bare = replace(
        graph,
        folder=None,
        features=None,
        valid_candidates=np.zeros((len(graph.valid_edges), 3), np.int32),
        test_candidates=np.ones((len(graph.test_edges), 3), np.int32),
    )
    found = link_graph(bare, LinkSplit("published", 0.0, 0, 8), tmp_path)
    for name in ("indptr", "indices", "years", *HELD):
        assert np.array_equal(getattr(found, name), getattr(graph, name)), name
    assert np.array_equal(found.test_candidates, bare.test_candidates)
    assert np.array_equal(found.valid_candidates, bare.valid_candidates)
    ours = svd_features(np.asarray(graph.train_edges), graph.num_nodes, 8, silent)
    assert np.array_equal(found.features, ours)
