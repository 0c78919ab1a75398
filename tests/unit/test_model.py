"""GraphSAGE: two implementations held equal, gradients against differences, ranks against one."""

# ruff: noqa: E402
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.batch import Block
from gnn_core.data.feature_store import TableStore
from gnn_core.data.graph import Graph
from gnn_core.data.neighbourhood import all_neighbours
from horovod_gnn import model as model_module
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.dropout import keyed_dropout
from horovod_gnn.edges import Edges, aggregate
from horovod_gnn.fused import FusedStack, StackOptions
from horovod_gnn.inputs import StoredTable, torch_table
from horovod_gnn.model import GraphSAGE
from tests.unit.made_models import (
    CLASSES,
    ISOLATED,
    WIDTH,
    chunks_of,
    logits_and_gradients,
    made_model,
    odd_graph,
    off_by,
    sampled,
    table_of,
)

pytestmark = pytest.mark.needs_torch

# What two orders of summing may differ by. In bf16 a sum beside the middle between two bfloat16
# may be rounded either way, by 2**-8 of itself; stored as bfloat16 it is rounded once more.
TOLERANCE = {"fp64": 1e-13, "fp32": 2e-6, "bf16": 4e-3, "native bf16": 2e-2}
DROPOUTS = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3), (0.4, 0.2)]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return odd_graph()


def both_paths(
    graph: Graph, precision: str, layers: int = 2, chunk: int = 4, **options: object
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of logits and gradients, fused and plain."""
    blocks, nodes = sampled(graph, (3, 2, 2)[:layers])
    model = made_model(precision.removeprefix("native "), layers, **options)
    if "bf16" in precision:  # on any machine both ways
        model.arithmetic = Arithmetic("bf16", native_bf16=precision == "native bf16")
    assert model.can_fuse
    with chunks_of(chunk):
        fused = logits_and_gradients(model, table_of(graph), nodes, blocks)
    model.fused = False
    plain = logits_and_gradients(model, table_of(graph), nodes, blocks)
    return list(zip(fused, plain, strict=True))


@pytest.mark.parametrize(("dropout", "input_dropout"), DROPOUTS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "none"])
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_fused_equals_plain(
    graph: Graph, precision: str, aggregator: str, layers: int, dropout: float, input_dropout: float
) -> None:
    pairs = both_paths(
        graph,
        precision,
        layers,
        aggregator=aggregator,
        dropout=dropout,
        input_dropout=input_dropout,
    )
    assert len(pairs) == 1 + 2 * layers
    for fused, plain in pairs:
        assert fused.dtype == plain.dtype == Arithmetic(precision).accumulator
        assert off_by(fused, plain) < TOLERANCE[precision]
        assert plain.abs().max() > 0


@pytest.mark.parametrize(("dropout", "input_dropout"), DROPOUTS)
@pytest.mark.parametrize("precision", ["bf16", "native bf16"])
def test_fused_equals_plain_in_bfloat16(
    graph: Graph, precision: str, dropout: float, input_dropout: float
) -> None:
    pairs = both_paths(graph, precision, 3, dropout=dropout, input_dropout=input_dropout)
    for fused, plain in pairs:
        assert fused.dtype == plain.dtype == torch.float32
        assert off_by(fused, plain) < TOLERANCE[precision]


@pytest.mark.parametrize("fused", [True, False])
def test_bfloat16_rounds_and_stays_near(graph: Graph, fused: bool) -> None:
    blocks, nodes = sampled(graph)
    results = []
    for precision in ("fp32", "bf16"):
        model = made_model(precision)
        model.arithmetic = Arithmetic(precision, native_bf16=False)
        model.fused = fused
        results.append(logits_and_gradients(model, table_of(graph), nodes, blocks))
    for exact, rounded in zip(*results, strict=True):
        assert off_by(rounded, exact) < 3e-2
    assert off_by(results[1][0], results[0][0]) > 1e-4


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_the_chunk_does_not_matter(graph: Graph, chunk: int) -> None:
    for fused, plain in both_paths(graph, "fp64", 3, chunk, dropout=0.5):
        assert off_by(fused, plain) < TOLERANCE["fp64"]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_table_of_16_bit_floats_is_read_exactly(
    graph: Graph, dtype: torch.dtype, fused: bool
) -> None:
    blocks, nodes = sampled(graph)
    narrow = table_of(graph).to(dtype)
    model = made_model("fp32", dropout=0.5)
    model.fused = fused
    wide = logits_and_gradients(model, narrow.float(), nodes, blocks)
    for ours, theirs in zip(logits_and_gradients(model, narrow, nodes, blocks), wide, strict=True):
        assert torch.equal(ours, theirs)


def test_float64_sums_are_not_made_in_float32(graph: Graph) -> None:
    blocks, nodes = sampled(graph, (-1, -1))
    model = made_model("fp64")
    ours = model(table_of(graph), nodes, blocks)
    assert off_by(ours, model(table_of(graph).double(), nodes, blocks)) < 1e-15


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_backward_pass_against_finite_differences(
    graph: Graph, layers: int, mean: bool
) -> None:
    blocks, nodes = sampled(graph, (3, 2, 2)[:layers], targets=np.array([17, 0, 3, 40, 8]))
    options = StackOptions(mean, 20_000, tuple(range(3, 4 + layers)), Arithmetic("fp64"))
    model = made_model("fp64", layers, hidden=4)
    parameters = [p for layer in model.layers for p in (layer.weight, layer.bias)]

    def logits(*values: torch.Tensor) -> torch.Tensor:
        return FusedStack.apply(table_of(graph).double(), nodes, nodes, blocks, options, *values)

    with chunks_of(3):
        assert torch.autograd.gradcheck(logits, parameters, check_undefined_grad=False)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
def test_two_ranks_compute_what_one_does(graph: Graph, aggregator: str, fused: bool) -> None:
    model = made_model("fp64", 3, aggregator=aggregator, dropout=0.5, input_dropout=0.2)
    model.fused = fused
    targets = np.array([17, 0, 3, 40, 8, 30, 31, 5])
    parts = []
    for part in (targets, targets[:3], targets[3:]):
        blocks, nodes = sampled(graph, (3, 2, 2), part)
        model.zero_grad()
        logits = model(table_of(graph), nodes, blocks, 123)
        (logits**2).sum().backward()
        parts.append((logits.detach(), [p.grad.clone() for p in model.parameters()]))
    whole, first, second = parts
    assert off_by(torch.cat([first[0], second[0]]), whole[0]) < 1e-14
    for one, a, b in zip(whole[1], first[1], second[1], strict=True):
        assert off_by(a + b, one) < 1e-13


@pytest.mark.parametrize("fused", [True, False])
def test_a_unit_that_is_exactly_zero_has_no_gradient(graph: Graph, fused: bool) -> None:
    # torch's choice: the derivative of ReLU at 0 is 0.
    blocks, nodes = sampled(graph)
    model = made_model("fp64")
    model.fused = fused
    with torch.no_grad():
        model.layers[0].weight.zero_()
        model.layers[0].bias.zero_()
    _, weight, bias, *above = logits_and_gradients(model, table_of(graph), nodes, blocks)
    assert not weight.any()
    assert not bias.any()
    assert above[-1].any()


def test_dropped_features_carry_no_gradient_and_kept_ones_more(graph: Graph) -> None:
    # One layer's bias reaches the logits through kept features alone, scaled up by 1 / (1 - p).
    blocks, nodes = sampled(graph, (3, 2))
    model = made_model("fp64", dropout=0.75)
    with torch.no_grad():
        model.layers[0].bias.fill_(50.0)  # so that no unit is rectified
    gradients = logits_and_gradients(model, table_of(graph), nodes, blocks)
    model.dropout_threshold = 0
    without = logits_and_gradients(model, table_of(graph), nodes, blocks)
    assert off_by(gradients[2], without[2]) > 0.1
    assert off_by(gradients[0], without[0]) > 0.1


def test_every_step_and_layer_draws_its_own_mask(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []

    def spy(h: torch.Tensor, nodes: np.ndarray, key: int, threshold: int) -> torch.Tensor:
        keys.append(key)
        return keyed_dropout(h, nodes, key, threshold)

    monkeypatch.setattr(model_module, "keyed_dropout", spy)
    blocks, nodes = sampled(graph, (3, 2, 2))
    model = made_model("fp64", 3, dropout=0.5, input_dropout=0.5)
    model.fused = False
    for key in (1, 2):
        model(table_of(graph), nodes, blocks, key)
    assert len(keys) == len(set(keys)) == 6  # the input and two hidden layers, twice


@pytest.mark.parametrize("fused", [True, False])
def test_evaluation_drops_nothing(graph: Graph, fused: bool) -> None:
    blocks, nodes = sampled(graph)
    model = made_model("fp64", dropout=0.5, input_dropout=0.5).eval()
    model.fused = fused
    plain = made_model("fp64")
    logits = model(table_of(graph), nodes, blocks, key=1)
    assert torch.equal(logits, model(table_of(graph), nodes, blocks, key=2))
    assert off_by(logits, plain(table_of(graph), nodes, blocks)) < 1e-14


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max", "none"])
def test_layer_by_layer_is_the_whole_pass(graph: Graph, aggregator: str, fused: bool) -> None:
    model = made_model("fp64", 3, aggregator=aggregator, dropout=0.5).eval()
    model.fused = fused
    everyone = np.arange(graph.num_nodes)
    blocks, nodes = sampled(graph, (-1, -1, -1), everyone)
    block, sources = all_neighbours(graph, everyone)
    states = table_of(graph)
    for depth in range(3):
        states = model.infer_layer(depth, states, sources, block)
        assert not states.requires_grad
    assert off_by(states, model(table_of(graph), nodes, blocks)) < 1e-13


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
def test_a_node_alone_uses_its_own_state_only(graph: Graph, aggregator: str, fused: bool) -> None:
    model = made_model("fp64", 1, aggregator=aggregator).eval()
    model.fused = fused
    alone = np.setdiff1d(ISOLATED, [3])  # 3 is its own neighbour
    blocks, nodes = sampled(graph, (5,), alone)
    assert blocks[0].num_edges == 0
    own = model.layers[0].weight[:, :WIDTH]
    expected = table_of(graph)[alone].double() @ own.t() + model.layers[0].bias
    assert off_by(model(table_of(graph), nodes, blocks), expected) < 1e-14


def test_without_an_aggregator_the_edges_do_not_matter(graph: Graph) -> None:
    model = made_model("fp64", 2, aggregator="none")
    blocks, nodes = sampled(graph)
    logits, *gradients = logits_and_gradients(model, table_of(graph), nodes, blocks)
    bare = tuple(Block(np.zeros_like(b.offsets), b.columns[:0], b.num_src) for b in blocks)
    model.aggregator = "mean"
    assert torch.equal(logits, model(table_of(graph), nodes, bare, 77))
    assert not gradients[0][:, WIDTH:].any()


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_not_a_number_is_not_hidden(graph: Graph, fused: bool) -> None:
    table = table_of(graph)
    table[5] = float("nan")  # whom all nodes with an edge know
    blocks, nodes = sampled(graph, (-1, -1), np.array([8, 40]))
    model = made_model("fp32", dropout=0.1)
    model.fused = fused
    logits = model(table, nodes, blocks, 5)
    assert logits[0].isnan().all()
    assert logits[1].isfinite().all()


def test_the_largest_of_several_shares_its_gradient_evenly() -> None:
    h = torch.tensor([[0.0], [2.0], [2.0], [1.0]], requires_grad=True)
    block = Block(np.array([0, 3], np.int32), np.array([1, 2, 3], np.int32), 4)
    aggregate(h, Edges.of(block, h.device), "max").sum().backward()
    assert h.grad.flatten().tolist() == [0, 0.5, 0.5, 0]


def test_the_largest_of_negative_numbers_is_negative() -> None:
    h = torch.tensor([[5.0], [-2.0], [-3.0]])
    block = Block(np.array([0, 2, 2], np.int32), np.array([1, 2], np.int32), 3)
    assert aggregate(h, Edges.of(block, h.device), "max").flatten().tolist() == [-2.0, 0.0]


def test_only_linear_aggregation_on_a_cpu_is_fused() -> None:
    assert made_model().can_fuse
    assert not made_model(aggregator="max").can_fuse
    model = made_model()
    model.fused = False
    assert not model.can_fuse


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(1)
    first = made_model(seed=4).state_dict()
    torch.manual_seed(2)
    again = made_model(seed=4).state_dict()
    other = made_model(seed=5).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


def test_weights_begin_as_those_of_a_linear_layer() -> None:
    model = GraphSAGE(400, 100, CLASSES, seed=0)
    weight, bias = model.layers[0].weight, model.layers[0].bias
    assert weight.shape == (100, 800)
    assert bias.shape == (100,)
    assert 0.99 / 20 < weight.abs().max() <= 1 / 20
    assert abs(weight.mean().item()) < 1e-3


@pytest.mark.parametrize("fused", [True, False])
def test_reading_the_table_is_timed(graph: Graph, fused: bool) -> None:
    blocks, nodes = sampled(graph)
    model = made_model()
    model.fused = fused
    store = TableStore(graph.features)
    stored = StoredTable(torch_table(store), store)
    logits = model(stored, nodes, blocks)
    once = store.seconds
    assert once > 0
    model(stored, nodes, blocks)
    assert store.seconds > once
    assert torch.equal(logits, model(table_of(graph), nodes, blocks))
