"""The comparison with PyG: its model is two layers of SAGEConv, and the command makes a record."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from baselines.pyg_accuracy import SETTINGS, PygSage, train_pyg
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import write_graph
from gnn_core.report.tables.benches import read_benches
from horovod_gnn.pyg import to_pyg
from tests.unit.test_sparse_features import bag_of_words, graph_with

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize("share", [0.01, 0.5], ids=["sparse", "dense"])
def test_its_model_is_two_layers_of_sage_conv(share: float) -> None:
    data = to_pyg(graph_with(bag_of_words(share, words=60)))
    model = PygSage(data, 4, dropout=0.0)
    assert (model.own.transposed is None) == (share == 0.5)
    hidden = model.first(data.x, data.edge_index).relu()
    theirs = model.second(hidden, data.edge_index)
    ours = model(data.edge_index)
    assert torch.allclose(ours, theirs, atol=1e-5)
    theirs.square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    ours.square().sum().backward()
    for parameter, grad in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, grad, atol=1e-4)


def test_it_learns_and_stops() -> None:
    graph = graph_with(bag_of_words())
    valid, test = train_pyg(to_pyg(graph), graph.num_classes, SETTINGS[0], 0, 30, 5)
    assert 0 < valid <= 1 and 0 <= test <= 1


def test_the_command(tmp_path: Path, run_cli) -> None:
    graph = write_graph(graph_with(bag_of_words()), tmp_path / "words")
    assert isinstance(graph.features, SparseFeatures)
    made = tmp_path / "accuracy.json"
    command = ["python", "baselines/pyg_accuracy.py", str(tmp_path / "words"), "--seeds", "3"]
    done = run_cli([*command, "--epochs", "3", "--json", str(made)])
    assert done.returncode == 0, done.stderr
    (bench,), problems = read_benches(made)
    assert not problems
    ((name, nodes, training, classes, ours, theirs, difference, setting),) = bench.rows
    assert (name, nodes, training, classes) == ("words", 400, 240, 4)
    percent = [float(text.partition(" ")[0]) for text in (ours, theirs)]
    assert float(difference) == pytest.approx(percent[0] - percent[1], abs=0.011)
    assert setting in map(str, SETTINGS)
