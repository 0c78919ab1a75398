"""What `datasets show` prints: numbers counted by hand on a graph of six nodes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gnn_core.data import checks
from gnn_core.data.graph import Graph
from gnn_core.data.graph_statistics import edge_homophily, statistics


@pytest.fixture
def star() -> Graph:
    """Give a star of five around node 0, and one node alone; node 4 has no label."""
    return Graph.from_arrays(
        "star",
        [0, 4, 5, 6, 7, 8, 8],
        [1, 2, 3, 4, 0, 0, 0, 0],
        np.zeros((6, 3)),
        [0, 0, 1, 0, -1, 1],
        [1, 1, 2, 3, 0, 0],
        years=[2000, 2000, 2001, 2001, 2001, 2003],
        citations=[[1, 0], [2, 0], [3, 0], [4, 0]],
    )


def lines_of(text: str, heading: str) -> dict[str, list[str]]:
    """Read a block as {first words: rest}."""
    block = f"\n{text}".split(f"\n{heading}\n", 1)[1].split("\n\n")[0]
    return {line[:15].strip(): line[15:].split() for line in block.splitlines()}


def test_homophily_counts_edges_with_two_labels(star: Graph) -> None:
    assert edge_homophily(star) == pytest.approx(4 / 6)
    bare = Graph.from_arrays("bare", [0, 0, 0], [])
    assert edge_homophily(bare) is None
    assert edge_homophily(Graph.from_arrays("bare", [0, 0, 0], [], labels=[0, 1])) is None


def test_the_statistics(star: Graph) -> None:
    text = statistics(star)
    facts = lines_of(text, "star\n")
    assert facts["nodes"] == ["6"] and facts["edges"][0] == "8" and facts["citations"][0] == "4"
    assert facts["features"] == ["3", "x", "float32"] and facts["homophily"][0] == "0.667"
    splits = lines_of(text, "splits")
    assert {k: v[0] for k, v in splits.items()} == {
        "train": "2",
        "valid": "1",
        "test": "1",
        "none": "2",
    }
    assert splits["train"][1:] == ["33.3", "%", "#" * 40]
    assert {k: v[0] for k, v in lines_of(text, "years").items()} == {
        "2000": "2",
        "2001": "3",
        "2003": "1",
    }
    classes = lines_of(text, "classes, largest first")
    assert (classes["0"][0], classes["1"][0], classes["no class"][0]) == ("3", "2", "1")
    memory = lines_of(text, "memory")
    assert memory["features"] == ["72", "B"] and memory["indptr"] == ["56", "B"]
    assert memory["in training"][:2] == [str(56 + 32 + 72 + 24 + 6), "B"]


def test_they_are_counted_in_pieces(star: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statistics(star)
    monkeypatch.setattr(checks, "_SPAN_BYTES", 32)
    assert len(list(checks.spans(star.num_nodes, 8, full=True))) == 2
    assert statistics(star) == whole


def test_degrees(star: Graph) -> None:
    text = statistics(star)
    assert re.search(r"degree +least +10 % .* most\n +0 +0 +1 +1 +1 +1 +4 +4\n", text), text
    bins = [line.split() for line in text.split(" most\n")[1].split("\n\n")[1].splitlines()]
    found = [" ".join(words).rstrip(" #%") for words in bins]
    assert found == ["0 1 16.7", "1 4 66.7", "2 - 3 0 0.0", "4 - 7 1 16.7"], found


def test_a_bare_graph_has_statistics() -> None:
    text = statistics(Graph.from_arrays("bare", [0, 1, 2], [1, 0]))
    assert lines_of(text, "bare\n")["features"] == ["none"]
    assert "splits" not in text.split("memory")[0] and "years" not in text


def test_many_classes_are_summed_up() -> None:
    labels = np.repeat(np.arange(20), np.arange(20, 0, -1))
    indptr = np.zeros(len(labels) + 1, int)
    text = statistics(Graph.from_arrays("many", indptr, [], labels=labels))
    classes = lines_of(text, "classes, largest first")
    assert classes["0"][0] == "20" and classes["4 others"] == ["10"]
