"""`--table-dtype`: a copy of the graph with its features in 16 bits, prepared once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from gnn_core.config import RunConfig
from gnn_core.data.checks import ARRAY_NAMES
from gnn_core.data.features import decode_features
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.table_dtype import with_table_dtype
from gnn_core.training.tasks import open_for
from gnn_core.usage import UsageError
from tests.unit.made_graphs import with_train

NUM_NODES = 60


def written(folder: Path, largest: float = 1.0) -> Graph:
    """A graph folder with float32 features of random size up to `largest`, one of which is that."""
    made = with_train(NUM_NODES, 20)
    features = np.random.default_rng(0).uniform(-1, 1, (NUM_NODES, 5)).astype(np.float32)
    features[7, 3] = largest
    graph = Graph.from_arrays("made", made.indptr, made.indices, features, made.labels, made.splits)
    return write_graph(graph, folder)


@pytest.mark.parametrize(
    ("dtype", "stored", "error"), [("fp16", "float16", 2.0**-11), ("bf16", "bfloat16", 2.0**-8)]
)
def test_the_copy_has_rounded_features_and_all_else_alike(
    tmp_path: Path, dtype: str, stored: str, error: float
) -> None:
    graph = written(tmp_path / "graph")
    copy = with_table_dtype(graph, dtype, tmp_path / "cache")
    assert copy.feature_dtype == stored
    assert copy.features.nbytes == graph.features.nbytes // 2
    assert isinstance(copy.features, np.memmap)  # its pages are shared by the ranks of a host
    np.testing.assert_allclose(decode_features(copy.features), graph.features, error, 2.0**-25)
    for name in ARRAY_NAMES:
        if name != "features":
            np.testing.assert_array_equal(getattr(copy, name), getattr(graph, name), name)
    assert copy.num_classes == graph.num_classes
    assert copy.fingerprint != graph.fingerprint


def test_it_is_prepared_once_and_anew_for_another_graph(tmp_path: Path) -> None:
    graph, said = written(tmp_path / "graph"), []
    first = with_table_dtype(graph, "fp16", tmp_path / "cache", said.append)
    assert "made, features in float16: preparing it in" in said[0]
    said.clear()
    again = with_table_dtype(graph, "fp16", tmp_path / "cache", said.append)
    assert (again.folder, said) == (first.folder, [])
    other = with_table_dtype(written(tmp_path / "graph", 2.0), "fp16", tmp_path / "cache")
    assert other.features[7, 3] == 2 and first.features[7, 3] == 1


def test_nothing_is_copied_that_is_stored_so(tmp_path: Path) -> None:
    graph = written(tmp_path / "graph")
    assert with_table_dtype(graph, "stored", tmp_path / "cache") is graph
    halved = with_table_dtype(graph, "fp16", tmp_path / "cache")
    assert with_table_dtype(halved, "fp16", tmp_path / "cache") is halved


def test_a_feature_that_fp16_cannot_hold_is_refused(tmp_path: Path) -> None:
    graph = written(tmp_path / "graph", 70000.0)
    with pytest.raises(UsageError) as caught:
        with_table_dtype(graph, "fp16", tmp_path / "cache")
    assert str(caught.value) == (
        "--table-dtype fp16: expected features of at most 65504, got 70000 in graph made; leave it "
        "out or use bf16"
    )
    assert not [path for path in (tmp_path / "cache" / "graphs").iterdir() if path.is_dir()]
    assert with_table_dtype(graph, "bf16", tmp_path / "cache").feature_dtype == "bfloat16"


@pytest.mark.parametrize("task", ["node", "link"])
def test_a_run_reads_the_copy(tmp_path: Path, task: str) -> None:
    config = RunConfig(
        dataset="synthetic:papers=400,num_features=8",
        cache_dir=str(tmp_path),
        task=task,
        table_dtype="bf16",
    )
    graph = open_for(config, lambda line: None)
    assert graph.feature_dtype == "bfloat16"
    assert (graph.train_edges is not None) == (task == "link")


def test_sparse_rows_are_refused_as_they_are_smaller(tmp_path: Path) -> None:
    made = with_train(NUM_NODES, 20)
    words = scipy.sparse.random_array((NUM_NODES, 50), density=0.05, rng=0, dtype=np.float32)
    graph = Graph.from_arrays("made", made.indptr, made.indices, words, made.labels, made.splits)
    with pytest.raises(UsageError, match="--table-dtype fp16: expected a dense table.*leave it"):
        with_table_dtype(write_graph(graph, tmp_path / "graph"), "fp16", tmp_path / "cache")
