"""Our layers against PyTorch Geometric's, on the same blocks and weights: logits and gradients."""

# ruff: noqa: E402
from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn import SAGEConv
    from torch_geometric.nn.models import GraphSAGE as PygGraphSAGE

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from horovod_gnn.exchange import from_pyg, to_pyg
from horovod_gnn.model import GraphSAGE
from tests.unit.made_models import (
    CLASSES,
    WIDTH,
    chunks_of,
    made_model,
    odd_graph,
    off_by,
    sampled,
    table_of,
)

pytestmark = pytest.mark.needs_torch

PROMISED = 1e-5  # of the largest value; what is found is far less
TOLERANCE = {"fp32": 2e-6, "fp64": 1e-14}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return odd_graph()


def edge_index(block: Block) -> torch.Tensor:
    """PyG's form of a block: int64 `[2, num_edges]`, sources above destinations."""
    destinations = np.repeat(np.arange(block.num_dst), np.diff(block.offsets))
    return torch.from_numpy(np.stack([block.columns, destinations]).astype(np.int64))


def sage_stack(model: GraphSAGE) -> torch.nn.ModuleList:
    """PyG's layers with the weights of `model`."""
    widths = [(layer.weight.shape[1] // 2, len(layer.weight)) for layer in model.layers]
    convs = torch.nn.ModuleList(
        SAGEConv(num_in, num_out, aggr=model.aggregator) for num_in, num_out in widths
    ).to(model.layers[0].weight.dtype)
    convs.load_state_dict(to_pyg(model, prefix=""))
    return convs


def run_stack(
    convs: torch.nn.ModuleList, x: torch.Tensor, blocks: tuple[Block, ...]
) -> torch.Tensor:
    for depth, (conv, block) in enumerate(zip(convs, blocks, strict=True)):
        x = conv((x, x[: block.num_dst]), edge_index(block))
        x = x if depth == len(convs) - 1 else x.relu()
    return x


def gradients_as_pyg(model: GraphSAGE) -> dict[str, torch.Tensor]:
    """Our gradients under PyG's names."""
    names = {}
    for depth, layer in enumerate(model.layers):
        own, neighbours = layer.weight.grad.chunk(2, dim=1)
        names[f"{depth}.lin_l.weight"], names[f"{depth}.lin_r.weight"] = neighbours, own
        names[f"{depth}.lin_l.bias"] = layer.bias.grad
    return names


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor, precision: str) -> None:
    assert TOLERANCE[precision] < PROMISED
    assert off_by(ours, theirs) < TOLERANCE[precision]
    assert theirs.any()


@pytest.mark.parametrize("fanouts", [(3, 2), (-1, -1), (4, 3, 2), (2, -1, 1)])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_logits_and_gradients_on_sampled_blocks(
    graph: Graph, precision: str, aggregator: str, fused: bool, fanouts: tuple[int, ...]
) -> None:
    model = made_model(precision, len(fanouts), aggregator=aggregator)
    model.fused = fused
    convs = sage_stack(model)
    blocks, nodes = sampled(graph, fanouts)
    assert any((np.diff(block.offsets) == 0).any() for block in blocks)
    x = table_of(graph)[nodes].to(model.arithmetic.accumulator)
    with chunks_of(5):
        logits = model(table_of(graph), nodes, blocks)
        theirs = run_stack(convs, x, blocks)
        assert_equal(logits, theirs, precision)
        labels = torch.arange(len(theirs)) % CLASSES
        for out in (logits, theirs):
            torch.nn.functional.cross_entropy(out, labels).backward()
    ours = gradients_as_pyg(model)
    assert ours.keys() == dict(convs.named_parameters()).keys()
    for name, parameter in convs.named_parameters():
        assert_equal(ours[name], parameter.grad, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_ties_of_the_maximum_split_their_gradient_as_pyg_does(graph: Graph, precision: str) -> None:
    # Features of few values: the largest is met several times nearly everywhere, layer 1's zeros
    # of the ReLU too.
    table = (table_of(graph) > 0.3).float()
    model = made_model(precision, 2, aggregator="max")
    convs = sage_stack(model)
    blocks, nodes = sampled(graph, (-1, -1))
    model(table, nodes, blocks).square().sum().backward()
    x = table[nodes].to(model.arithmetic.accumulator)
    run_stack(convs, x, blocks).square().sum().backward()
    ours = gradients_as_pyg(model)
    for name, parameter in convs.named_parameters():
        assert_equal(ours[name], parameter.grad, precision)


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
def test_the_whole_graph_in_pyg_s_own_model(graph: Graph, aggregator: str) -> None:
    theirs = PygGraphSAGE(WIDTH, 9, 3, CLASSES, aggr=aggregator, dropout=0.5).double().eval()
    model = made_model("fp64", 3, 9, aggregator=aggregator, seed=5).eval()
    from_pyg(model, theirs.state_dict())
    everyone = np.arange(graph.num_nodes)
    blocks, nodes = sampled(graph, (-1, -1, -1), everyone)
    rows = np.repeat(everyone, np.diff(graph.indptr))
    edges = torch.from_numpy(np.stack([graph.indices, rows]).astype(np.int64))
    assert_equal(
        model(table_of(graph), nodes, blocks), theirs(table_of(graph).double(), edges), "fp64"
    )


def test_our_weights_load_into_pyg_s_own_model(graph: Graph) -> None:
    theirs = PygGraphSAGE(WIDTH, 9, 2, CLASSES, aggr="mean")
    theirs.load_state_dict(to_pyg(made_model("fp32", 2, 9)))  # strict: no name is left over
