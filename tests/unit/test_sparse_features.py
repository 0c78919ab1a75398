"""Sparse features stand for the dense ones: the same numbers to the last bit, in far less room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from gnn_core.data.checks import SPLIT_NAMES
from gnn_core.data.features import SPARSE_PARTS, SparseFeatures, compact
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.usage import UsageError

NODES, WORDS = 400, 1500


def bag_of_words(share: float = 0.01, nodes: int = NODES, words: int = WORDS) -> npt.NDArray:
    """Rows of words divided by their number, as the readers of citation graphs have them."""
    random = np.random.default_rng(4)
    has = random.random((nodes, words)) < share
    has[7] = False  # a paper without a word
    dense: npt.NDArray = (has / np.maximum(has.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return dense


def graph_with(features: Any) -> Graph:
    """A ring whose nodes also cite every 20th one."""
    nodes = np.arange(features.shape[0])
    citations = np.concatenate(
        [np.stack([nodes, (nodes + step) % len(nodes)], axis=1) for step in (1, 20)]
    )
    both = np.concatenate([citations, citations[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=len(nodes)))])
    splits = np.where(nodes % 5 < 3, SPLIT_NAMES.index("train"), nodes % 5 - 1).astype(np.uint8)
    return Graph.from_arrays(
        "words", indptr, both[:, 1], features, nodes % 4, splits, citations=citations
    )


def same_bits(ours: npt.NDArray, theirs: npt.NDArray) -> bool:
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def test_a_wide_bag_of_words_takes_little_room(tmp_path: Path) -> None:
    dense = bag_of_words()
    graph = write_graph(graph_with(dense), tmp_path / "g")
    assert isinstance(graph.features, SparseFeatures)
    assert not (tmp_path / "g" / "features.npy").exists()
    on_disk = sum((tmp_path / "g" / f"{part}.npy").stat().st_size for part in SPARSE_PARTS)
    assert on_disk * 25 < dense.nbytes
    assert (graph.num_features, graph.feature_dtype) == (WORDS, "float32")
    assert same_bits(np.asarray(graph.features), dense)


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (bag_of_words(0.2), "not sparse enough"),
        (bag_of_words(nodes=40), "small"),
        (bag_of_words().astype(np.float16), "16 bits: kept as it is"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_tables_stay_dense(tmp_path: Path, features: npt.NDArray, why: str) -> None:
    graph = write_graph(graph_with(features), tmp_path / "g")
    assert isinstance(graph.features, np.ndarray), why
    assert same_bits(np.asarray(graph.features), features)


def test_rows_are_those_of_the_dense_table() -> None:
    dense = bag_of_words()
    table = SparseFeatures.of(dense)
    assert table.shape == dense.shape and table.nbytes * 25 < dense.nbytes
    for rows in (np.array([7, 3, 3, 399]), slice(5, 20), slice(None), np.array([], np.int64)):
        assert same_bits(table[rows], dense[rows])


def test_no_bit_is_lost() -> None:
    dense = np.zeros((2, 3), np.float32)
    dense[0, 1], dense[1, 2] = -0.0, 1e-45  # a zero with a sign, and the smallest number
    assert same_bits(np.asarray(SparseFeatures.of(dense)), dense)


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_a_scipy_matrix_need_not_be_made_dense(tmp_path: Path, form: str) -> None:
    dense = bag_of_words()
    matrix = sparse.coo_array(dense.astype(np.float64)).asformat(form)
    graph = graph_with(matrix)
    opened = write_graph(graph, tmp_path / "g")
    assert isinstance(opened.features, SparseFeatures)
    assert same_bits(np.asarray(opened.features), dense)
    assert opened.fingerprint == graph.fingerprint == graph_with(dense).fingerprint


def test_words_that_are_listed_twice_count_twice() -> None:
    words = (np.ones(3), (np.array([0, 0, 1]), np.array([2, 2, 0])))
    assert SparseFeatures.of_scipy(sparse.coo_array(words, (2, 3)))[:].tolist() == [
        [0, 0, 2],
        [1, 0, 0],
    ]


def test_link_prediction_takes_them_over(tmp_path: Path) -> None:
    dense = bag_of_words()
    graph = write_graph(graph_with(dense), tmp_path / "g")
    held_out = link_graph(graph, LinkSplit("random", 0.1, 3, 0), tmp_path)
    assert isinstance(held_out.features, SparseFeatures)
    assert same_bits(np.asarray(held_out.features), dense)


def replaced(name: str, change: Callable[[npt.NDArray], npt.NDArray]) -> SparseFeatures:
    parts = SparseFeatures.of(bag_of_words()).parts()
    parts[name] = change(parts[name].copy())
    indptr, columns, values = (parts[part] for part in SPARSE_PARTS)
    return SparseFeatures(indptr, columns, values, WORDS)


def at(place: int, value: float) -> Callable[[npt.NDArray], npt.NDArray]:
    def change(array: npt.NDArray) -> npt.NDArray:
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("features_indptr", at(-1, 5), "features_indptr: expected offsets from 0 to"),
        ("features_indptr", at(3, 9999), "features_indptr: expected elements that never decrease"),
        ("features_indptr", lambda a: a.astype(np.int32), "features_indptr: expected dtype int64"),
        ("features_columns", at(4, WORDS), "features_columns: expected columns from 0 to 1499"),
        ("features_columns", at(4, -1), "features_columns: expected columns from 0 to 1499"),
        ("features_columns", lambda a: a[::-1].copy(), "expected ascending columns in each row"),
        ("features_columns", lambda a: a.astype(np.int64), "features_columns: expected dtype int3"),
        ("features_values", at(0, np.nan), "features_values: expected finite numbers, got a NaN"),
        ("features_values", lambda a: a[1:], "features_values: expected .* numbers, got"),
        ("features_values", lambda a: a.astype(float), "features_values: expected dtype float32"),
    ],
)
def test_what_cannot_be_a_table_is_refused(
    name: str, change: Callable[[npt.NDArray], npt.NDArray], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        graph_with(replaced(name, change))


def test_a_missing_part_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    write_graph(graph_with(bag_of_words()), folder)
    (folder / "features_values.npy").unlink()
    with pytest.raises(UsageError, match="features_values.npy: expected a file listed in meta"):
        Graph.open(folder)


def test_compact_leaves_a_sparse_table_alone() -> None:
    table = SparseFeatures.of(bag_of_words())
    assert compact(table) is table
