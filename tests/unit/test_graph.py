"""Graph and its folder: what is written is what is read; what is wrong is reported in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data import checks
from gnn_core.data.features import decode_features, encode_features
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.store import GraphWriter, array_sha256, file_sha256
from gnn_core.usage import UsageError

NODE_ARRAYS = [name for name in checks.ARRAY_NAMES if name not in checks.LINK_ARRAYS]


def arrays(**changes: Any) -> dict[str, Any]:
    """Make four nodes in a ring: everything that Graph.from_arrays takes, with changes."""
    given: dict[str, Any] = {
        "indptr": np.array([0, 2, 4, 6, 8]),
        "indices": np.array([1, 3, 0, 2, 1, 3, 0, 2]),
        "features": np.arange(12, dtype=np.float32).reshape(4, 3),
        "labels": np.array([0, 1, 2, 1]),
        "splits": np.array([1, 1, 2, 3]),
        "years": np.array([2001, 2001, 2002, 2003]),
        "citations": np.array([[1, 0], [2, 1], [3, 2], [3, 0]]),
    }
    return given | changes


@pytest.fixture
def ring() -> Graph:
    """Give the ring in memory."""
    return Graph.from_arrays("ring", **arrays())


@pytest.fixture
def folder(ring: Graph, tmp_path: Path) -> Path:
    """Give the ring on disk."""
    write_graph(ring, tmp_path / "ring")
    return tmp_path / "ring"


def refused(call: Callable[[], object]) -> str:
    """Give the one line with which a call is refused."""
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_it_says_of_itself(ring: Graph) -> None:
    assert (ring.num_nodes, ring.num_edges, ring.num_features, ring.num_classes) == (4, 8, 3, 3)
    assert ring.indptr.dtype == np.int64
    assert ring.indices.dtype == ring.labels.dtype == ring.years.dtype == np.int32
    assert ring.splits.dtype == np.uint8
    assert ring.feature_dtype == "float32"
    assert [ring.split(which).tolist() for which in ("train", "valid", "test")] == [
        [0, 1],
        [2],
        [3],
    ]
    assert ring.split("train").dtype == np.int64
    assert "4 nodes, 8 edges" in repr(ring)


def test_written_and_opened_it_is_the_same(ring: Graph, folder: Path) -> None:
    opened = Graph.open(folder, verify=True)
    for name in NODE_ARRAYS:
        mapped = getattr(opened, name)
        assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
        np.testing.assert_array_equal(mapped, getattr(ring, name))
        assert mapped.dtype == getattr(ring, name).dtype
    assert opened.fingerprint == ring.fingerprint
    assert opened.name == "ring" and opened.folder == folder
    assert [path.name for path in folder.parent.iterdir()] == ["ring"], "something was left behind"


def test_checksums_are_those_of_the_files(folder: Path) -> None:
    sums = json.loads((folder / "meta.json").read_text())["checksums"]
    assert set(sums) == {f"{name}.npy" for name in NODE_ARRAYS}
    assert all(file_sha256(folder / file) == digest for file, digest in sums.items())
    assert sums["indices.npy"] == array_sha256(np.load(folder / "indices.npy"))


def test_only_the_adjacency_is_required(tmp_path: Path) -> None:
    bare = write_graph(Graph.from_arrays("bare", [0, 0, 0], []), tmp_path / "bare")
    assert (bare.num_nodes, bare.num_edges, bare.num_features, bare.num_classes) == (2, 0, 0, 0)
    assert bare.features is None and bare.feature_dtype is None and bare.splits is None
    assert "splits" in refused(lambda: bare.split("train"))


def test_the_fingerprint_tells_graphs_apart(ring: Graph) -> None:
    others = [
        arrays(indices=[1, 2, 0, 2, 1, 3, 0, 2]),
        arrays(labels=[0, 1, 2, 2]),
        arrays(features=np.ones((4, 3), np.float16)),
        arrays(years=None),
        arrays(num_classes=5),
    ]
    prints = {Graph.from_arrays("ring", **other).fingerprint for other in others}
    assert len(prints | {ring.fingerprint}) == len(others) + 1
    assert Graph.from_arrays("another name", **arrays()).fingerprint == ring.fingerprint


def test_features_of_every_dtype(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [3.140625, 1e-3], [0.0, 65280.0], [7, 8]], np.float32)
    for dtype, relative in (("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8)):
        stored = encode_features(values, dtype)
        graph = write_graph(Graph.from_arrays("g", **arrays(features=stored)), tmp_path / dtype)
        assert graph.feature_dtype == dtype
        np.testing.assert_allclose(decode_features(graph.features), values, rtol=relative)


def test_bfloat16_rounds_to_nearest_even() -> None:
    # 1 + 2**-8 lies half-way between two neighbours: the even one is 1; above it, 1 + 2**-7.
    values = np.array([1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)
    expected = [1, 1 + 2**-7, 1 + 2**-6, -1]
    assert decode_features(encode_features(values, "bfloat16")).tolist() == expected


WRONG = [
    ({"indptr": [1, 2, 4, 6, 8]}, "indptr: expected 0 as first element, got 1"),
    ({"indptr": [0, 2, 4, 6, 7]}, "indptr: .* number of edges, 8, as last element, got 7"),
    ({"indptr": [0, 5, 4, 6, 8]}, "indptr: .* never decrease, got 5 followed by 4 at node 1"),
    ({"indptr": [[0, 8]]}, "indptr: expected one dimension"),
    ({"indptr": [0]}, "indptr: expected at least one node"),
    ({"indices": [1, 3, 0, 2, 1, 4, 0, 2]}, "indices: expected node ids from 0 to 3, got 4"),
    ({"indices": [1, 3, 0, 2, 1, -1, 0, 2]}, "indices: expected node ids from 0 to 3, got -1"),
    ({"indices": [0.5] * 8}, "indices: expected integers, got float64"),
    ({"indices": [2**40] * 8}, "indices: expected values that fit int32"),
    ({"citations": [[0, 4]]}, "citations: expected node ids from 0 to 3, got 4"),
    ({"citations": [[0, 1, 2]]}, r"citations: expected shape \[any, 2\]"),
    ({"features": np.zeros((3, 2))}, r"features: .* \[4, any\] \(4 nodes\), got \[3, 2\]"),
    ({"features": np.zeros((4, 0))}, "features: expected at least one column"),
    ({"features": [[0, 1], [2, 3], [4, np.nan], [6, 7]]}, "features: .* at node 2, feature 1"),
    ({"features": np.full((4, 1), np.inf, np.float16)}, "features: expected finite numbers"),
    ({"features": np.full((4, 1), 0x7F80, np.uint16)}, "features: expected finite numbers"),
    ({"labels": [0, 1, 2]}, r"labels: expected shape \[4\]"),
    ({"labels": [0, 1, 2, -2]}, "labels: expected classes from 0 to 2, or -1 for none, got -2"),
    ({"labels": [0, 1, 2, 1], "num_classes": 2}, "labels: expected classes from 0 to 1"),
    ({"labels": [-1, 1, 2, 1]}, "labels: .* every node of a split, got -1 at node 0"),
    ({"splits": [0, 0, 2, 3]}, "splits: expected at least one train node"),
    ({"splits": [1, 1, 2, 4]}, "splits: expected 0 .none., .* got 4"),
    ({"years": [[2001]] * 4}, r"years: expected shape \[4\]"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_arrays_are_refused(changes: dict[str, Any], message: str) -> None:
    line = refused(lambda: Graph.from_arrays("ring", **arrays(**changes)))
    assert re.search(message, line), line
    assert line.startswith("graph ring: ") and "change what is passed" in line


def test_a_node_without_split_needs_no_label() -> None:
    graph = Graph.from_arrays("ring", **arrays(labels=[0, 1, 2, -1], splits=[1, 2, 3, 0]))
    assert graph.labels.tolist() == [0, 1, 2, -1]


def _rewrite(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))


def _truncate(folder: Path) -> None:
    data = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(data[:-8])


def _set_meta(folder: Path, **changes: Any) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no file", lambda d: (d / "labels.npy").unlink(), "labels.npy: .* got no such file"),
    ("truncated", _truncate, "features.npy: expected a whole .npy file"),
    (
        "empty file",
        lambda d: (d / "years.npy").write_bytes(b""),
        "years.npy: expected a whole .npy",
    ),
    ("text", lambda d: (d / "years.npy").write_text("x" * 200), "years.npy: expected a whole .npy"),
    (
        "pickled objects",
        lambda d: np.save(d / "years.npy", np.array([None] * 4), allow_pickle=True),
        "years.npy: expected a whole .npy file",
    ),
    (
        "dtype",
        lambda d: _rewrite(d, "indptr", lambda a: a.astype(np.int32)),
        "indptr.npy: expected dtype int64, got int32",
    ),
    (
        "feature dtype",
        lambda d: _rewrite(d, "features", lambda a: a.astype(np.float16)),
        "features.npy: expected feature_dtype float32 as in meta.json, got float16",
    ),
    (
        "shape",
        lambda d: _rewrite(d, "splits", lambda a: a[:3]),
        r"splits.npy: expected shape \[4\] \(4 nodes\), got \[3\]",
    ),
    (
        "fewer nodes",
        lambda d: _rewrite(d, "indptr", lambda a: a[:4]),
        "indptr.npy: expected num_nodes 4 as in meta.json, got 3",
    ),
    (
        "a flipped bit",
        lambda d: _rewrite(d, "features", lambda a: a + np.eye(4, 3, dtype=np.float32)),
        "features.npy: expected sha256 .*, got ",
    ),
    (
        "bounds",
        lambda d: _rewrite(d, "indices", lambda a: a + 1),
        "indices.npy: expected node ids from 0 to 3, got 4",
    ),
    ("no meta", lambda d: (d / "meta.json").unlink(), "meta.json: .* got no such file"),
    ("not JSON", lambda d: (d / "meta.json").write_text("{"), "meta.json: expected JSON"),
    ("a list", lambda d: (d / "meta.json").write_text("[]"), "expected schema 1, got list"),
    ("schema", lambda d: _set_meta(d, schema=99), "meta.json: expected schema 1, got 99"),
    ("count", lambda d: _set_meta(d, num_classes="many"), "expected num_classes of type int"),
    ("classes", lambda d: _set_meta(d, num_classes=2), "labels.npy: expected classes from 0 to 1"),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_a_damaged_folder_is_refused(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    Graph.open(folder)
    damage(folder)
    line = refused(lambda: Graph.open(folder))
    assert re.search(message, line), line
    assert str(folder) in line


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "got nothing there" in refused(lambda: Graph.open(tmp_path / "none"))


def test_of_a_huge_graph_samples_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `verify` the checksums are not read, the ends of each array still are."""
    monkeypatch.setattr("gnn_core.data.store.SMALL_BYTES", 0)
    _rewrite(folder, "features", lambda a: a + 1)
    Graph.open(folder)
    assert "sha256" in refused(lambda: Graph.open(folder, verify=True))
    _rewrite(folder, "indices", lambda a: a + 1)
    assert "indices.npy" in refused(lambda: Graph.open(folder))


def test_spans_cover_or_sample() -> None:
    whole = [i for span in checks.spans(50_000_000, 8, True) for i in (span.start, span.stop)]
    assert whole[0] == 0 and whole[-1] == 50_000_000 and whole[1:-1:2] == whole[2:-1:2]
    sampled = list(checks.spans(50_000_000, 8, False))
    seen = sum(span.stop - span.start for span in sampled)
    assert sampled[0].start == 0 and sampled[-1].stop == 50_000_000 and seen < 3_000_000


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), GraphWriter(tmp_path / "g", "g") as writer:
        writer.put("indptr", np.array([0, 0]))
        assert list(tmp_path.iterdir()) == [writer.staging]
        raise RuntimeError
    with pytest.raises(UsageError), GraphWriter(tmp_path / "g", "g") as writer:
        writer.put("indptr", np.array([0, 1]))
        writer.put("indices", np.array([7], np.int32))
        writer.finish()
    with pytest.raises(ValueError, match="expected 3 rows, got 2"):
        with GraphWriter(tmp_path / "g", "g") as writer:
            with writer.stream("labels", np.int32, (3,)) as sink:
                sink.write(np.zeros(2, np.int32))
    assert not list(tmp_path.iterdir())


def test_a_stream_of_unknown_length_is_a_plain_npy_file(tmp_path: Path) -> None:
    pieces = [np.arange(6, dtype=np.int32).reshape(3, 2), np.ones((70_000, 2), np.int32)]
    with GraphWriter(tmp_path / "g", "g") as writer:
        with writer.stream("citations", np.int32, (None, 2)) as sink:
            for piece in pieces:
                sink.write(piece)
            with pytest.raises(ValueError, match="expected rows of int32"):
                sink.write(np.ones((2, 3), np.int32))
        whole = np.concatenate(pieces)
        np.testing.assert_array_equal(np.load(writer.path("citations")), whole)
        assert writer.checksums["citations.npy"] == array_sha256(whole)


def test_writing_replaces_an_older_folder(folder: Path) -> None:
    old = Graph.open(folder)
    new = write_graph(Graph.from_arrays("ring", **arrays(years=None)), folder)
    assert new.years is None and not (folder / "years.npy").exists()
    assert old.years.tolist() == [2001, 2001, 2002, 2003], "an open graph lost its pages"
    assert [path.name for path in folder.parent.iterdir()] == ["ring"]


def test_a_folder_of_something_else_is_not_replaced(ring: Graph, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all of it")
    with pytest.raises(UsageError, match="got one that holds 'chapter.tex', which would be lost"):
        write_graph(ring, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "all of it"
    (tmp_path / "empty").mkdir()
    assert write_graph(ring, tmp_path / "empty").num_nodes == 4
    for place in (tmp_path / "thesis" / "chapter.tex", tmp_path / "thesis" / "chapter.tex" / "g"):
        with pytest.raises(UsageError, match="cannot write .*; choose another folder"):
            write_graph(ring, place)
