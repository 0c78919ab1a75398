"""What nodes and classes are called, and files that do not fit their graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gnn_core.config import UsageError
from gnn_core.data import ids
from gnn_core.data.graph import Graph, write_graph


@pytest.fixture
def graph(tmp_path: Path, tiny_graph: Graph) -> Graph:
    return write_graph(tiny_graph, tmp_path / "tiny")


def write_text(graph: Graph, names: list[str]) -> None:
    assert graph.folder is not None
    raw = [name.encode() for name in names]
    np.save(graph.folder / ids.OFFSETS, np.cumsum([0, *map(len, raw)]))
    np.save(graph.folder / ids.BYTES, np.frombuffer(b"".join(raw), np.uint8))


NODES = np.array([3, 119, 0])


def test_nodes_without_other_ids(graph: Graph, tiny_graph: Graph) -> None:
    assert ids.original_ids(graph) is None and ids.original_ids(tiny_graph) is None
    assert list(ids.called(None, NODES)) == [3, 119, 0]
    assert ids.nodes_called(graph, None, ["119", "0"]).tolist() == [119, 0]


@pytest.mark.parametrize("word", ["120", "-1", "1.0", "", "9" * 5000, "\u0661"])
def test_numbers_that_no_node_has(graph: Graph, word: str) -> None:
    with pytest.raises(UsageError, match="expected ids of its 120 nodes .numbers from 0., got '"):
        ids.nodes_called(graph, None, ["5", word])


def test_whole_numbers(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_PIECE", 50)
    assert graph.folder is not None
    np.save(graph.folder / ids.IDS, np.arange(120) * -10)
    original = ids.original_ids(graph)
    assert list(ids.called(original, NODES)) == [-30, -1190, 0]
    assert ids.nodes_called(graph, original, ["-1190", "0", "-1190"]).tolist() == [119, 0, 119]
    with pytest.raises(UsageError, match="the ids that it was imported with.*got '5'"):
        ids.nodes_called(graph, original, ["5"])


def test_text(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_PIECE", 50)
    write_text(graph, ["", *(f"paper é{i}" for i in range(1, 120))])
    original = ids.original_ids(graph)
    assert ids.called(original, NODES) == ["paper é3", "paper é119", ""]
    assert ids.nodes_called(graph, original, ["paper é119"]).tolist() == [119]


@pytest.mark.parametrize("harm", ["short", "float", "cut", "descending", "damaged", "alone"])
def test_files_that_do_not_fit(graph: Graph, harm: str) -> None:
    assert graph.folder is not None
    write_text(graph, ["name"] * 120)
    offsets = np.load(graph.folder / ids.OFFSETS)
    swapped = offsets.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    changed = {"short": offsets[:-1], "float": offsets + 0.0, "cut": offsets + 4}
    changed["descending"] = swapped
    if harm in changed:
        np.save(graph.folder / ids.OFFSETS, changed[harm])
    elif harm == "damaged":
        (graph.folder / ids.OFFSETS).write_bytes(b"PK\x03\x04")
    else:
        (graph.folder / ids.BYTES).unlink()
    with pytest.raises(UsageError, match=r"ids-(offsets|bytes).npy: expected .*, got .*; import"):
        ids.original_ids(graph)


def test_names_of_classes(tiny_graph: Graph) -> None:
    assert ids.class_names(tiny_graph) is None
    tiny_graph.meta["class_names"] = ["a", "b"]
    assert ids.class_names(tiny_graph) is None  # of other classes
    tiny_graph.meta["class_names"] = list("abcd")
    assert ids.class_names(tiny_graph) == list("abcd")
    del tiny_graph.meta["class_names"]
