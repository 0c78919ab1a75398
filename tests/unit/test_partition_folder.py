"""A partition folder: what is written is what is opened, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from gnn_core.data.graph import Graph
from gnn_core.data.meta import META, meta_text
from gnn_core.data.partition.folder import PART, Partition, is_permutation, part_name
from gnn_core.data.partition.order import degree_heat, places_of
from gnn_core.usage import UsageError
from tests.unit.made_graphs import from_rows
from tests.unit.made_partitions import graph_on_disk, hash_partition


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("num_parts", [1, 3, 300])
@pytest.mark.parametrize("budget", [1, 200, 1 << 20])
def test_rows_are_those_of_the_graph(
    tmp_path: Path, dtype: str, num_parts: int, budget: int
) -> None:
    graph = graph_on_disk(tmp_path / "graph", dtype=dtype)
    partition = hash_partition(graph, num_parts, tmp_path / "p", topology=True, budget_bytes=budget)
    ids = np.arange(graph.num_nodes)
    owners, rows = partition.owners(ids), partition.rows(ids)
    assert (partition.num_features, partition.feature_dtype) == (5, dtype)
    assert sum(partition.part_nodes(part) for part in range(num_parts)) == graph.num_nodes
    for node in ids:
        part, row = owners[node], rows[node]
        assert partition.place[node] == partition.offsets[part] + row
        features = partition.part_features(part)
        assert features[row].tobytes() == graph.features[node].tobytes()
        indptr, indices = partition.part_topology(part)
        neighbours = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
        np.testing.assert_array_equal(indices[indptr[row] : indptr[row + 1]], neighbours)
    assert not list(tmp_path.glob("*.tmp-*"))


def test_the_hottest_nodes_of_a_part_come_first(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    partition = hash_partition(graph, 3, tmp_path / "p")
    degrees = np.diff(graph.indptr)[np.argsort(partition.place)]
    for low, high in zip(partition.offsets, partition.offsets[1:], strict=False):
        assert (np.diff(degrees[low:high]) <= 0).all()


def test_places_follow_part_heat_and_id() -> None:
    random = np.random.default_rng(3)
    parts = random.integers(0, 5, 400).astype(np.uint8)
    heat = random.integers(0, 256, 400).astype(np.uint8)
    place, offsets = places_of(parts, heat, 7)
    order = np.lexsort((np.arange(400), -heat.astype(int), parts))
    np.testing.assert_array_equal(np.argsort(place), order)
    np.testing.assert_array_equal(offsets, np.searchsorted(np.sort(parts), np.arange(8)))
    assert place.dtype == np.int32 and offsets[5] == offsets[7] == 400


def test_degrees_give_rising_levels() -> None:
    graph = from_rows([[], [0], [0, 1], [0, 1, 2, 4, 5], [], []])
    heat = degree_heat(graph)
    assert heat[0] == 0 and heat[1] < heat[2] < heat[3] and heat.dtype == np.uint8


def test_the_same_cut_gives_the_same_bytes(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    one, two = (hash_partition(graph, 4, tmp_path / name) for name in "ab")
    other = hash_partition(graph, 4, tmp_path / "c", seed=1)
    assert one.meta["checksums"] == two.meta["checksums"] and one.meta == two.meta
    assert other.meta["digest"] != one.meta["digest"]


def test_a_graph_without_features_or_edges(tmp_path: Path) -> None:
    graph = from_rows([[], [], [], []])
    partition = hash_partition(graph, 2, tmp_path / "p", topology=True)
    assert (partition.num_features, partition.feature_dtype) == (0, None)
    with pytest.raises(UsageError, match="features.npy: expected an array, got no such file"):
        partition.part_features(0)
    assert len(partition.part_topology(1)[1]) == 0


def test_a_partition_replaces_an_older_one(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 4, tmp_path / "p")
    partition = hash_partition(graph, 2, tmp_path / "p")
    assert partition.num_parts == 2
    assert not (tmp_path / "p" / "part-003").exists()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["graph", "p"]


def test_sparse_features_are_refused(tmp_path: Path) -> None:
    words = scipy.sparse.random_array((6, 50), density=0.05, rng=0, dtype=np.float32)
    graph = Graph.from_arrays("words", [0] * 7, [], words)
    with pytest.raises(UsageError, match="graph words: expected dense features, got sparse rows"):
        hash_partition(graph, 2, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_host_needs_its_own_parts_alone(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 4, tmp_path / "p")
    shutil.rmtree(tmp_path / "p" / "part-002")
    partition = Partition.open(tmp_path / "p", graph, parts=[0, 3])
    assert len(partition.part_features(3)) == partition.part_nodes(3)
    assert partition.part_bytes(2) == {} and partition.part_bytes(0)["features"] > 0
    with pytest.raises(UsageError, match="part-002: expected part 2 of the partition, got none"):
        Partition.open(tmp_path / "p", graph)


def _without_place(folder: Path) -> None:
    (folder / "place.npy").unlink()


def _truncated(folder: Path) -> None:
    file = folder / "part-001" / "features.npy"
    file.write_bytes(file.read_bytes()[:-4])


def _other_bytes(folder: Path) -> None:
    file = folder / "part-001" / "features.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def _a_pipe(folder: Path) -> None:
    (folder / "part-001" / "features.npy").unlink()
    os.mkfifo(folder / "part-001" / "features.npy")


def _other_shape(folder: Path) -> None:
    np.save(folder / "part-001" / "features.npy", np.zeros((3, 4), np.float32))


def _of_objects(folder: Path) -> None:
    np.save(folder / "part-001" / "features.npy", np.array([{}]), allow_pickle=True)


def _place(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        np.save(folder / "place.npy", change(np.load(folder / "place.npy")))

    return damage


def _out_of_range(place: np.ndarray) -> np.ndarray:
    place[7] = len(place)
    return place


def _negative(place: np.ndarray) -> np.ndarray:
    place[7] = -1
    return place


def _repeated(place: np.ndarray) -> np.ndarray:
    place[7] = place[8]
    return place


def _swapped(place: np.ndarray) -> np.ndarray:
    place[[7, 8]] = place[[8, 7]]
    return place


def _entry(key: str, value: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        meta = json.loads((folder / META).read_text())
        del meta["meta_sha256"]
        (folder / META).write_text(meta_text(meta | {key: value}))

    return damage


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_without_place, "place.npy: expected an array, got no such file"),
        (_truncated, "features.npy: expected a whole .npy file of numbers"),
        (_other_bytes, "features.npy: expected the bytes it was written with"),
        (_other_shape, r"features.npy: expected float32 of shape \[\d+, 5\], got float32 of shape"),
        (_of_objects, "features.npy: expected a whole .npy file of numbers"),
        (_place(_out_of_range), "place.npy: expected each row from 0 to 59 once, got others"),
        (_place(_negative), "place.npy: expected each row from 0 to 59 once"),
        (_place(_repeated), "place.npy: expected each row from 0 to 59 once"),
        (_place(_swapped), "place.npy: expected the bytes it was written with"),
        (_place(lambda place: place[:-1]), r"place.npy: expected int32 of shape \[60\]"),
        (_place(lambda place: place.astype(np.float32)), "place.npy: expected int32 of shape"),
        (_entry("num_parts", 4), "expected 5 offsets that rise from 0 to 60"),
        (_entry("num_parts", 2**40), "expected 1 to 4096 parts"),
        (_entry("num_parts", True), "expected num_parts of type int, got True"),
        (_entry("offsets", [0, 9, 3, 60]), "expected 4 offsets that rise from 0 to 60"),
        (_entry("offsets", [0, 1, 3, 61]), "expected 4 offsets that rise from 0 to 60"),
        (_entry("offsets", [0, "1", 3, 60]), "expected 4 offsets that rise from 0 to 60"),
        (_entry("feature_dtype", "float64"), "expected features of float32, float16, bfloat16"),
        (_entry("num_features", 7), r"features.npy: expected float32 of shape \[\d+, 7\]"),
        (_entry("kind", "graph"), "expected a partition of format 1, got kind 'graph'"),
        (_entry("format", 2), "expected a partition of format 1, got kind 'partition', format 2"),
        (lambda folder: (folder / META).write_text("[]"), "expected a partition of format 1"),
        (lambda folder: (folder / META).write_text("{"), "expected JSON"),
        (lambda folder: (folder / META).unlink(), "expected the folder of a partition"),
        (
            _a_pipe,
            "features.npy: expected a whole .npy file of numbers in C order, got a folder, a p",
        ),
        (lambda folder: (folder / "part-001" / PART).write_text("{"), "got part -1 of none"),
    ],
)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], line: str
) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 3, tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(UsageError, match=line):
        Partition.open(tmp_path / "p", graph)


@pytest.mark.parametrize("name", ["indptr", "indices"])
def test_a_damaged_topology_is_refused(tmp_path: Path, name: str) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 3, tmp_path / "p", topology=True)
    file = tmp_path / "p" / "part-002" / f"{name}.npy"
    array = np.load(file)
    array[1] = 60
    np.save(file, array)
    with pytest.raises(UsageError, match=f"{name}.npy: expected "):
        Partition.open(tmp_path / "p", graph)


def test_parts_of_another_run_are_refused(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 3, tmp_path / "a")
    hash_partition(graph, 3, tmp_path / "b", seed=1)
    shutil.rmtree(tmp_path / "a" / "part-001")
    shutil.copytree(tmp_path / "b" / "part-001", tmp_path / "a" / "part-001")
    with pytest.raises(UsageError, match="parts of different runs do not fit together"):
        Partition.open(tmp_path / "a", graph)


def test_parts_in_each_others_place_are_refused(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 2, tmp_path / "p")
    one, two = tmp_path / "p" / part_name(0), tmp_path / "p" / part_name(1)
    one.rename(tmp_path / "aside")
    two.rename(one)
    (tmp_path / "aside").rename(two)
    with pytest.raises(UsageError, match="expected part 0 of partition .* got part 1 of"):
        Partition.open(tmp_path / "p", graph)


def test_a_partition_of_another_graph_is_refused(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    hash_partition(graph, 3, tmp_path / "p")
    other = graph_on_disk(tmp_path / "other", dtype="float16")
    with pytest.raises(UsageError, match=r"expected a partition of graph made \(60 nodes, finger"):
        Partition.open(tmp_path / "p", other)


def test_a_folder_that_is_no_partition_is_refused(tmp_path: Path) -> None:
    graph = graph_on_disk(tmp_path / "graph")
    for folder in (tmp_path / "nowhere", tmp_path, tmp_path / "graph"):
        with pytest.raises(UsageError, match="expected the folder of a partition|of format 1"):
            Partition.open(folder, graph)


def test_a_permutation_is_told_from_others() -> None:
    place = np.random.default_rng(1).permutation(1001).astype(np.int32)
    assert is_permutation(place) and is_permutation(place[:0])
    place[4] = place[5]
    assert not is_permutation(place)
