"""Planetoid and LINQS files: the published counts, small graphs made here, and damaged files."""

from __future__ import annotations

import pickle
import re
import sys
import types
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data import linqs, planetoid
from gnn_core.data.graph import Graph
from gnn_core.data.progress import silent
from gnn_core.usage import UsageError

NUM_KNOWN, TEST = 510, [514, 511, 512]  # 513 is in no file: isolated, as 15 papers of CiteSeer
NUM_WORDS, NUM_CLASSES = 6, 3


class FakeMatrix:
    """Pickles as SciPy 0.x did under Python 2."""

    def __init__(self, dense: npt.NDArray) -> None:
        """Hold the matrix in CSR."""
        self.format = "csr"
        self._shape = dense.shape
        self.indptr = np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]).astype(np.int32)
        self.indices = np.nonzero(dense)[1].astype(np.int32)
        self.data = dense[dense != 0].astype(np.float32)


FakeMatrix.__name__ = FakeMatrix.__qualname__ = "csr_matrix"
FakeMatrix.__module__ = "scipy.sparse.csr"


def words(num_rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Make rows of words, some of them without any."""
    return (np.random.default_rng(seed).random((num_rows, NUM_WORDS)) < 0.3).astype(np.float32)


def one_hot(num_rows: int, seed: int) -> npt.NDArray[np.int32]:
    """Make rows with a single 1."""
    return np.eye(NUM_CLASSES, dtype=np.int32)[
        np.random.default_rng(seed).integers(0, NUM_CLASSES, num_rows)
    ]


@pytest.fixture
def parts() -> dict[str, Any]:
    """Give the contents of the eight files of a small graph."""
    allx, ally = words(NUM_KNOWN, 1), one_hot(NUM_KNOWN, 2)
    graph = defaultdict(list, {node: [(node + 1) % NUM_KNOWN] for node in range(NUM_KNOWN)})
    for node in range(NUM_KNOWN):
        graph[(node + 1) % NUM_KNOWN].append(node)
    graph[0] += [0, 1, 514]  # a self-loop and a repeat, as the published files have
    graph[514] = [0]
    return {
        "x": allx[:9],
        "y": ally[:9],
        "allx": allx,
        "ally": ally,
        "tx": words(3, 3),
        "ty": one_hot(3, 4),
        "graph": graph,
    }


@pytest.fixture
def raw(parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the small graph as Planetoid files."""
    module = types.ModuleType("scipy.sparse.csr")
    module.csr_matrix = FakeMatrix  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scipy.sparse.csr", module)
    for part, value in parts.items():
        content = FakeMatrix(value) if part in ("x", "tx", "allx") else value
        (tmp_path / f"ind.small.{part}").write_bytes(pickle.dumps(content, protocol=2))
    (tmp_path / "ind.small.test.index").write_text("".join(f"{node}\n" for node in TEST))
    return tmp_path


def test_planetoid_puts_everything_in_its_place(raw: Path, parts: dict[str, Any]) -> None:
    features, labels, splits, edges = planetoid.read("small", raw)
    assert features.shape == (515, NUM_WORDS) and features.dtype == np.float32
    np.testing.assert_array_equal(features[:NUM_KNOWN], parts["allx"])
    np.testing.assert_array_equal(features[TEST], parts["tx"])
    np.testing.assert_array_equal(labels[TEST], parts["ty"].argmax(axis=1))
    assert not features[513].any() and labels[513] == 0 and splits[513] == 0
    found = [np.flatnonzero(splits == value) for value in (1, 2, 3)]
    assert [f.tolist() for f in found] == [[*range(9)], [*range(9, 509)], sorted(TEST)]
    assert splits[509] == splits[510] == 0


def test_planetoid_becomes_a_graph(raw: Path, tmp_path: Path) -> None:
    counts = planetoid.Counts(515, 2 * NUM_KNOWN + 2, NUM_WORDS, NUM_CLASSES)
    planetoid.convert("small", raw, tmp_path / "g", {"reader": "r"}, silent, counts)
    graph = Graph.open(tmp_path / "g")
    assert graph.indices[graph.indptr[0] : graph.indptr[1]].tolist() == [1, 509, 514]
    assert graph.indptr[514] == graph.indptr[513], "node 513 has no edges"
    sums = np.asarray(graph.features).sum(axis=1)
    assert np.all(np.isclose(sums, 1) | (sums == 0))
    assert graph.meta["provenance"]["reader"] == "r" and graph.citations is None


def test_counts_that_differ_from_the_published_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 516 nodes, .* got 515 nodes"):
        counts = planetoid.Counts(516, 2 * NUM_KNOWN + 2, NUM_WORDS, NUM_CLASSES)
        planetoid.convert("small", raw, tmp_path / "g", {}, silent, counts)
    assert not list(tmp_path.glob("g*"))


class Malice:
    """Unpickled by the plain unpickler, it creates a file."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        """Ask for `open(path, "w")`."""
        return open, (str(self.path), "w")


def test_a_pickle_cannot_call_what_it_likes(raw: Path) -> None:
    bomb = pickle.dumps({0: [Malice(raw / "boom")]}, protocol=2)
    pickle.loads(bomb)[0][0].close()
    (raw / "boom").unlink()  # so it would have worked
    (raw / "ind.small.graph").write_bytes(bomb)
    with pytest.raises(UsageError, match="ind.small.graph: .* asks for .*open"):
        planetoid.read("small", raw)
    assert not (raw / "boom").exists()


def _shared_lists() -> bytes:
    """A small file in which every node has the same many neighbours."""
    many = list(range(200)) * 20
    return pickle.dumps(dict.fromkeys(range(500), many), 2)


PLANETOID_DAMAGE = [
    ("graph", b"", "ind.small.graph: expected a Planetoid file"),
    ("allx", b"\x80\x02garbage", "ind.small.allx: expected a Planetoid file"),
    ("y", pickle.dumps([1, 2], 2), "ind.small.y: expected a matrix of numbers, got list"),
    ("graph", pickle.dumps({0: [5000]}, 2), "ind.small.graph: expected nodes from 0 to 514, got"),
    ("graph", pickle.dumps([1], 2), "ind.small.graph: expected a dict of lists"),
    ("test.index", b"511\n512\n", "test.index 2 from 511"),
    ("test.index", b"one\n", "ind.small.test.index: expected a Planetoid file"),
    ("test.index", b"511.5\n512\n514\n", "test.index: expected node ids .*, got 511.5"),
    ("test.index", b"511\n511\n514\n", "test.index 3 from 511"),
    ("test.index", b"511\n512\n999999999999\n", "test.index 3 from 511"),
    ("graph", pickle.dumps({0: [0.5]}, 2), "ind.small.graph: expected whole numbers"),
    ("graph", pickle.dumps({0: ["1"]}, 2), "ind.small.graph: expected whole numbers"),
    ("graph", pickle.dumps({0.5: [1]}, 2), "ind.small.graph: expected whole numbers"),
    ("graph", pickle.dumps({0: [2**70]}, 2), "ind.small.graph: expected nodes"),
    ("graph", pickle.dumps({0: "12"}, 2), "ind.small.graph: expected a dict of lists"),
    ("graph", _shared_lists(), "ind.small.graph: expected a list of its own for each node"),
    ("y", pickle.dumps(np.zeros((9, 3)), 2), "ind.small.y: expected a 1 for the class"),
    ("y", pickle.dumps(np.ones((9, 3)), 2), "ind.small.y: expected a 1 for the class"),
    ("y", pickle.dumps(np.full((9, 3), 1 / 3), 2), "ind.small.y: expected a 1 for the class"),
    ("y", pickle.dumps(np.eye(9, 3) * 1j, 2), "ind.small.y: .*, got numbers of"),
    ("x", pickle.dumps(np.full((9, 12), np.nan), 2), "ind.small.x: expected finite numbers"),
    ("x", pickle.dumps(np.full((9, 12), 1e300), 2), "ind.small.x: .* that fit float32"),
    ("x", pickle.dumps(np.array([[None]]), 2), "ind.small.x: .*, got numbers"),
    ("tx", None, "ind.small.tx: expected a Planetoid file, got none"),
]


@pytest.mark.parametrize(("part", "content", "message"), PLANETOID_DAMAGE)
def test_damaged_planetoid_files_are_refused(
    raw: Path, part: str, content: bytes | None, message: str
) -> None:
    path = raw / f"ind.small.{part}"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        planetoid.read("small", raw)
    line = str(caught.value)
    assert re.search(message, line) and "\n" not in line and str(raw) in line


@pytest.mark.parametrize(
    ("name", "folder", "num_train"), [("cora", "Cora", 140), ("citeseer", "CiteSeer", 120)]
)
def test_the_published_planetoid_graphs(
    real_data_root: Path, tmp_path: Path, name: str, folder: str, num_train: int
) -> None:
    raw = real_data_root / "planetoid" / folder / "raw"
    if not raw.is_dir():
        pytest.skip(f"no {folder} in the data root")
    planetoid.convert(name, raw, tmp_path / "g", {}, silent)  # checks the four counts
    graph = Graph.open(tmp_path / "g")
    sizes = [len(graph.split(which)) for which in ("train", "valid", "test")]
    assert sizes == [num_train, 500, 1000]
    per_class = np.bincount(graph.labels[graph.split("train")])
    assert (per_class == 20).all()


@pytest.fixture
def cora_files(tmp_path: Path) -> Path:
    """Write four papers as LINQS files."""
    (tmp_path / "cora.content").write_text("12 1 0 1 B\n7 0 0 0 A\n31 0 1 0 B\nx9 1 1 1 C\n")
    (tmp_path / "cora.cites").write_text("12\t7\n7\t31\n31 7\nx9\t12\n")
    return tmp_path


def test_linqs_keeps_who_cites_whom(cora_files: Path) -> None:
    linqs.convert("four", cora_files, cora_files / "g", {}, silent)
    graph = Graph.open(cora_files / "g")
    assert graph.citations.tolist() == [[1, 0], [2, 1], [1, 2], [0, 3]]
    assert graph.labels.tolist() == [1, 0, 1, 2]
    assert graph.meta["provenance"]["class_names"] == ["A", "B", "C"]
    assert graph.indptr.tolist() == [0, 2, 4, 5, 6] and graph.indices.tolist() == [1, 3, 0, 2, 1, 0]
    np.testing.assert_allclose(graph.features[0], [0.5, 0, 0.5])


def test_linqs_splits_are_balanced_and_always_the_same() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 2708)
    splits = linqs.draw_splits(labels)
    assert np.bincount(splits).tolist() == [2708 - 1640, 140, 500, 1000]
    assert np.bincount(labels[splits == 1]).tolist() == [20] * 7
    np.testing.assert_array_equal(splits, linqs.draw_splits(labels))


LINQS_DAMAGE = [
    ("cora.content", "", "expected papers, got an empty file"),
    ("cora.content", "12 1 0 1 B\n7 0 0 A\n", "line 2: expected 3 words .* got 2 words of paper 7"),
    ("cora.content", "12 1 0 1 B\n12 0 0 0 A\n", "line 2: expected 3 words of a paper not yet"),
    ("cora.content", "12 nan 0 1 B\n", "line 1: expected words as 0 or 1, got nan"),
    ("cora.content", "12 1 0.5 1 B\n", "line 1: expected words as 0 or 1, got 0.5"),
    ("cora.content", "12\n", "line 1: expected some words"),
    ("cora.content", "12 1 q 1 B\n", "line 1: expected words as 0 or 1"),
    ("cora.cites", "12 7\n12 99\n", "line 2: expected two papers of cora.content, got 12 99"),
    ("cora.cites", "12\n", "line 1: expected two papers"),
]


@pytest.mark.parametrize(("file", "text", "message"), LINQS_DAMAGE)
def test_damaged_linqs_files_are_refused(
    cora_files: Path, file: str, text: str, message: str
) -> None:
    (cora_files / file).write_text(text)
    with pytest.raises(UsageError) as caught:
        linqs.convert("four", cora_files, cora_files / "g", {}, silent)
    assert re.search(message, str(caught.value)) and file in str(caught.value)


def test_the_two_published_coras_are_one_graph(real_data_root: Path, tmp_path: Path) -> None:
    """They number papers and words differently; whatever does not depend on that agrees."""
    graphs = []
    for reader, place in ((planetoid, "planetoid/Cora/raw"), (linqs, "linqs-cora/raw/cora")):
        raw = real_data_root / place
        if not raw.is_dir():
            pytest.skip(f"no {place} in the data root")
        folder = tmp_path / reader.__name__
        reader.convert("cora", raw, folder, {}, silent)
        graphs.append(Graph.open(folder))
    one, two = graphs
    assert (one.num_nodes, one.num_edges) == (two.num_nodes, two.num_edges) == (2708, 10556)
    assert sorted(np.diff(one.indptr)) == sorted(np.diff(two.indptr))
    assert sorted(np.bincount(one.labels)) == sorted(np.bincount(two.labels))
    per_paper = [np.sort((np.asarray(g.features) > 0).sum(axis=1)) for g in graphs]
    np.testing.assert_array_equal(*per_paper)
    assert len(two.citations) == 5429


def matrix(**changes: Any) -> FakeMatrix:
    """Nine rows of words as they are published, but for `changes`."""
    made = FakeMatrix(words(9, 1))
    vars(made).update(changes)
    return made


MATRICES: list[dict[str, Any]] = [
    {"_shape": (10**9, 10**6)},
    {"_shape": (9, 10**12), "indptr": np.zeros(10, np.int32)},
    {"_shape": (-1, 4)},
    {"_shape": "ab"},
    {"_shape": (9,)},
    {"indices": np.full(3, 10**6)},
    {"indptr": np.zeros(3)},
    {"indptr": np.full(10, np.nan)},
    {"data": 3},
    {"indices": [1, 2]},
    {"indptr": np.array([0, 5, 3, 5, 5, 5, 5, 5, 5, 5])},
]


@pytest.mark.parametrize("changes", MATRICES, ids=map(str, range(len(MATRICES))))
def test_a_matrix_that_claims_what_it_has_not_is_refused(
    raw: Path, changes: dict[str, Any]
) -> None:
    (raw / "ind.small.x").write_bytes(pickle.dumps(matrix(**changes), protocol=2))
    with pytest.raises(UsageError) as caught:
        planetoid.read("small", raw)
    assert "\n" not in str(caught.value)
