"""The generator's closure of triangles, and the oracle that knows its rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from baselines.heuristics import heuristics, ranked
from baselines.oracle import Oracle
from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.data.synthetic import generate
from gnn_core.data.synthetic_spec import SyntheticSpec


def made(folder: Path, closure: float) -> tuple[SyntheticSpec, Graph]:
    spec = SyntheticSpec(papers=3000, num_features=16, num_topics=6, closure=closure)
    generate(spec, folder)
    return spec, Graph.open(folder)


def closed(graph: Graph) -> float:
    """Share of the citations that another cited paper makes too."""
    citations = np.asarray(graph.citations)
    cites: dict[int, set[int]] = {}
    for citing, cited in citations.tolist():
        cites.setdefault(citing, set()).add(cited)
    found = [
        any(cited in cites.get(other, ()) for other in cites[citing])
        for citing, cited in citations.tolist()
    ]
    return float(np.mean(found))


def test_closure_closes_triangles_and_changes_nothing_where_it_is_0(tmp_path: Path) -> None:
    shares = {}
    for closure in (0.0, 0.3, 0.7):
        _, graph = made(tmp_path / str(closure), closure)
        shares[closure] = closed(graph)
    assert shares[0.0] + 0.1 < shares[0.3] and shares[0.3] + 0.05 < shares[0.7]
    assert repr(SyntheticSpec(papers=300)).endswith("seed=1)")
    assert "closure=0.5" in repr(SyntheticSpec(closure=0.5))


@pytest.mark.parametrize("closure", [0.0, 0.5])
def test_no_rule_ranks_as_the_oracle_does(tmp_path: Path, closure: float) -> None:
    spec, graph = made(tmp_path / "graph", closure)
    held_out = link_graph(graph, LinkSplit("newest", 0.05, 0, 8), tmp_path / "cache")
    oracle = ranked(held_out, "test", 500, Oracle(spec, held_out).scores).score
    rules = [ranked(held_out, "test", 500, rule).score for rule in heuristics(held_out).values()]
    assert oracle is not None
    assert oracle > 1.2 * max(score for score in rules if score is not None)
