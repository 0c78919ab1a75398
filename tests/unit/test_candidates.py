"""What held-out references are ranked against: papers that could have been cited, drawn fairly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.usage import UsageError
from tests.unit.made_links import as_graph, both_ways, citing, linked_graph
from tests.unit.test_hold_out import chi_square

SPLITS = ("valid", "test")
COUNT = 12


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    """Papers with years and without."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        "newest": linked_graph(cache),
        "random": linked_graph(cache, "random", seed=4, years=False),
    }


def all_of(graph: Graph, split: str, count: int = COUNT) -> npt.NDArray[np.int64]:
    return Candidates(graph, split, count).of(np.arange(len(getattr(graph, f"{split}_edges"))))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("how", ["newest", "random"])
def test_they_could_have_been_cited_and_were_not(
    graphs: dict[str, Graph], how: str, split: str
) -> None:
    """Judged by all that is published, not by what is left to train on."""
    graph = graphs[how]
    published = both_ways(citing().citations)
    drawn = all_of(graph, split)
    assert drawn.shape == (len(getattr(graph, f"{split}_edges")), COUNT)
    assert drawn.dtype == np.int64
    for (paper, cited), row in zip(getattr(graph, f"{split}_edges"), drawn.tolist(), strict=True):
        assert len(set(row)) == COUNT
        assert paper not in row and cited not in row
        assert not any((int(paper), other) in published for other in row)
        if graph.years is not None:
            assert (graph.years[row] <= graph.years[paper]).all()


@pytest.mark.parametrize("split", SPLITS)
def test_they_are_the_same_in_any_order_and_in_any_pieces(
    graphs: dict[str, Graph], split: str
) -> None:
    graph = graphs["newest"]
    whole = all_of(graph, split)
    candidates = Candidates(graph, split, COUNT)
    order = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(candidates.of(order), whole[order])
    for first in range(0, len(whole), 7):
        rows = np.arange(first, min(first + 7, len(whole)))
        assert np.array_equal(candidates.of(rows), whole[rows])
    assert np.array_equal(candidates.of(np.array([3, 3, 1, 3])), whole[[3, 3, 1, 3]])
    assert candidates.of(np.empty(0, np.int64)).shape == (0, COUNT)


def test_fewer_are_the_first_of_more(graphs: dict[str, Graph]) -> None:
    for split in SPLITS:
        fewer, more = (all_of(graphs["newest"], split, count) for count in (3, COUNT))
        assert np.array_equal(fewer, more[:, :3])


def one_paper(num_edges: int) -> Graph:
    """Of 50 papers one, 40, cites others; that reference 1 is held out is there again and again."""
    years = np.arange(50, dtype=np.int32)
    graph = as_graph([[40, 0], [40, 1], [40, 2], [45, 40], [30, 40]], 50, years=years)
    held = np.tile(np.array([[40, 1]], np.int32), (num_edges, 1))
    train = np.array([[40, 0], [40, 2], [45, 40], [30, 40]], np.int32)
    return replace(graph, train_edges=train, valid_edges=held, test_edges=held)


# Neither newer ones, nor itself, nor any that is linked to it.
ELIGIBLE = np.setdiff1d(np.arange(40), [0, 1, 2, 30])


@pytest.mark.parametrize("split", SPLITS)
def test_they_are_drawn_uniformly(split: str) -> None:
    drawn = all_of(one_paper(4000), split, 5)
    assert np.isin(drawn, ELIGIBLE).all()
    for places in (drawn, drawn[:, 0], drawn[:, 4]):
        assert chi_square(np.bincount(places.ravel(), minlength=50)[ELIGIBLE]) < 4
    together = np.zeros((50, 50))
    np.add.at(together, (drawn[:, 0], drawn[:, 1]), 1)
    among = together[np.ix_(ELIGIBLE, ELIGIBLE)][~np.eye(len(ELIGIBLE), dtype=bool)]
    assert chi_square(among) < 4


def test_the_splits_have_others(graphs: dict[str, Graph]) -> None:
    graph = one_paper(30)
    assert not np.array_equal(all_of(graph, "valid"), all_of(graph, "test"))


def test_as_many_as_there_are_and_no_more() -> None:
    graph = one_paper(3)
    for row in all_of(graph, "test", len(ELIGIBLE)).tolist():
        assert sorted(row) == ELIGIBLE.tolist()
    with pytest.raises(UsageError) as caught:
        Candidates(graph, "test", len(ELIGIBLE) + 1)
    line = str(caught.value)
    assert line.startswith(f"--candidates {len(ELIGIBLE) + 1}: graph citing has a held-out")
    assert line.endswith(f"ranked against {len(ELIGIBLE)} papers only; lower it")


def test_published_candidates_are_taken_as_they_are(tmp_path: Path) -> None:
    graph = linked_graph(tmp_path)
    random = np.random.default_rng(0)
    published = random.integers(0, 150, (len(graph.valid_edges), 9)).astype(np.int32)
    graph = replace(graph, valid_candidates=published)
    assert np.array_equal(all_of(graph, "valid", 9), published)
    assert np.array_equal(all_of(graph, "valid", 4), published[:, :4])
    candidates = Candidates(graph, "valid", 4)
    assert candidates.count == 4
    assert np.array_equal(candidates.of(np.array([5, 0, 5])), published[[5, 0, 5], :4])
    with pytest.raises(UsageError, match="--candidates 10: graph citing is published with 9 for"):
        Candidates(graph, "valid", 10)
