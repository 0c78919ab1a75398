"""The raw layouts of the Open Graph Benchmark, written small here, and read in small pieces."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data import ogb_raw
from gnn_core.data.graph import Graph
from gnn_core.data.pieces import npz_pieces
from gnn_core.data.progress import silent
from gnn_core.usage import UsageError
from tests.unit.made_files import write_csv

NUM_NODES, NUM_EDGES = 60, 200
Tables = dict[str, npt.NDArray]


@pytest.fixture
def tables() -> Tables:
    """Give the contents of a small citation graph, with repeats and a self-loop."""
    random = np.random.default_rng(5)
    edges = random.integers(0, NUM_NODES - 2, (2, NUM_EDGES))
    edges[:, 1] = edges[:, 0]
    edges[1, 2] = edges[0, 2]
    order = random.permutation(NUM_NODES)
    return {
        "edges": edges,
        "features": random.normal(size=(NUM_NODES, 5)).astype(np.float32),
        "labels": random.integers(0, 40, (NUM_NODES, 1)),
        "years": random.integers(1990, 2020, (NUM_NODES, 1)),
        "train": np.sort(order[:30]),
        "valid": np.sort(order[30:40]),
        "test": np.sort(order[40:55]),
    }


def write_splits(folder: Path, tables: Tables) -> None:
    """Write the three lists of nodes."""
    for which in ("train", "valid", "test"):
        write_csv(folder / f"{which}.csv.gz", tables[which])


def write_text(source: Path, tables: Tables, split: str, years: bool = True) -> Path:
    """Write the layout of ogbn-arxiv and ogbn-products."""
    raw = source / "raw"
    write_csv(raw / "edge.csv.gz", tables["edges"].T)
    write_csv(raw / "num-node-list.csv.gz", np.array([NUM_NODES]))
    write_csv(raw / "num-edge-list.csv.gz", np.array([NUM_EDGES]))
    write_csv(raw / "node-feat.csv.gz", tables["features"])
    write_csv(raw / "node-label.csv.gz", tables["labels"])
    if years:
        write_csv(raw / "node_year.csv.gz", tables["years"])
    write_splits(source / "split" / split, tables)
    return source


def write_binary(source: Path, tables: Tables, **changes: Any) -> Path:
    """Write the layout of ogbn-papers100M: most papers have no label."""
    raw = source / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    labels = np.full((NUM_NODES, 1), np.nan, np.float32)
    for which in ("train", "valid", "test"):
        labels[tables[which]] = tables["labels"][tables[which]]
    arrays = {
        "edge_index": tables["edges"],
        "node_feat": tables["features"],
        "node_year": tables["years"],
        "num_nodes_list": np.array([NUM_NODES]),
        "num_edges_list": np.array([NUM_EDGES]),
    }
    kept = {key: value for key, value in (arrays | changes).items() if value is not None}
    save = np.savez_compressed if changes.get("edge_feat") is not None else np.savez
    save(raw / "data.npz", **kept)
    np.savez(raw / "node-label.npz", node_label=labels)
    write_splits(source / "split" / "time", tables)
    return source


def convert(name: str, source: Path) -> Graph:
    """Read a source into a graph next to it."""
    folder = source.with_name(f"{source.name}-graph")
    ogb_raw.convert(name, source, folder, {"reader": "r"}, silent)
    return Graph.open(folder, verify=True)


def check(graph: Graph, tables: Tables) -> None:
    """Compare everything but the labels with the tables."""
    np.testing.assert_array_equal(graph.features, tables["features"])
    for which in ("train", "valid", "test"):
        np.testing.assert_array_equal(graph.split(which), tables[which])
    matrix = np.zeros((NUM_NODES, NUM_NODES), bool)
    matrix[tuple(tables["edges"])] = True
    matrix |= matrix.T
    np.fill_diagonal(matrix, False)
    np.testing.assert_array_equal(np.diff(graph.indptr), matrix.sum(axis=1))
    np.testing.assert_array_equal(graph.indices, np.nonzero(matrix)[1])


@pytest.fixture(params=[7, 1 << 22], ids=["small pieces", "one piece"])
def piece_values(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few values at a time, or all at once."""
    monkeypatch.setattr(ogb_raw, "_PIECE_VALUES", request.param)


@pytest.mark.usefixtures("piece_values")
def test_arxiv(tmp_path: Path, tables: Tables) -> None:
    graph = convert("ogbn-arxiv", write_text(tmp_path / "ogbn_arxiv", tables, "time"))
    check(graph, tables)
    np.testing.assert_array_equal(graph.citations, tables["edges"].T)
    np.testing.assert_array_equal(graph.labels, tables["labels"][:, 0])
    np.testing.assert_array_equal(graph.years, tables["years"][:, 0])
    assert graph.num_classes == 40 and graph.meta["provenance"] == {"reader": "r"}


@pytest.mark.usefixtures("piece_values")
def test_products(tmp_path: Path, tables: Tables) -> None:
    source = write_text(tmp_path / "ogbn_products", tables, "sales_ranking", years=False)
    graph = convert("ogbn-products", source)
    check(graph, tables)
    assert graph.citations is None and graph.years is None and graph.num_classes == 47
    assert not (graph.folder / "citations.npy").exists()


@pytest.mark.usefixtures("piece_values")
@pytest.mark.parametrize("change", ["none", "fortran", "compressed", "half"])
def test_papers100m(tmp_path: Path, tables: Tables, change: str) -> None:
    changes: dict[str, Any] = {
        "none": {},
        "fortran": {"edge_index": np.asfortranarray(tables["edges"])},
        "compressed": {"edge_feat": np.zeros(3)},
        "half": {"node_feat": tables["features"].astype(np.float16)},
    }[change]
    if change == "half":
        tables["features"] = changes["node_feat"]
    graph = convert("ogbn-papers100M", write_binary(tmp_path / "papers", tables, **changes))
    check(graph, tables)
    np.testing.assert_array_equal(graph.citations, tables["edges"].T)
    labelled = np.concatenate([tables[which] for which in ("train", "valid", "test")])
    np.testing.assert_array_equal(graph.labels[labelled], tables["labels"][labelled, 0])
    assert (np.delete(graph.labels, labelled) == -1).all()
    np.testing.assert_array_equal(graph.years, tables["years"][:, 0])
    assert graph.num_classes == 172
    assert graph.feature_dtype == ("float16" if change == "half" else "float32")


def test_hepth_has_neither_features_nor_labels(tmp_path: Path, tables: Tables) -> None:
    source = write_text(tmp_path / "cit-hepth", tables, "time")
    (source / "raw" / "node-feat.csv.gz").unlink()
    graph = convert("cit-hepth", source)
    assert graph.features is None and graph.labels is None and graph.splits is None
    np.testing.assert_array_equal(graph.citations, tables["edges"].T)


def test_the_published_hepth(real_data_root: Path, tmp_path: Path) -> None:
    source = real_data_root / "cit-hepth"
    if not source.is_dir():
        pytest.skip("no cit-hepth in the data root")
    ogb_raw.convert("cit-hepth", source, tmp_path / "g", {}, silent)
    graph = Graph.open(tmp_path / "g")
    assert (graph.num_nodes, len(graph.citations)) == (27_770, 352_807)
    assert (graph.years.min(), graph.years.max()) == (1992, 2003)
    citing, cited = graph.years[np.asarray(graph.citations)].T
    assert (citing >= cited).mean() > 0.998


def _csv(file: str, rows: list[Any]) -> Callable[[Path], None]:
    return lambda source: write_csv(source / file, np.array(rows))


def _cut(file: str, share: float) -> Callable[[Path], object]:
    def damage(source: Path) -> None:
        data = (source / file).read_bytes()
        (source / file).write_bytes(data[: int(len(data) * share)])

    return damage


TEXT_DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda s: (s / "raw/edge.csv.gz").unlink(), "edge.csv.gz: expected gzipped rows of numbers"),
    (_cut("raw/edge.csv.gz", 0.6), "edge.csv.gz: expected gzipped rows"),
    (lambda s: (s / "raw/edge.csv.gz").write_text("1,2\n"), "edge.csv.gz: expected gzipped rows"),
    (_csv("raw/edge.csv.gz", [[0, 60]]), "edge.csv.gz: expected node ids from 0 to 59, got 60"),
    (_csv("raw/edge.csv.gz", [[-1, 6]]), "edge.csv.gz: expected node ids from 0 to 59, got -1"),
    (_csv("raw/edge.csv.gz", [[1, 2], [3, 4]]), "edge.csv.gz: expected 200 edges, got 2"),
    (_csv("raw/edge.csv.gz", [[1, 2, 3]]), "edge.csv.gz: expected 2 numbers per row, got 3"),
    (_csv("raw/edge.csv.gz", [["a", "b"]]), "edge.csv.gz: expected gzipped rows .* 'a'"),
    (_csv("raw/node-feat.csv.gz", [[1, 2]]), "node-feat.csv.gz: expected 60 nodes, got 1"),
    (_csv("raw/node-label.csv.gz", [[1]] * 70), "node-label.csv.gz: expected 60 nodes, got 70"),
    (_csv("raw/node-label.csv.gz", [[0.5]] * 60), "node-label.csv.gz: expected whole numbers"),
    (_csv("raw/node-label.csv.gz", [[40]] * 60), "labels.npy: expected classes from 0 to 39"),
    (_csv("raw/node_year.csv.gz", [["nan"]] * 60), "node_year.csv.gz: expected a year"),
    (_csv("raw/num-node-list.csv.gz", [[3], [4]]), "num-node-list.csv.gz: .* of one graph"),
    (_csv("raw/edge.csv.gz", [[0.5, 1]]), "edge.csv.gz: expected node ids .*, got 0.5"),
    (_csv("raw/edge.csv.gz", [["nan", 1]]), "edge.csv.gz: expected node ids .*, got NaN"),
    (_csv("raw/edge.csv.gz", [["1+2j", 1]]), "edge.csv.gz: expected gzipped rows"),
    (_csv("raw/edge.csv.gz", [[0, 1]] * 300), "edge.csv.gz: expected 200 edges, got 300"),
    (_csv("raw/node_year.csv.gz", [["1e20"]] * 60), "node_year.csv.gz: .* a year .*, got 1000"),
    (_csv("raw/node_year.csv.gz", [[1990.5]] * 60), "node_year.csv.gz: expected a year .* 1990.5"),
    (_csv("raw/node-feat.csv.gz", [["1e39"]] * 60), "node-feat.csv.gz: .* that fit float32"),
    (_csv("raw/node-feat.csv.gz", [["nan"]] * 60), "features.npy: expected finite numbers"),
    (_csv("raw/num-node-list.csv.gz", [[60.5]]), "num-node-list.csv.gz: expected a count .* 60.5"),
    (_csv("raw/num-node-list.csv.gz", [["inf"]]), "num-node-list.csv.gz: expected a count .* inf"),
    (_csv("raw/num-node-list.csv.gz", [[-60]]), "num-node-list.csv.gz: expected a count .* -60"),
    (_csv("raw/num-node-list.csv.gz", [[10**12]]), "1,000,000,000,000 nodes .* of memory"),
    (_csv("raw/num-node-list.csv.gz", [[n] for n in range(9)]), "num-node-list.csv.gz: .* graph"),
    (_csv("split/time/test.csv.gz", [[0.5]]), "test.csv.gz: expected node ids .* 0.5"),
    (_csv("split/time/train.csv.gz", [[3], [3]]), "train.csv.gz: expected each node once"),
    (_csv("split/time/test.csv.gz", [[60]]), "test.csv.gz: expected node ids from 0 to 59"),
    (_csv("split/time/test.csv.gz", [[n] for n in range(60)]), "test.csv.gz: .* in two"),
]


@pytest.mark.parametrize(("damage", "message"), TEXT_DAMAGE, ids=map(str, range(len(TEXT_DAMAGE))))
def test_damaged_text_files_are_refused(
    tmp_path: Path, tables: Tables, damage: Callable[[Path], object], message: str
) -> None:
    source = write_text(tmp_path / "arxiv", tables, "time")
    damage(source)
    with pytest.raises(UsageError) as caught:
        convert("ogbn-arxiv", source)
    line = str(caught.value)
    assert re.search(message, line), line
    assert "\n" not in line and not list(tmp_path.glob("arxiv-graph*"))


BINARY_DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"edge_index": None}, "data.npz: expected an array edge_index, got none"),
    ({"edge_index": np.zeros((3, 4), np.int64)}, r"expected edge_index of shape \[2, edges\]"),
    ({"edge_index": np.full((2, NUM_EDGES), 60)}, "expected node ids from 0 to 59, got 60"),
    ({"node_feat": np.zeros((3, 4), np.float32)}, "data.npz: expected 60 nodes, got 3"),
    ({"node_year": np.array([None] * 60)}, "data.npz: .* holds Python objects"),
    ({"edge_index": np.full((2, NUM_EDGES), np.nan)}, "expected node ids .*, got NaN"),
    ({"edge_index": np.full((2, NUM_EDGES), 0.5)}, "expected node ids .*, got 0.5"),
    ({"edge_index": np.full((2, NUM_EDGES), 1j)}, "data.npz: .*values of type complex128"),
    ({"edge_index": np.full((2, NUM_EDGES), "1")}, "data.npz: .*values of type <U1"),
    ({"edge_index": np.full((2, NUM_EDGES), 2**63, np.uint64)}, "expected node ids .*, got 92233"),
    ({"node_year": np.full((60, 1), "1990")}, "data.npz: .*values of type <U4"),
    ({"node_year": np.full((60, 1), 1e20)}, "data.npz: expected a year .*, got 1000"),
    ({"node_feat": np.full((60, 5), 1j)}, "data.npz: .*values of type complex128"),
    ({"node_feat": np.full((60, 5), 1e300)}, "data.npz: expected numbers that fit float32"),
    ({"num_nodes_list": np.array([60.5])}, "expected a count .*, got 60.5"),
    ({"num_nodes_list": np.array(60)}, "expected num_nodes_list of one graph"),
    ({"num_nodes_list": np.array([3, 57])}, "expected num_nodes_list of one graph, got 2"),
]


@pytest.mark.parametrize(("changes", "message"), BINARY_DAMAGE)
def test_damaged_binary_files_are_refused(
    tmp_path: Path, tables: Tables, changes: dict[str, Any], message: str
) -> None:
    source = write_binary(tmp_path / "papers", tables, **changes)
    with pytest.raises(UsageError) as caught:
        convert("ogbn-papers100M", source)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_cut_archive_is_refused(tmp_path: Path, tables: Tables) -> None:
    source = write_binary(tmp_path / "papers", tables)
    _cut("raw/data.npz", 0.5)(source)
    with pytest.raises(UsageError, match="data.npz: expected an .npz file"):
        convert("ogbn-papers100M", source)


def test_pieces_of_an_archive_are_small(tmp_path: Path) -> None:
    table = np.arange(1000).reshape(100, 10)
    np.savez(tmp_path / "a.npz", table=table, line=table[0])
    pieces = list(npz_pieces(tmp_path / "a.npz", "table", 45))
    assert [len(piece) for piece in pieces] == [4] * 25
    np.testing.assert_array_equal(np.concatenate(pieces), table)
    row = np.concatenate(list(npz_pieces(tmp_path / "a.npz", "table", 3, row=7)))
    np.testing.assert_array_equal(row, table[7])
    assert [p.tolist() for p in npz_pieces(tmp_path / "a.npz", "line", 8)] == [[*range(8)], [8, 9]]
