"""Our readers against those of PyTorch Geometric and the Open Graph Benchmark, array by array."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import ogb_raw, planetoid
from gnn_core.data.graph import Graph
from gnn_core.data.progress import silent

pytestmark = pytest.mark.needs_torch
SPLITS = {"train": np.arange(30), "valid": np.arange(30, 40), "test": np.arange(40, 50)}


@pytest.mark.parametrize(("name", "folder"), [("cora", "Cora"), ("citeseer", "CiteSeer")])
def test_planetoid_equals_pytorch_geometric(
    real_data_root: Path, tmp_path: Path, name: str, folder: str
) -> None:
    geometric = pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    raw = real_data_root / "planetoid" / folder / "raw"
    if not raw.is_dir():
        pytest.skip(f"no {folder} in the data root")
    shutil.copytree(raw, tmp_path / folder / "raw")  # it writes beside the files it reads
    for copied in (tmp_path / folder).rglob("*"):
        copied.chmod(0o755)
    normalise = geometric.transforms.NormalizeFeatures()
    theirs = geometric.datasets.Planetoid(str(tmp_path), folder, transform=normalise)[0]
    planetoid.convert(name, raw, tmp_path / "ours", {}, silent)
    ours = Graph.open(tmp_path / "ours")

    np.testing.assert_allclose(ours.features, theirs.x.numpy(), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(ours.labels, theirs.y.numpy())
    for which, mask in (("train", "train_mask"), ("valid", "val_mask"), ("test", "test_mask")):
        np.testing.assert_array_equal(ours.split(which), theirs[mask].nonzero()[:, 0].numpy())
    sources, targets = theirs.edge_index.numpy()
    order = np.lexsort((sources, targets))
    np.testing.assert_array_equal(ours.indices, sources[order])
    np.testing.assert_array_equal(
        np.diff(ours.indptr), np.bincount(targets, minlength=len(theirs.y))
    )


def test_ogb_text_equals_ogb(tmp_path: Path) -> None:
    reader = pytest.importorskip("ogb.io.read_graph_raw", reason="ogb is not installed")
    random = np.random.default_rng(11)
    raw, split = tmp_path / "arxiv" / "raw", tmp_path / "arxiv" / "split" / "time"
    raw.mkdir(parents=True)
    split.mkdir(parents=True)

    def save(path: Path, rows: np.ndarray, form: str) -> None:
        with gzip.open(path, "wt") as file:
            np.savetxt(file, rows, fmt=form, delimiter=",")

    save(raw / "edge.csv.gz", random.integers(0, 50, (300, 2)), "%d")
    save(raw / "num-node-list.csv.gz", np.array([50]), "%d")
    save(raw / "num-edge-list.csv.gz", np.array([300]), "%d")
    save(raw / "node-feat.csv.gz", random.normal(size=(50, 8)), "%.6f")
    save(raw / "node-label.csv.gz", random.integers(0, 40, 50), "%d")
    save(raw / "node_year.csv.gz", random.integers(1990, 2020, 50), "%d")
    for which, nodes in SPLITS.items():
        save(split / f"{which}.csv.gz", nodes, "%d")

    theirs = reader.read_csv_graph_raw(str(raw), additional_node_files=["node_year"])[0]
    ogb_raw.convert("ogbn-arxiv", tmp_path / "arxiv", tmp_path / "ours", {}, silent)
    ours = Graph.open(tmp_path / "ours")
    np.testing.assert_array_equal(ours.features, theirs["node_feat"])
    np.testing.assert_array_equal(ours.citations, theirs["edge_index"].T)
    np.testing.assert_array_equal(ours.years, theirs["node_year"][:, 0])


def test_ogb_binary_equals_ogb(tmp_path: Path) -> None:
    reader = pytest.importorskip("ogb.io.read_graph_raw", reason="ogb is not installed")
    random = np.random.default_rng(12)
    raw, split = tmp_path / "papers" / "raw", tmp_path / "papers" / "split" / "time"
    raw.mkdir(parents=True)
    split.mkdir(parents=True)
    np.savez(
        raw / "data.npz",
        edge_index=random.integers(0, 50, (2, 300)),
        node_feat=random.normal(size=(50, 8)).astype(np.float32),
        node_year=random.integers(1990, 2020, (50, 1)),
        num_nodes_list=np.array([50]),
        num_edges_list=np.array([300]),
    )
    np.savez(raw / "node-label.npz", node_label=random.integers(0, 172, (50, 1)).astype(np.float32))
    for which, nodes in SPLITS.items():
        with gzip.open(split / f"{which}.csv.gz", "wt") as file:
            np.savetxt(file, nodes, fmt="%d")

    theirs = reader.read_binary_graph_raw(str(raw))[0]
    ogb_raw.convert("ogbn-papers100M", tmp_path / "papers", tmp_path / "ours", {}, silent)
    ours = Graph.open(tmp_path / "ours")
    np.testing.assert_array_equal(ours.features, theirs["node_feat"])
    np.testing.assert_array_equal(ours.citations, theirs["edge_index"].T)
    np.testing.assert_array_equal(ours.years, theirs["node_year"][:, 0])
