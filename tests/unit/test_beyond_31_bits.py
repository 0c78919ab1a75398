"""More than 2**31 edges: rows that lie beyond are drawn, gathered and marked as any others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.data import csr, positions
from gnn_core.data.checks import Subject, check_arrays
from gnn_core.data.graph import Graph
from gnn_core.data.mapped import map_array
from gnn_core.data.neighbourhood import all_neighbours, chunks, reach, shares
from gnn_core.data.sampler import Sampler

NUM_NODES = 2000
HOLE = 2**31 - 40  # neighbours of node 0, all of them node 0: the next rows lie across 2**31


@pytest.fixture(scope="module")
def small() -> Graph:
    """Give nodes of 0 to 30 neighbours, of which node 0 has none and is none."""
    random = np.random.default_rng(1)
    degrees = random.integers(0, 31, NUM_NODES)
    degrees[0] = 0
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = random.integers(1, NUM_NODES, indptr[-1], np.int32)
    labels = random.integers(0, 3, NUM_NODES, np.int32)
    return Graph("small", None, indptr, indices, labels=labels)


@pytest.fixture(scope="module")
def large(small: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """Give the same rows behind one of 2**31 edges, in a file that is a hole but for its end."""
    path = tmp_path_factory.mktemp("large") / "indices.npy"
    shape = (HOLE + small.num_edges,)
    try:
        with path.open("wb") as file:
            header = {"descr": "<i4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.seek(4 * HOLE, 1)
            file.write(small.indices.tobytes())
    except OSError as error:
        pytest.skip(f"no sparse file of 8 GiB here: {error}")
    if path.stat().st_blocks * 512 > 2**24:
        path.unlink()
        pytest.skip("this file system writes out the zeros of a sparse file")
    indices = map_array(path, Subject("large", path.parent))
    assert indices is not None and len(indices) > 2**31
    indptr = small.indptr + HOLE
    indptr[0] = 0
    yield Graph("large", path.parent, indptr, indices, labels=small.labels)
    path.unlink()


@pytest.fixture(params=["table", "hash"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "HASHED_FROM", 0 if request.param == "hash" else 2**40)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("fanouts", [(5, 3), (-1, 10, 2)])
def test_draws_are_the_same(small: Graph, large: Graph, fanouts: tuple[int, ...]) -> None:
    targets = np.arange(1, NUM_NODES, 7)
    blocks, nodes = Sampler(small, fanouts).sample(targets, 9)
    others, other_nodes = Sampler(large, fanouts).sample(targets, 9)
    assert np.array_equal(nodes, other_nodes)
    for block, other in zip(blocks, others, strict=True):
        assert np.array_equal(block.offsets, other.offsets)
        assert np.array_equal(block.columns, other.columns)


def test_a_node_of_2_31_neighbours_draws_some(large: Graph) -> None:
    (block,), nodes = Sampler(large, (4,)).sample(np.array([0, 5]), 1)
    assert block.offsets[1] == 4
    assert nodes[block.columns[:4]].tolist() == [0] * 4


def test_whole_neighbourhoods_are_the_same(small: Graph, large: Graph) -> None:
    ids = np.arange(1, NUM_NODES)
    for part in chunks(large, ids, 100, 500):
        (block, nodes), (other, other_nodes) = (all_neighbours(g, part) for g in (small, large))
        assert np.array_equal(nodes, other_nodes)
        assert np.array_equal(block.offsets, other.offsets)
    some = ids[::97]
    for one, another in zip(reach(small, some, 2), reach(large, some, 2), strict=True):
        assert np.array_equal(one, another)
    assert np.array_equal(shares(small, ids, 3), shares(large, ids, 3))


def test_a_block_of_more_edges_is_refused(large: Graph) -> None:
    with pytest.raises(OverflowError):
        all_neighbours(large, np.array([0, *range(1, 20)]))


def test_such_a_graph_is_opened_with_samples_of_it(small: Graph, large: Graph) -> None:
    arrays = {"indptr": large.indptr, "indices": large.indices, "labels": large.labels}
    check_arrays(Subject("large", large.folder), arrays, 3, full=False)
    arrays["indptr"] = small.indptr
    with pytest.raises(Exception, match="indptr: expected the number of edges, 21"):
        check_arrays(Subject("large", None), arrays, 3, full=False)


def test_ranges_of_nodes_are_counted_beyond_2_31_edges() -> None:
    degrees = np.array([2**31 - 1, 2**31 - 1, 5, 2**31 - 1], np.int32)
    assert csr._ranges(degrees, 4, 10 * 2**31) == [0, 3, 4]
    assert csr._ranges(degrees, 4, 2**40) == [0, 4]


@pytest.mark.parametrize("edge", [(1, 0), (0, 1), (0, 0)])
def test_a_node_that_repeats_would_give_2_31_edges_is_noticed(edge: tuple[int, int]) -> None:
    edges: npt.NDArray[np.int64] = np.array([edge])
    for degree, overflows in ((2**31 - 1, True), (2**31 - 2, False)):
        degrees = np.array([degree, 0], np.int32)
        assert bool(csr._count(edges, degrees, True, True)) == overflows
