"""Tables, arrays and archives that are imported: the graph is the one in the files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet
from scipy import sparse

from gnn_core.bench import importing
from gnn_core.data import datasets, hold_out, room
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.importer.keys import IntegerKeys, TextKeys
from gnn_core.data.importer.tables import Table, TextOptions
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.data.table_dtype import with_table_dtype
from tests.conftest import ROOT
from tests.patience import patient

EDGES = "source,target\n1,2\n2,3\n3,1\n3,3\n2,1\n1,2\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGSAGE_CACHE", "cache")
    return tmp_path


def imported(flags: str, **files: str) -> Graph:
    """Import the files (`nodes_csv` is nodes.csv) and open the graph, checked whole."""
    for name, content in files.items():
        Path(name.replace("_", ".")).write_text(content)
    words = ["import", "mine", *flags.split(), "--overwrite"]
    assert datasets.main(words) == 0
    return datasets.load("mine", verify=True)


def neighbours(graph: Graph) -> list[list[int]]:
    """Whom each node receives from."""
    return [row.tolist() for row in np.split(graph.indices, graph.indptr[1:-1])]


def ids_of(graph: Graph) -> list[str] | list[int] | None:
    """Read the names of the nodes as the folder keeps them."""
    assert graph.folder is not None
    if (graph.folder / "ids.npy").exists():
        return np.load(graph.folder / "ids.npy").tolist()
    if not (graph.folder / "ids-offsets.npy").exists():
        return None
    offsets = np.load(graph.folder / "ids-offsets.npy")
    content = np.load(graph.folder / "ids-bytes.npy").tobytes()
    return [content[low:high].decode() for low, high in zip(offsets, offsets[1:], strict=False)]


def test_repeats_and_self_loops_are_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    graph = imported("--edges edges.csv", edges_csv=EDGES)
    assert neighbours(graph) == [[1, 2], [0, 2], [0, 1]]
    assert ids_of(graph) == [1, 2, 3]
    assert graph.labels is None and graph.splits is None and graph.citations is None
    told = capsys.readouterr().out
    assert "3 nodes, 6 edges read, 1 self loops and 2 repeats in either direction left out" in told
    assert "--dataset mine" in told


@pytest.mark.parametrize(
    ("content", "flags"),
    [
        ("1\t2\n2\t3\n3\t1\n", ""),
        ("# a comment of SNAP\n1 2\n2 3\n3 1\n", ""),
        ("\ufeffsource,target\r\n1,2\r\n2,3\r\n\r\n3,1\r\n", ""),
        ("weight;to;from\n5;2;1\n5;3;2\n5;1;3", ""),
        ("a,b,c\n0,1,2\n0,2,3\n0,3,1\n", "--source-column b --target-column 2"),
        ('"source","target"\n"1","2"\n"2","3"\n"3","1"\n', ""),
    ],
)
def test_text_of_many_forms_gives_one_graph(content: str, flags: str) -> None:
    graph = imported(f"--edges edges.csv {flags}", edges_csv=content)
    assert (neighbours(graph), ids_of(graph)) == ([[1, 2], [0, 2], [0, 1]], [1, 2, 3])


def test_compressed_and_parquet_files_in_parts_are_one_table() -> None:
    Path("a.csv.gz").write_bytes(gzip.compress(b"1,2\n"))
    with pyarrow.CompressedOutputStream("b.csv.zst", "zstd") as file:
        file.write(b"2,3\n")
    parquet.write_table(pyarrow.table({"src": [3], "dst": [1], "w": [0.5]}), "c.parquet")
    graph = imported("--edges a.csv.gz b.csv.zst c.parquet")
    assert (neighbours(graph), ids_of(graph)) == ([[1, 2], [0, 2], [0, 1]], [1, 2, 3])


@pytest.mark.parametrize("largest", [2, 10**9, 2**62])
def test_ids_may_be_spread_far(largest: int) -> None:
    graph = imported("--edges edges.csv", edges_csv=f"0,{largest}\n-5,0\n")
    assert ids_of(graph) == [-5, 0, largest]
    assert neighbours(graph) == [[1], [0, 2], [1]]


def test_ids_that_count_up_need_no_map() -> None:
    graph = imported("--edges edges.csv", edges_csv="0,1\n1,2\n")
    assert ids_of(graph) is None


def test_text_ids_are_kept_as_they_are() -> None:
    graph = imported("--edges edges.csv", edges_csv="source,target\nmüller,007\n007,7\n")
    assert ids_of(graph) == ["müller", "007", "7"]
    assert neighbours(graph) == [[1], [0, 2], [1]]
    graph = imported("--edges edges.csv --id-type text", edges_csv="1,2\n")
    assert ids_of(graph) == ["1", "2"]


def test_latin_1_is_read_when_it_is_named() -> None:
    Path("edges.csv").write_bytes("Müller,Weiß\n".encode("latin-1"))
    assert ids_of(imported("--edges edges.csv --encoding latin-1")) == ["Müller", "Weiß"]


NODES = """paper,topic,part,published,x_0,x_1,open
c,math,train,2015,0.5,1,True
a,art,valid,2017,1.5,2,False
b,,test,2018,2.5,3,true
d,art,none,2019,3.5,4,false
"""


def test_a_node_table_decides_the_order_and_what_nodes_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graph = imported(
        "--edges edges.csv --nodes nodes.csv --id-column paper --label-column topic "
        "--split-column part --year-column published --feature-columns x_*,open "
        "--allow-missing-classes",  # there is art to validate on, and none to train on
        edges_csv="a,b\nb,c\n",
        nodes_csv=NODES,
    )
    assert ids_of(graph) == ["c", "a", "b", "d"]
    assert neighbours(graph) == [[2], [2], [0, 1], []]
    assert graph.labels is not None and graph.labels.tolist() == [1, 0, -1, 0]
    assert graph.splits is not None and graph.splits.tolist() == [1, 2, 0, 0]  # b has no label
    assert graph.years is not None and graph.years.tolist() == [2015, 2017, 2018, 2019]
    assert np.asarray(graph.features).tolist() == [
        [0.5, 1, 1],
        [1.5, 2, 0],
        [2.5, 3, 1],
        [3.5, 4, 0],
    ]
    assert graph.meta["provenance"]["class_names"] == ["art", "math"]
    told = capsys.readouterr().out
    assert "1 nodes of a split have no label" in told
    assert "1 nodes without an edge" in told
    assert datasets.main(["show", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "edges.csv" in shown and "  math" in shown


def test_nodes_that_only_edges_name_are_taken_when_allowed() -> None:
    graph = imported(
        "--edges edges.csv --nodes nodes.csv --feature-columns x --allow-unlisted",
        edges_csv="a,b\nb,z\n",
        nodes_csv="id,label,x\na,1,5\nb,0,6\n",
    )
    assert ids_of(graph) == ["a", "b", "z"]
    assert graph.labels is not None and graph.labels.tolist() == [1, 0, -1]
    assert np.asarray(graph.features).tolist() == [[5], [6], [0]]


@pytest.mark.parametrize("kind", ["csv", "json", "words", "rows", "npz", "ordered", "lists"])
def test_features_in_every_layout(kind: str) -> None:
    wanted = np.array([[1, 0, 2], [0, 0, 0], [0, 3, 0]], np.float32)
    files = {
        "csv": ("x.csv", "node_id,feature_id,value\n1,0,1\n1,2,2\n3,1,3\n"),
        "json": ("x.json", json.dumps({"3": [1, 1, 1], "1": [0, 2, 2], "2": []})),
        "words": ("x.json", json.dumps({"1": ["a", "c", "c"], "3": ["b"] * 3})),
        "rows": ("x.csv", "x,id,y,z\n0,3,3,0\n1,1,0,2\n0,2,0,0\n"),
        "ordered": ("x.csv", "1,0,2\n0,0,0\n0,3,0\n"),
    }
    flags = "--edges edges.csv --nodes nodes.csv --features "
    if kind == "npz":
        sparse.save_npz("x.npz", sparse.csr_array(wanted))
        name = "x.npz"
    elif kind == "lists":
        columns = {"id": [3, 1, 2], "x": wanted[[2, 0, 1]].tolist()}
        parquet.write_table(pyarrow.table(columns), name := "x.parquet")
    else:
        name, content = files[kind]
        Path(name).write_text(content)
    layout = " --feature-layout ordered" if kind == "ordered" else ""
    graph = imported(flags + name + layout, edges_csv="1,2\n2,3\n", nodes_csv="id\n1\n2\n3\n")
    assert np.asarray(graph.features).tolist() == wanted.tolist()
    assert isinstance(graph.features, SparseFeatures) == (kind not in ("rows", "ordered", "lists"))


def test_arrays_alone_number_the_nodes() -> None:
    np.save("edges.npy", np.array([[0, 1], [1, 2], [2, 0]]))
    np.save("x.npy", np.eye(4, dtype=np.float64))
    np.save("y.npy", np.array(["b", "a", "b", "a"]))
    np.save("split.npy", np.array([1, 1, 2, 3]))
    graph = imported("--edges edges.npy --features x.npy --labels y.npy --split split.npy")
    assert neighbours(graph) == [[1, 2], [0, 2], [0, 1], []]
    assert graph.labels is not None and graph.labels.tolist() == [1, 0, 1, 0]
    assert graph.splits is not None and graph.splits.tolist() == [1, 1, 2, 3]
    assert (graph.num_features, ids_of(graph)) == (4, None)


def test_a_split_in_a_table_of_its_own() -> None:
    Path("split.csv").write_text("id,split\n3,test\n1,train\n")
    graph = imported(
        "--edges edges.csv --nodes nodes.csv --split split.csv",
        edges_csv=EDGES,
        nodes_csv="id,label\n1,0\n2,1\n3,0\n",
    )
    assert graph.splits is not None and graph.splits.tolist() == [1, 0, 3]


def labelled(split: str) -> npt.NDArray[np.uint8]:
    """Split 1000 nodes of 4 classes, of which the last is rare."""
    labels = np.minimum(np.arange(1000) // 330, 3)
    rows = "".join(f"{node},{label},{2000 + node % 20}\n" for node, label in enumerate(labels))
    edges = "".join(f"{node},{node + 1}\n" for node in range(999))
    flags = f"--edges edges.csv --nodes nodes.csv {split}"
    graph = imported(flags, edges_csv=edges, nodes_csv="id,label,year\n" + rows)
    assert graph.splits is not None
    return np.asarray(graph.splits)


def test_a_random_split_has_its_shares_of_each_class() -> None:
    splits = labelled("--split random:0.5,0.25,0.25")
    for low, high in ((0, 330), (330, 660), (660, 990), (990, 1000)):
        share = np.bincount(splits[low:high], minlength=4) / (high - low)
        np.testing.assert_allclose(share, [0, 0.5, 0.25, 0.25], atol=0.06)
    assert np.array_equal(splits, labelled("--split random:0.5,0.25,0.25"))
    assert not np.array_equal(splits, labelled("--split random:0.5,0.25,0.25 --split-seed 1"))


def test_planetoid_and_years_split() -> None:
    splits = labelled("--split planetoid")
    assert np.bincount(splits, minlength=4)[1] == 20 * 3 + 10
    assert np.bincount(splits, minlength=4)[2] == (1000 - 70) // 3
    by_year = labelled("--split year:2009,2014 --allow-missing-classes")
    assert np.bincount(by_year, minlength=4).tolist() == [0, 500, 250, 250]


def made_arrays() -> tuple[sparse.csr_matrix, sparse.csr_matrix, npt.NDArray[np.int64]]:
    random = np.random.default_rng(3)
    adjacency = sparse.random_array((40, 40), density=0.1, rng=random, format="csr")
    words = sparse.random_array((40, 30), density=0.2, rng=random, format="csr")
    return sparse.csr_matrix(adjacency), sparse.csr_matrix(words), np.arange(40) % 5


@pytest.mark.parametrize("layout", ["shchur", "dotted", "csr", "csc", "coo", "arrays", "dense"])
def test_a_whole_graph_in_an_archive(layout: str) -> None:
    adjacency, words, labels = made_arrays()
    found = adjacency.tocoo()
    if layout in ("shchur", "dotted"):
        mark = {"shchur": "_", "dotted": "_matrix."}[layout]
        files = {
            f"{key}{mark}{part}": getattr(matrix, part)
            for key, matrix in {"adj": adjacency, "attr": words}.items()
            for part in ("data", "indices", "indptr", "shape")
        }
        np.savez("graph.npz", labels=labels, **files, class_names=np.array(["a"], object))
    elif layout in ("csr", "csc", "coo"):
        # As NumPy pickles what is no array: an array of one object and no dimension.
        pickled = {"adj_matrix": adjacency.asformat(layout), "node_attr": words.asformat(layout)}
        np.savez("graph.npz", node_label=labels, **pickled)
    elif layout == "arrays":
        masks = np.zeros((10, 40), np.bool_)
        masks[:, :20] = True
        np.savez(
            "graph.npz",
            edges=np.stack([found.row, found.col], axis=1),
            node_features=words.toarray(),
            node_labels=labels,
            train_masks=masks,
            val_masks=~masks & (np.arange(40) < 30),
            test_masks=~masks & (np.arange(40) >= 30),
        )
    else:
        np.savez("graph.npz", adj_matrix=adjacency.toarray(), attr_matrix=words.toarray(), y=labels)
    graph = imported("--edges graph.npz")
    both = (adjacency + adjacency.T).toarray() != 0
    np.fill_diagonal(both, False)
    got = sparse.csr_array((np.ones(graph.num_edges), graph.indices, graph.indptr), both.shape)
    assert np.array_equal(got.toarray() != 0, both)
    np.testing.assert_array_equal(np.asarray(graph.features), words.toarray().astype(np.float32))
    assert graph.labels is not None and graph.labels.tolist() == labels.tolist()
    assert graph.splits is not None
    if layout == "arrays":
        assert graph.splits.tolist() == [1] * 20 + [2] * 10 + [3] * 10


def test_directed_edges_are_kept_for_link_prediction() -> None:
    graph = imported("--edges edges.csv --directed", edges_csv="7,5\n5,6\n6,5\n")
    assert graph.citations is not None
    assert graph.citations.tolist() == [[2, 0], [0, 1], [1, 0]]
    assert neighbours(graph) == [[1, 2], [0], [0]]


def test_copies_for_training_keep_the_ids(place: Path) -> None:
    edges = "".join(f"{node},{other}\n" for node in range(10, 20) for other in range(10, node))
    rows = "".join(f"{node},{node}.5\n" for node in range(10, 20))
    flags = "--edges edges.csv --nodes nodes.csv --feature-columns x --directed"
    graph = imported(flags, edges_csv=edges, nodes_csv="id,x\n" + rows)
    split = LinkSplit(hold_out.RANDOM, 0.1, 0, 4)
    for copy in (link_graph(graph, split, place), with_table_dtype(graph, "fp16", place)):
        assert ids_of(copy) == list(range(10, 20))


def test_labels_without_features_get_some_that_are_made() -> None:
    files = {"edges_csv": "1,2\n2,3\n", "nodes_csv": "id,label\n1,0\n2,1\n3,1\n"}
    graph = imported("--edges edges.csv --nodes nodes.csv", **files)
    assert np.array_equal(np.asarray(graph.features), np.eye(3))
    graph = imported("--edges edges.csv --nodes nodes.csv --features degree", **files)
    assert np.asarray(graph.features).tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_ogbs_layout_of_any_data_set() -> None:
    raw, split = Path("data/raw"), Path("data/split/scaffold")
    raw.mkdir(parents=True)
    split.mkdir(parents=True)
    files = {
        raw / "edge": "0,1\n1,2\n",
        raw / "num-node-list": "3\n",
        raw / "num-edge-list": "2\n",
        raw / "node-feat": "1,2\n3,4\n5,6\n",
        raw / "node-label": "1\n0\n1\n",
        split / "train": "0\n",
        split / "valid": "1\n",
        split / "test": "2\n",
    }
    for path, content in files.items():
        Path(f"{path}.csv.gz").write_bytes(gzip.compress(content.encode()))
    graph = imported("--ogb data")
    assert (neighbours(graph), graph.num_classes) == ([[1], [0, 2], [1]], 2)
    assert graph.splits is not None and graph.splits.tolist() == [1, 2, 3]


def test_a_name_is_taken_once_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    imported("--edges edges.csv", edges_csv=EDGES)
    assert datasets.main(["import", "mine", "--edges", "edges.csv"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert datasets.main(["list"]) == 0
    assert "mine              imported          3 nodes" in capsys.readouterr().out
    assert datasets.main(["show", "mime"]) == 2
    assert "did you mean mine?" in capsys.readouterr().err


def test_a_killed_import_leaves_no_graph_and_the_next_one_works(place: Path) -> None:
    csv.write_csv(
        pyarrow.table({name: np.arange(3_000_000) for name in ("source", "target")}), "large.csv"
    )
    command = [sys.executable, "-m", "gnn_core.data.datasets", "import", "mine"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--edges", "large.csv"], env=environment)
    deadline = time.monotonic() + patient(60)
    while not list(place.glob("cache/imported/mine.tmp-*/scratch/edges.raw")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "cache" / "imported" / "mine").exists()
    assert neighbours(imported("--edges edges.csv", edges_csv="0,1\n")) == [[1], [0]]
    assert list(place.glob("cache/imported/mine.tmp-*")) == []


@settings(deadline=None)  # compiling takes seconds
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), max_size=5))
def test_integers_are_numbered_as_a_dict_would(parts: list[list[int]]) -> None:
    keys, wanted = IntegerKeys(), dict[int, int]()
    for part in parts:
        numbers = [wanted.setdefault(each, len(wanted)) for each in part]
        assert keys.insert(np.array(part, np.int64)).tolist() == numbers
    assert keys.ids.tolist() == list(wanted)
    some = np.array([*wanted, 12345, -1], np.int64)
    assert keys.find(some).tolist() == [wanted.get(int(each), -1) for each in some]


@settings(deadline=None)  # compiling takes seconds
@given(st.lists(st.lists(st.text(max_size=5), max_size=20), max_size=5))
def test_text_is_numbered_as_a_dict_would(parts: list[list[str]]) -> None:
    keys, wanted = TextKeys(), dict[str, int]()
    for part in parts:
        part = [each.encode("utf-8", "ignore").decode() for each in part]
        numbers = [wanted.setdefault(each, len(wanted)) for each in part]
        array = pyarrow.array(["skipped", *part], pyarrow.string())[1:]
        assert keys.insert(array).tolist() == numbers
    assert keys.texts() == list(wanted)
    some = [*wanted, "none of them"]
    found = keys.find(pyarrow.array(some, pyarrow.string()))
    assert found.tolist() == [wanted.get(each, -1) for each in some]


@pytest.mark.parametrize("flag", [[], ["--text"]])
def test_the_benchmark_makes_a_table_and_imports_it(
    flag: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the child
    words = ["--edges", "3e3", "--nodes", "500", "--folder", str(place), *flag]
    assert importing.main(words) == 0
    assert "3,000 edges" in capsys.readouterr().out
    assert list(place.glob("tmp*")) == []


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("id,x,y", "x,y", [[1, 2], [3, 4]]),  # y is a usual name of labels
        ("id,x[0],x[1]", "x[0],x[1]", [[1, 2], [3, 4]]),
        ("id,first,second", "2", [[2], [4]]),
        ("id,first,second", "f*,2", [[1, 2], [3, 4]]),
    ],
)
def test_features_are_named_or_given_by_position(
    header: str, columns: str, expected: list[list[int]]
) -> None:
    graph = imported(
        f"--edges edges.csv --nodes nodes.csv --feature-columns {columns}",
        edges_csv="source,target\n5,7\n",
        nodes_csv=f"{header}\n5,1,2\n7,3,4\n",
    )
    assert np.asarray(graph.features).tolist() == expected
    assert graph.labels is None


def test_json_names_nodes_of_19_digits() -> None:
    last = "1234567890123456789"
    graph = imported(
        "--edges edges.csv --features words.json",
        edges_csv=f"source,target\n{last},2\n",
        words_json=json.dumps({last: [1], "2": [0]}),
    )
    assert isinstance(graph.features, SparseFeatures)
    assert graph.features[np.arange(2)].tolist() == [[1, 0], [0, 1]]


def test_words_of_json_that_differ_at_their_end() -> None:
    graph = imported(
        "--edges edges.csv --features words.json",
        edges_csv="source,target\n1,2\n",
        words_json=json.dumps({"1": ["a\0"], "2": ["a"]}),
    )
    assert graph.num_features == 2


def test_blanks_around_ids_of_text_are_left_out() -> None:
    graph = imported(
        "--edges edges.csv --nodes nodes.csv",
        edges_csv="source, target\na, b\nb, c d\n",
        nodes_csv="id\na\n b \nc d\n",
    )
    assert ids_of(graph) == ["a", "b", "c d"]
    assert neighbours(graph) == [[1], [0, 2], [1]]


def test_a_field_may_have_line_breaks() -> None:
    graph = imported(
        "--edges edges.csv --nodes nodes.csv",
        edges_csv="source,target\n1,2\n2,3\n",
        nodes_csv='id,"la\nbel",title,class\n1,x,"two\nlines, and ""more""",a\n2,x,q,b\n3,x,5",a\n',
    )
    assert graph.labels is not None and graph.labels.tolist() == [0, 1, 0]


def test_an_array_of_edges_may_name_nodes_that_are_not_listed() -> None:
    np.save("edges.npy", np.array([[5, 7], [7, 9]]))
    graph = imported(
        "--edges edges.npy --nodes nodes.csv --allow-unlisted", nodes_csv="id,label\n5,a\n7,a\n"
    )
    assert ids_of(graph) == [5, 7, 9]
    assert graph.labels is not None and graph.labels.tolist() == [0, 0, -1]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_in_an_archive_may_be_text(kind: str) -> None:
    labels = np.array(["dog", "cat", "dog"], kind)
    np.savez("graph.npz", edges=np.array([[0, 1], [1, 2]]), x=np.eye(3), y=labels)
    graph = imported("--edges graph.npz")
    assert graph.labels is not None and graph.labels.tolist() == [1, 0, 1]
    assert graph.meta["provenance"]["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_one_edge_to_a_huge_number_asks_for_memory_first(
    suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "available_memory_bytes", lambda: 1 << 30)
    edges = np.array([[2**31 - 3, 1]])
    save = {"npy": np.save, "npz": lambda path, edges: np.savez(path, edges=edges)}[suffix]
    save(f"edges.{suffix}", edges)
    assert datasets.main(["import", "mine", "--edges", f"edges.{suffix}"]) == 2
    assert "2,147,483,646 nodes: expected 64.4 GB of memory" in capsys.readouterr().err


def test_progress_of_parquet_is_that_of_the_whole_file() -> None:
    parquet.write_table(pyarrow.table({"id": np.arange(3 << 20)}), "nodes.parquet")
    table = Table.open(Path("nodes.parquet"), ["id"], TextOptions())
    read = [batch.bytes_read for batch in table.batches({"id": "int"})]
    assert len(read) > 1 and read == sorted(set(read))
