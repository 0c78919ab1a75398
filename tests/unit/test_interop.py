"""Objects of other libraries become the same graph, and PyG's `Data` comes back as it went."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx
import numpy as np
import pandas
import pytest
from scipy import sparse

from gnn_core.data import datasets
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.interop import as_graph, from_dgl, from_edges, from_ogb, from_pandas, from_scipy
from gnn_core.usage import UsageError

# Four nodes; an edge twice and one from a node to itself.
EDGES = np.array([[0, 1], [1, 2], [1, 2], [3, 3]])
FEATURES = np.arange(8, dtype=np.float32).reshape(4, 2)
LABELS, SPLITS = np.array([0, 1, 1, 0]), np.array([1, 2, 3, 0])
MASKS = {mask: SPLITS == at for at, mask in enumerate(("train_mask", "val_mask", "test_mask"), 1)}


def assert_whole(graph: Graph, splits: bool = True) -> None:
    """Everything above is in the graph."""
    assert np.split(graph.indices, graph.indptr[1:-1])[1].tolist() == [0, 2]
    assert (graph.num_nodes, graph.num_edges) == (4, 4)
    np.testing.assert_array_equal(np.asarray(graph.features), FEATURES)
    assert graph.labels is not None and graph.labels.tolist() == LABELS.tolist()
    if splits:
        assert graph.splits is not None and graph.splits.tolist() == SPLITS.tolist()


@pytest.fixture
def data() -> Any:
    """Make PyG's `Data`."""
    torch = pytest.importorskip("torch")
    geometric = pytest.importorskip("torch_geometric.data")
    masks = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
    return geometric.Data(
        x=torch.from_numpy(FEATURES),
        edge_index=torch.from_numpy(EDGES.T.copy()),
        y=torch.from_numpy(LABELS),
        **masks,
    )


def test_pyg_there_and_back(data: Any, tmp_path: Path) -> None:
    from horovod_gnn.pyg import to_pyg

    graph = as_graph(data)
    assert_whole(graph)
    back = to_pyg(write_graph(graph, tmp_path / "graph"))
    assert back.is_undirected() and back.num_edges == 4
    for key in ("x", "y", *MASKS):
        assert back[key].equal(data[key])
    assert as_graph(back).fingerprint == graph.fingerprint


def test_a_saved_data_object_is_read_without_running_it(data: Any, tmp_path: Path) -> None:
    import torch

    from horovod_gnn.pyg import load_pyg

    for content in (data, (data, None), data.to_dict(), (data.to_dict(), None)):
        torch.save(content, tmp_path / "data.pt")
        assert_whole(load_pyg(tmp_path / "data.pt"))
    torch.save({"something": 1}, tmp_path / "data.pt")
    with pytest.raises(UsageError, match=r"data\.pt: expected edge_index, got something"):
        load_pyg(tmp_path / "data.pt")
    torch.save(Path("/"), tmp_path / "data.pt")
    with pytest.raises(UsageError, match=r"data\.pt: expected a saved Data of PyG"):
        load_pyg(tmp_path / "data.pt")


def test_dgl() -> None:
    edges = (EDGES[:, 0], EDGES[:, 1])
    data = {"feat": FEATURES, "label": LABELS, **MASKS}
    graph = SimpleNamespace(edges=lambda: edges, num_nodes=lambda: 4, ndata=data)
    assert_whole(from_dgl(graph))
    graph.ntypes = ["user", "item"]
    with pytest.raises(UsageError, match="one type of nodes"):
        from_dgl(graph)


def test_networkx() -> None:
    graph = networkx.Graph(EDGES.tolist())
    words = ["train", "valid", "test", "none"]
    for node in graph:
        graph.nodes[node].update(x=FEATURES[node], label=int(LABELS[node]), split=words[node])
    assert_whole(as_graph(graph))
    del graph.nodes[2]["x"]
    with pytest.raises(UsageError, match="attribute x on every node, got none on 2"):
        as_graph(graph)


def test_scipy() -> None:
    matrix = sparse.coo_array((np.ones(4), EDGES.T), shape=(4, 4))
    assert as_graph(matrix).num_edges == 4
    assert_whole(from_scipy(matrix, features=FEATURES, labels=LABELS, splits=SPLITS))
    with pytest.raises(UsageError, match="a square matrix"):
        as_graph(sparse.coo_array((3, 4)))


def test_ogb() -> None:
    item = {"edge_index": EDGES.T, "node_feat": FEATURES, "num_nodes": 4, "node_year": LABELS}
    parts = {"train": [0], "valid": [1], "test": [2]}
    content = (item, LABELS.reshape(-1, 1))

    class Dataset:
        def __getitem__(self, at: int) -> tuple[dict[str, Any], Any]:
            return content

        def get_idx_split(self) -> dict[str, list[int]]:
            return parts

    graph = from_ogb(Dataset())
    assert_whole(graph)
    assert graph.years is not None and graph.years.tolist() == LABELS.tolist()


def test_pandas_frames_and_a_name_of_its_own(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c", "d"])
    edges = pandas.DataFrame({"from": names[EDGES[:, 0]], "to": names[EDGES[:, 1]]})
    nodes = pandas.DataFrame(
        {
            "id": names,
            "label": ["x", "y", "y", "x"],
            "part": ["train", "valid", "test", None],
            "one": FEATURES[:, 0],
            "two": FEATURES[:, 1],
        }
    )
    told = {"id": "id", "label": "label", "split": "part", "features": ["one", "two"]}
    graph = from_pandas(edges, nodes, **told)
    assert_whole(graph)
    assert graph.meta["provenance"]["class_names"] == ["x", "y"]
    assert as_graph(edges).num_nodes == 4
    with pytest.raises(UsageError, match="a column 'lable' of nodes, got none, did you mean label"):
        from_pandas(edges, nodes, id="id", label="lable")
    with pytest.raises(UsageError, match="edges between listed nodes, got 'd'"):
        from_pandas(edges, nodes[:3], id="id")

    kept = datasets.add(graph, "mine", tmp_path)
    assert_whole(datasets.load("mine", cache_dir=tmp_path))
    assert kept.fingerprint == graph.fingerprint
    with pytest.raises(UsageError, match="a known data set"):
        datasets.add(graph, "cora", tmp_path)


def test_what_no_node_classifier_can_learn_is_refused(data: Any) -> None:
    import torch

    data.y = torch.rand(4)
    with pytest.raises(UsageError, match="regression"):
        as_graph(data)
    data.y = torch.tensor([[1, 1], [0, 1], [1, 0], [1, 0]])
    with pytest.raises(UsageError, match="several labels per node are not supported"):
        as_graph(data)
    with pytest.raises(UsageError, match="expected a graph of .*networkx"):
        as_graph({"edges": EDGES})


def test_directed_edges_are_kept(data: Any) -> None:
    graph = as_graph(data, directed=True)
    assert graph.citations is not None and graph.citations.tolist() == EDGES.tolist()
    assert as_graph(data).citations is None


def frame(*rows: tuple[Any, Any]) -> pandas.DataFrame:
    """A frame of edges."""
    return pandas.DataFrame(list(rows), columns=["a", "b"], dtype=object)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: from_pandas(frame((1, 2), (None, 3))), "an empty one in row 1"),
        (lambda: from_pandas(frame((1.0, 2.0), (np.nan, 3.0))), "an empty one in row 1"),
        (lambda: from_pandas(frame((1, "x"), ("y", 2))), "ids of one kind"),
        (lambda: from_pandas(pandas.DataFrame({"a": [1]})), "a frame of edges with two columns"),
        (lambda: from_pandas([(1, 2)]), "a frame of edges"),
        (lambda: from_pandas(frame((1, 2)), [1, 2]), "a frame of nodes"),
        (
            lambda: from_pandas(frame((0, 1)), pandas.DataFrame({"t": ["p", "q"]}), features=["t"]),
            "features that are numbers",
        ),
        (lambda: from_scipy(sparse.coo_array(np.arange(3))), "a square matrix"),
        (lambda: from_edges("mine", [(0, 1), (1,)]), "edges that are numbers"),
        (lambda: from_edges("mine", [("a", "b")]), "edges that are numbers"),
        (lambda: from_edges("mine", [(0, 1)], -1), "a number of nodes from 0"),
        (lambda: from_edges("mine", [(0, 1)], 2.5), "a number of nodes from 0"),
    ],
)
def test_an_object_with_a_mistake_is_refused_in_one_line(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "words"), [([True], "train_mask of 4 nodes"), ([0, 1, 2, 3], "true and false")]
)
def test_a_mask_that_is_none_is_refused(data: Any, mask: list[Any], words: str) -> None:
    data.train_mask = np.array(mask)
    with pytest.raises(UsageError, match=words):
        as_graph(data)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_of_each_layout_are_features(data: Any) -> None:
    for sparse_x in (data.x.to_sparse(), data.x.to_sparse_csr()):
        data.x = sparse_x
        assert_whole(as_graph(data))


@pytest.mark.parametrize("rows", [[[1, 2], [1]], ["p", "q"]])
def test_attributes_that_are_no_features_are_refused(rows: list[Any]) -> None:
    graph = networkx.path_graph(2)
    networkx.set_node_attributes(graph, dict(enumerate(rows)), "x")
    with pytest.raises(UsageError, match="features that are numbers in rows of one length"):
        as_graph(graph)


def test_a_number_for_each_node_is_a_feature() -> None:
    graph = networkx.path_graph(2)
    networkx.set_node_attributes(graph, {0: 3, 1: 4}, "x")
    assert np.asarray(as_graph(graph).features).tolist() == [[3], [4]]
