"""The raw layout of ogbl-citation2, written small here: what becomes of it, and what is refused."""

# ruff: noqa: E402
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data import ogb_raw
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.progress import silent
from gnn_core.usage import UsageError
from tests.unit.made_files import write_csv
from tests.unit.made_links import Citation2, both_ways, citation2, write_citation2

pytestmark = pytest.mark.needs_torch
HELD_OUT = ("valid", "test")


@pytest.fixture
def data() -> Citation2:
    return citation2()


def convert(source: Path) -> Graph:
    """Read a source into a graph next to it."""
    folder = source.with_name(f"{source.name}-graph")
    ogb_raw.convert("ogbl-citation2", source, folder, {"reader": "r"}, silent)
    return Graph.open(folder, verify=True)


FORMS: dict[str, dict[str, Any]] = {
    "arrays": {},
    "arrays, protocol 4": {"pickle_protocol": 4},
    "arrays, before 1.6": {"_use_new_zipfile_serialization": False},
    "tensors": {"tensors": True},
}


@pytest.mark.parametrize("piece_values", [7, 1 << 22], ids=["small pieces", "one piece"])
@pytest.mark.parametrize("form", FORMS)
def test_everything_is_in_its_place(
    tmp_path: Path, data: Citation2, monkeypatch: pytest.MonkeyPatch, form: str, piece_values: int
) -> None:
    monkeypatch.setattr(ogb_raw, "_PIECE_VALUES", piece_values)
    graph = convert(write_citation2(data, tmp_path / "ogbl_citation2", **FORMS[form]))
    for split, arrays in data.splits.items():
        edges = getattr(graph, f"{split}_edges")
        assert edges.dtype == np.int32
        np.testing.assert_array_equal(edges[:, 0], arrays["source_node"])
        np.testing.assert_array_equal(edges[:, 1], arrays["target_node"])
        if split in HELD_OUT:
            others = getattr(graph, f"{split}_candidates")
            assert others.dtype == np.int32
            np.testing.assert_array_equal(others, arrays["target_node_neg"])
    np.testing.assert_array_equal(graph.features, data.features)
    np.testing.assert_array_equal(graph.years, data.years)
    assert graph.labels is None and graph.splits is None and graph.citations is None
    assert graph.meta["provenance"] == {"reader": "r"} and graph.num_classes == 0


def test_messages_pass_along_training_edges_alone_both_ways(
    tmp_path: Path, data: Citation2
) -> None:
    graph = convert(write_citation2(data, tmp_path / "ogbl_citation2"))
    receivers = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    messages = set(zip(receivers.tolist(), graph.indices.tolist(), strict=True))
    train = graph.train_edges[graph.train_edges[:, 0] != graph.train_edges[:, 1]]
    assert messages == both_ways(train)
    assert len(messages) == len(graph.indices)


def test_references_are_ranked_among_what_is_published(tmp_path: Path, data: Citation2) -> None:
    graph = convert(write_citation2(data, tmp_path / "ogbl_citation2"))
    for split in HELD_OUT:
        rows = np.arange(len(getattr(graph, f"{split}_edges")))
        published = data.splits[split]["target_node_neg"]
        assert np.array_equal(Candidates(graph, split, 30).of(rows), published)


Change = Callable[[Citation2], object]


def with_array(split: str, name: str, change: Callable[[Any], Any]) -> Change:
    def harm(data: Citation2) -> None:
        data.splits[split][name] = change(data.splits[split][name])

    return harm


def without(split: str, name: str) -> Change:
    return lambda data: data.splits[split].pop(name)


def setting(place: Any, value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


DAMAGES: dict[str, tuple[Change, str]] = {
    "no sources": (
        without("train", "source_node"),
        "train.pt: expected source_node, got only target_node; fetch the file again",
    ),
    "no candidates": (without("test", "target_node_neg"), "test.pt: expected target_node_neg, got"),
    "an empty dict": (lambda data: data.splits["valid"].clear(), "got only an empty dict"),
    "fewer targets": (
        with_array("valid", "target_node", lambda a: a[:-1]),
        r"valid.pt: expected target_node of shape \[edges\], as many as source_node, got \[19\]",
    ),
    "targets in columns": (
        with_array("train", "target_node", lambda a: a[:, None]),
        r"train.pt: expected target_node of shape \[edges\]",
    ),
    "a number": (
        with_array("train", "source_node", lambda a: np.array(3)),
        r"train.pt: expected source_node of shape \[edges\], .* got \[\]",
    ),
    "no edges": (
        lambda data: data.splits["test"].update({k: a[:0] for k, a in data.splits["test"].items()}),
        r"test.pt: expected source_node of shape \[edges\], .* got \[0\]",
    ),
    "fewer rows of candidates": (
        with_array("valid", "target_node_neg", lambda a: a[1:]),
        r"target_node_neg of shape \[edges, candidates\], as many as source_node, got \[19, 30\]",
    ),
    "candidates in a row": (
        with_array("test", "target_node_neg", lambda a: a.ravel()),
        r"target_node_neg of shape \[edges, candidates\]",
    ),
    "a source beyond": (
        with_array("train", "source_node", setting(5, 200)),
        "train.pt: expected node ids from 0 to 199 in source_node, got 200",
    ),
    "a negative target": (
        with_array("valid", "target_node", setting(5, -1)),
        "valid.pt: expected node ids from 0 to 199 in target_node, got -1",
    ),
    "a candidate beyond": (
        with_array("test", "target_node_neg", setting((3, 3), 10**12)),
        "test.pt: expected node ids from 0 to 199 in target_node_neg, got 1000000000000",
    ),
    "fractions": (
        with_array("train", "source_node", lambda a: a.astype(np.float64)),
        "train.pt: expected a dict of arrays of whole numbers, .* type 'f8', which are not whole",
    ),
    "other edges": (
        lambda data: setting((8, slice(None)), 199)(data.edges),
        r"edge.csv.gz: expected the edges of train.pt, got others: \d+ -> \d+ is in one of the two",
    ),
    "edges turned round": (
        lambda data: setattr(data, "edges", data.edges[:, ::-1]),
        "edge.csv.gz: expected the edges of train.pt, got others",
    ),
    "all edges, held out or not": (
        lambda data: setattr(
            data,
            "edges",
            np.concatenate(
                [
                    np.stack([a["source_node"], a["target_node"]], axis=1)
                    for a in data.splits.values()
                ]
            ),
        ),
        r"edge.csv.gz: expected the \d+ edges of train.pt, got \d+ edges",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_wrong_files_are_refused(tmp_path: Path, data: Citation2, case: str) -> None:
    damage, message = DAMAGES[case]
    damage(data)
    source = write_citation2(data, tmp_path / "ogbl_citation2")
    with pytest.raises(UsageError) as caught:
        convert(source)
    line = str(caught.value)
    assert re.search(message, line), line
    assert line.startswith(str(source)) and line.endswith("fetch the file again") or "dict" in line
    assert "\n" not in line and not list(tmp_path.glob("*-graph*"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [([[0, 200]], "got 200"), ([[0, 1, 2]], "2 numbers per row"), ([[0, 1]], "got 1")],
)
def test_a_wrong_edge_file_is_refused(
    tmp_path: Path, data: Citation2, rows: list[list[int]], message: str
) -> None:
    source = write_citation2(data, tmp_path / "ogbl_citation2")
    write_csv(source / "raw" / "edge.csv.gz", np.array(rows))
    with pytest.raises(UsageError, match=rf"edge.csv.gz: .*{message}"):
        convert(source)
