"""GCN, GAT and GIN against PyTorch Geometric's convolutions: outputs and gradients."""

# ruff: noqa: E402
from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")
    import torch_geometric.nn as pyg

from torch import Tensor, nn

from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import all_neighbours
from gnn_core.models import MODELS, ModelSettings, num_weights
from horovod_gnn import models
from horovod_gnn.attention import attend
from horovod_gnn.convolutions import Gat, Gcn, Gin, Sage
from horovod_gnn.edges import Edges
from horovod_gnn.layered import LayeredModel
from horovod_gnn.model import GraphSAGE
from tests.unit.made_models import CLASSES, WIDTH, odd_graph, off_by, sampled, table_of

pytestmark = pytest.mark.needs_torch

KINDS = {"gcn": Gcn, "gat": Gat, "gin": Gin, "sage": Sage}
TOLERANCE = {"fp32": 1e-5, "fp64": 1e-12}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def graph() -> Graph:
    """It has self loops, nodes without neighbours and edges of one direction."""
    return odd_graph()


def made(kind: str, graph: Graph, **changes: Any) -> LayeredModel:
    chosen = {"hidden": 8, "layers": 2, "precision": "fp64", "heads": 2, "seed": 1, **changes}
    settings = ModelSettings(in_features=WIDTH, out_features=CLASSES, **chosen)
    model = KINDS[kind](settings)
    model.read_graph(graph)
    return model.train()


def whole_graph(graph: Graph) -> tuple[Block, np.ndarray, Tensor]:
    """All nodes and all edges as a block, its nodes, and PyG's edge index."""
    blocks, nodes = sampled(graph, (-1,), np.arange(graph.num_nodes))
    return blocks[0], nodes, Edges.of(blocks[0], CPU).edge_index()


def load(conv: nn.Module, kind: str, layer: nn.Module) -> None:
    """Give a convolution of PyG the weights of a layer."""
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    if kind == "gcn":
        state = {"lin.weight": weights["weight"], "bias": weights["bias"]}
    elif kind == "gat":
        state = {"lin.weight": weights["weight"], "bias": weights["bias"]}
        state |= {name: weights[name][None] for name in ("att_src", "att_dst")}
    else:
        state = {
            f"nn.{place}.{part}": weights[f"{name}.{part}"]
            for place, name in ((0, "first"), (2, "second"))
            for part in ("weight", "bias")
        }
        state["eps"] = torch.zeros(1)
    conv.double().load_state_dict(state)


def conv_of(kind: str, num_in: int, num_out: int, is_last: bool, **more: Any) -> nn.Module:
    """The convolution of PyG, with its usual settings."""
    if kind == "gcn":
        return pyg.GCNConv(num_in, num_out, **more)
    if kind == "gat":
        width = num_out if is_last else num_out // 2
        return pyg.GATConv(num_in, width, heads=2, concat=not is_last, **more)
    dense = nn.Sequential(nn.Linear(num_in, num_out), nn.ReLU(), nn.Linear(num_out, num_out))
    return pyg.GINConv(dense, **more)


def convs_of(kind: str, model: LayeredModel, **more: Any) -> list[nn.Module]:
    pairs, found = model.settings.layer_widths, []
    for depth, (num_in, num_out) in enumerate(pairs):
        conv = conv_of(kind, num_in, num_out, depth >= model.settings.num_hidden, **more)
        load(conv, kind, model.layers[depth])
        found.append(conv)
    return found


def total(out: Tensor) -> Tensor:
    """A loss that weights each number apart."""
    return (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("kind", ["gcn", "gat", "gin"])
def test_the_whole_graph_through_pyg_s_convolutions(
    graph: Graph, kind: str, precision: str
) -> None:
    model = made(kind, graph, precision=precision)
    block, nodes, edge_index = whole_graph(graph)
    ours = model(table_of(graph), nodes, [block, block])
    first, second = convs_of(kind, model)
    x = table_of(graph)[nodes].double()
    theirs = second(first(x, edge_index).relu(), edge_index)
    assert off_by(ours, theirs) < TOLERANCE[precision]
    total(ours).backward()
    total(theirs).backward()
    for conv, layer in zip((first, second), model.layers, strict=True):
        parameters = dict(conv.named_parameters())
        load(conv, kind, layer)  # for the names alone
        for name, parameter in layer.named_parameters():
            their = {
                "weight": "lin.weight",
                "first.weight": "nn.0.weight",
                "first.bias": "nn.0.bias",
                "second.weight": "nn.2.weight",
                "second.bias": "nn.2.bias",
            }.get(name, name)
            grad = parameters[their].grad.view_as(parameter)
            assert off_by(parameter.grad, grad) < 10 * TOLERANCE[precision], name


@pytest.mark.parametrize("kind", ["gcn", "gat", "gin"])
def test_layer_by_layer_is_the_whole_graph_in_pyg(graph: Graph, kind: str) -> None:
    """As exact evaluation does it: a neighbour that is met twice is two sources there."""
    model = made(kind, graph).eval()
    _, nodes, edge_index = whole_graph(graph)
    block, sources = all_neighbours(graph, nodes)
    states: Tensor = table_of(graph)
    for depth in range(2):
        states = model.infer_layer(depth, states, sources, block)
    first, second = convs_of(kind, model)
    theirs = second(first(table_of(graph).double(), edge_index).relu(), edge_index)
    assert off_by(states, theirs) < 1e-12


@pytest.mark.parametrize("fanout", [2, 3, -1])
def test_gat_on_blocks(graph: Graph, fanout: int) -> None:
    model = made("gat", graph, layers=1)
    (block,), nodes = sampled(graph, (fanout,))
    (conv,) = convs_of("gat", model)
    x = table_of(graph)[nodes].double()
    theirs = conv((x, x[: block.num_dst]), Edges.of(block, CPU).edge_index())
    assert off_by(model(table_of(graph), nodes, [block]), theirs) < 1e-12


@pytest.mark.parametrize("fanout", [2, 3, -1])
def test_gin_on_blocks(graph: Graph, fanout: int) -> None:
    """A sum over drawn neighbours stands for that over all of them."""
    model = made("gin", graph, layers=1)
    (block,), nodes = sampled(graph, (fanout,))
    (conv,) = convs_of("gin", model)
    x = table_of(graph)[nodes].double()
    edges = Edges.of(block, CPU)
    there_are = torch.from_numpy(np.diff(graph.indptr)[nodes[: block.num_dst]])
    weights = (there_are.double() / edges.degrees().clamp(min=1))[edges.destinations()]
    summed = pyg.SimpleConv("sum")((x, x[: block.num_dst]), edges.edge_index(), weights)
    theirs = conv.nn(summed + x[: block.num_dst])
    assert off_by(model(table_of(graph), nodes, [block]), theirs) < 1e-12
    if fanout == -1:
        own = conv((x, x[: block.num_dst]), edges.edge_index())
        assert off_by(theirs, own) < 1e-12


@pytest.mark.parametrize("fanout", [2, 3, -1])
def test_gcn_on_blocks(graph: Graph, fanout: int) -> None:
    """PyG's convolution, given the weights of the whole graph's normalisation."""
    model = made("gcn", graph, layers=1)
    (block,), nodes = sampled(graph, (fanout,))
    edges = Edges.of(block, CPU)
    source, destination = edges.edge_index()
    kept = nodes[source] != nodes[destination]
    others = np.zeros(graph.num_nodes)
    for node in range(graph.num_nodes):
        neighbours = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
        others[node] = (neighbours != node).sum()
    source, destination = source[kept], destination[kept]
    drawn = np.bincount(destination, minlength=block.num_dst)
    shares = 1 / np.sqrt(others[nodes] + 1)
    scale = others[nodes[destination]] / drawn[destination]
    weights = shares[source] * shares[destination] * scale
    own = torch.arange(block.num_dst)
    edge_index = torch.cat([torch.stack([source, destination]), torch.stack([own, own])], dim=1)
    all_weights = np.concatenate([weights, 1 / (others[nodes[: block.num_dst]] + 1)])
    (conv,) = convs_of("gcn", model, normalize=False)
    x = table_of(graph)[nodes].double()
    theirs = conv(x, edge_index, torch.from_numpy(all_weights))[: block.num_dst]
    assert off_by(model(table_of(graph), nodes, [block]), theirs) < 1e-12


@pytest.mark.parametrize("jump", ["cat", "max", "none"])
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_pyg_s_own_model_with_norm_and_jumping_knowledge(
    graph: Graph, jump: str, norm: str
) -> None:
    model = made("gcn", graph, layers=3, norm=norm, jumping_knowledge=jump).eval()
    layer_norm = pyg.LayerNorm(8, mode="node") if norm == "layer" else None
    theirs = pyg.GCN(
        WIDTH, 8, 3, CLASSES, norm=layer_norm, jk=None if jump == "none" else jump
    ).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # else all norms would be alike
            if name.startswith("norms."):
                parameter.copy_(torch.linspace(0.5, 2, 8))
        for conv, layer in zip(theirs.convs, model.layers, strict=True):
            load(conv, "gcn", layer)
        for i, one in enumerate(model.norms):
            theirs.norms[i].load_state_dict(one.state_dict())
        if model.jump is not None:
            theirs.lin.load_state_dict(model.jump.state_dict())
    block, nodes, edge_index = whole_graph(graph)
    expected = theirs.eval()(table_of(graph).double(), edge_index)
    assert off_by(model(table_of(graph), nodes, [block] * 3), expected) < 1e-12
    states: Tensor = table_of(graph)
    for depth in range(3):
        states = model.infer_layer(depth, states, nodes, block)
        assert states.shape == (graph.num_nodes, model.widths[depth])
    assert off_by(states, expected) < 1e-12


def test_the_residual_of_gat_is_pyg_s(graph: Graph) -> None:
    model = made("gat", graph, layers=1, residual=True)
    conv = pyg.GATConv(WIDTH, CLASSES, heads=2, concat=False, residual=True).double()
    weights = dict(model.layers[0].named_parameters())
    state = {"lin.weight": weights["weight"], "bias": weights["bias"]}
    state |= {name: weights[name][None] for name in ("att_src", "att_dst")}
    conv.load_state_dict({**state, "res.weight": model.residuals["0"]})
    block, nodes, edge_index = whole_graph(graph)
    theirs = conv(table_of(graph).double(), edge_index)
    assert off_by(model(table_of(graph), nodes, [block]), theirs) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residual", [False, True])
def test_an_equal_width_adds_the_input_itself(graph: Graph, kind: str, residual: bool) -> None:
    model = made(kind, graph, layers=3, residual=residual)
    assert set(model.residuals) == ({"0", "2"} if residual else set())


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max", "none"])
def test_sage_without_more_is_the_fused_model(graph: Graph, aggregator: str) -> None:
    layered = made("sage", graph, aggregator=aggregator, dropout=0.3, input_dropout=0.2)
    chosen = {"aggregator": aggregator, "dropout": 0.3, "input_dropout": 0.2}
    model = GraphSAGE(WIDTH, 8, CLASSES, precision="fp64", seed=1, **chosen).train()
    assert layered.state_dict().keys() == model.state_dict().keys()
    blocks, nodes = sampled(graph)
    ours, theirs = (one(table_of(graph), nodes, blocks, 7) for one in (layered, model))
    assert off_by(ours, theirs) < 1e-12


OPTIONS = [
    {},
    {"residual": True},
    {"norm": "layer"},
    {"norm": "batch", "layers": 3},
    {"jumping_knowledge": "cat", "layers": 3, "residual": True},
    {"jumping_knowledge": "max", "norm": "layer"},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_counted_and_a_function_of_the_seed(
    graph: Graph, kind: str, changes: dict[str, Any]
) -> None:
    model = made(kind, graph, **changes)
    assert num_weights(kind, model.settings) == sum(p.numel() for p in model.parameters())
    torch.manual_seed(3)
    again, other = made(kind, graph, **changes), made(kind, graph, **changes, seed=2)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        if not name.startswith("norms."):
            assert not torch.equal(weight, other.state_dict()[name])
            assert weight.abs().max() <= 1


def test_attention_on_a_gpu_is_made_of_operations_that_give_the_same() -> None:
    random = np.random.default_rng(0)
    degrees = random.integers(1, 5, 20)
    offsets = np.concatenate([[0], degrees.cumsum()]).astype(np.int32)
    block = Block(offsets, random.integers(0, 40, offsets[-1]).astype(np.int32), 40)
    edges = Edges.of(block, CPU)
    values, sources = torch.randn(40, 3, 5).double(), torch.randn(40, 3).double()
    tensors = [one.requires_grad_() for one in (values, sources, torch.randn(20, 3).double())]
    found = []
    for force in (False, True):
        for one in tensors:
            one.grad = None
        out = attend(tensors[0], tensors[1], tensors[2], edges, fused=not force)
        total(out).backward()
        found.append([out.detach(), *(one.grad.clone() for one in tensors)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_name_has_a_builder() -> None:
    assert set(KINDS) == set(models._BUILDERS) == set(MODELS)
