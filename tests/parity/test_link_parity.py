"""Link prediction against PyTorch Geometric's layers and OGB's evaluator."""

# ruff: noqa: E402
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn import SAGEConv

from gnn_core.data.batch import Batch
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.link_loader import LinkLoader
from gnn_core.data.pair_common import CommonNeighbours
from gnn_core.data.pair_structure import WIDTH as WIDTH_OF_STRUCTURE
from gnn_core.data.pair_structure import PairStructure
from gnn_core.measure.metrics import RankingTally
from gnn_core.training.link_ranking import LinkEvaluator
from gnn_core.training.tasks import feature_store
from gnn_core.training.world import World
from horovod_gnn.evaluate import LinkLayers
from horovod_gnn.exchange import to_pyg
from horovod_gnn.link import LinkModel
from horovod_gnn.model import GraphSAGE
from horovod_gnn.objective import link_objective
from tests.unit.made_links import linked_graph
from tests.unit.made_models import off_by, table_of
from tests.unit.test_pair_common import found_with_sets

pytestmark = pytest.mark.needs_torch
WIDTH, HIDDEN, CANDIDATES = 6, 9, 20
TOLERANCE = {"fp64": 1e-13, "fp32": 5e-6}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return linked_graph(tmp_path_factory.mktemp("cache"), width=WIDTH)


def made(
    precision: str, layers: int, structure_width: int = 0, common: bool = False, **options: Any
) -> LinkModel:
    encoder = GraphSAGE(WIDTH, HIDDEN, HIDDEN, layers=2, precision=precision, seed=4, **options)
    return LinkModel(encoder, layers, 4, structure_width, common).train()


class Plain(torch.nn.Module):
    """The same in PyTorch Geometric and plain torch, as OGB's example has it."""

    def __init__(self, model: LinkModel, graph: Graph):
        super().__init__()
        self.graph = graph
        dtype = model.encoder.layers[0].weight.dtype
        aggregator = model.encoder.aggregator
        convs = [SAGEConv(n, HIDDEN, aggr=aggregator) for n in (WIDTH, HIDDEN)]
        self.convs = torch.nn.ModuleList(convs).to(dtype)
        self.convs.load_state_dict(to_pyg(model.encoder, prefix=""))
        state = model.predictor.get_submodule("layers").state_dict()
        layers = [
            torch.nn.Linear(*state[f"{i}.weight"].shape[::-1]) for i in range(len(state) // 2)
        ]
        self.lins = torch.nn.ModuleList(layers).to(dtype)
        self.lins.load_state_dict(state)
        if (read := model.predictor.structure) is not None:
            self.structure = torch.nn.Linear(*read.weight.shape[::-1], bias=False).to(dtype)
            self.structure.load_state_dict(read.state_dict())
        if (read := model.predictor.common) is not None:
            self.common = torch.nn.Linear(HIDDEN, len(read.weight), bias=False).to(dtype)
            self.common.load_state_dict(read.state_dict())

    def embed(self, x: torch.Tensor, parts: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        for depth, (edges, num_dst) in enumerate(parts):
            x = self.convs[depth]((x, x[:num_dst]), edges)
            x = x.relu() if depth == 0 else x
        return x

    def score(
        self,
        one: torch.Tensor,
        other: torch.Tensor,
        structure: np.ndarray | None = None,
        common: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = one * other
        for depth, lin in enumerate(self.lins):
            x = lin(x)
            if depth == 0 and structure is not None:
                x = x + self.structure(torch.from_numpy(structure).to(x.dtype))
            if depth == 0 and common is not None:
                x = x + self.common(common)
            x = x.relu() if depth < len(self.lins) - 1 else x
        return x.squeeze(-1)

    def near(
        self, h: torch.Tensor, targets: np.ndarray, source: int, other: int, hidden: int
    ) -> torch.Tensor:
        """The sum over the common neighbours of a pair, each by the logarithm of its links."""
        total = torch.zeros(HIDDEN, dtype=h.dtype)
        for node in found_with_sets(self.graph, source, other, hidden):
            links = int(self.graph.indptr[node + 1] - self.graph.indptr[node])
            place = targets.tolist().index(node)
            total = total + h[place] * np.float32(1 / np.log(max(links, 2))).item()
        return total

    def loss(self, x: torch.Tensor, batch: Batch, loss: str) -> torch.Tensor:
        """Summed over the edges: that of each, and the mean of its negatives', or of its class."""
        parts = []
        for block in batch.blocks:
            ends = np.repeat(np.arange(block.num_dst), np.diff(block.offsets))
            edges = np.stack([block.columns, ends]).astype(np.int64)
            parts.append((torch.from_numpy(edges), block.num_dst))
        h = self.embed(x[batch.input_nodes], parts)
        assert batch.pairs is not None
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        total = torch.zeros((), dtype=h.dtype)
        for pair in range(batch.num_real):
            own = h[batch.pairs.sources[pair]]
            known = batch.pairs.structure
            features = (None, None) if known is None else (known[pair, 0], known[pair, 1:])
            ends = [batch.pairs.destinations[pair], *batch.pairs.negatives[pair]]
            near = None
            if batch.pairs.common is not None:
                source, cited, *_ = batch.targets[[batch.pairs.sources[pair], *ends]].tolist()
                near = torch.stack(
                    [
                        self.near(h, batch.targets, source, int(v), cited)
                        for v in batch.targets[ends]
                    ]
                )
            known_near = (None, None) if near is None else (near[0], near[1:])
            positive = self.score(own, h[ends[0]], features[0], known_near[0])
            negative = self.score(own[None], h[ends[1:]], features[1], known_near[1])
            each = entropy(positive, torch.ones_like(positive))
            each = each + entropy(negative, torch.zeros_like(negative))
            if loss == "softmax":
                scores = torch.cat([positive.reshape(1), negative])
                each = 0.1 * each + torch.nn.functional.cross_entropy(scores, torch.tensor(0))
            total = total + each
        return total


def gradients_as_plain(model: LinkModel) -> dict[str, torch.Tensor]:
    """Our gradients under the names of `Plain`."""
    found = {}
    for depth, layer in enumerate(model.encoder.layers):
        own, neighbours = layer.weight.grad.chunk(2, dim=1)
        found[f"convs.{depth}.lin_l.weight"], found[f"convs.{depth}.lin_r.weight"] = neighbours, own
        found[f"convs.{depth}.lin_l.bias"] = layer.bias.grad
    for name, parameter in model.predictor.get_submodule("layers").named_parameters():
        found[f"lins.{name}"] = parameter.grad
    if model.predictor.structure is not None:
        found["structure.weight"] = model.predictor.structure.weight.grad
    if model.predictor.common is not None:
        found["common.weight"] = model.predictor.common.weight.grad
    return found


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize(
    ("settings", "predictor_layers", "aggregator"),
    [
        ({}, 3, "mean"),
        ({"dated": True, "negatives": 3, "structure": True}, 3, "mean"),
        ({"loss": "softmax", "negatives": 5, "pool": 20, "structure": True}, 3, "mean"),
        ({"shared_negatives": True, "negatives": 3, "structure": True}, 1, "mean"),
        ({"loss": "softmax", "negatives": 5, "pool": 20, "common": True}, 3, "mean"),
        ({"shared_negatives": True, "negatives": 3, "common": True}, 1, "mean"),
        ({"hide_targets": True, "negatives": 3}, 2, "mean"),
        ({"shared_negatives": True, "negatives": 4}, 1, "mean"),
        ({"rank": 1, "world_size": 2, "global_batch_size": 31}, 3, "max"),  # with padding
    ],
)
def test_loss_and_gradients(
    graph: Graph, settings: dict[str, Any], predictor_layers: int, aggregator: str, precision: str
) -> None:
    chosen = {"fanouts": (4, 3), "global_batch_size": 30, "seed": 2, "prefetch": 0, **settings}
    width = 0
    common = chosen.pop("common", False)
    if common or chosen.get("structure"):
        near = CommonNeighbours(graph) if common else None
        chosen["structure"], width = PairStructure(graph, common=near), WIDTH_OF_STRUCTURE
    loss = chosen.pop("loss", "bce")
    batch = LinkLoader(graph, **chosen).batch(0, 0)
    model = made(precision, predictor_layers, width, common, aggregator=aggregator)
    plain = Plain(model, graph)
    loss_sum, correct = link_objective(model, table_of(graph), batch, loss)
    theirs = plain.loss(table_of(graph).to(plain.lins[0].weight.dtype), batch, loss)
    assert off_by(loss_sum, theirs) < TOLERANCE[precision]
    assert 0 <= int(correct) <= batch.num_real
    loss_sum.backward()
    theirs.backward()
    ours = gradients_as_plain(model)
    assert ours.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        assert off_by(ours[name], parameter.grad) < 10 * TOLERANCE[precision], name


@pytest.mark.parametrize("values", [4, 60, None], ids=["many ties", "some ties", "no ties"])
def test_ranks_are_those_of_ogb(values: int | None) -> None:
    ogb = pytest.importorskip("ogb.linkproppred", reason="ogb is not installed")
    random = np.random.default_rng(1)
    scores, others = random.normal(size=300), random.normal(size=(300, 70))
    if values:
        scores, others = (np.floor(a * values / 8) for a in (scores, others))
    given = {"y_pred_pos": torch.from_numpy(scores), "y_pred_neg": torch.from_numpy(others)}
    theirs = ogb.Evaluator("ogbl-citation2").eval(given)
    tally = RankingTally.of(scores, others)
    means = {k: float(np.mean(np.asarray(v, np.float64))) for k, v in theirs.items()}
    assert tally.score == pytest.approx(means["mrr_list"], abs=1e-6)
    fields = tally.fields()
    for ours, name in (("hits_1", "hits@1_list"), ("hits_10", "hits@10_list")):
        assert fields[ours] == pytest.approx(means[name], abs=1e-6)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_is_that_of_ogb_s_example(graph: Graph, split: str) -> None:
    """Embeddings over the whole graph at once, and OGB's evaluator on their scores."""
    ogb = pytest.importorskip("ogb.linkproppred", reason="ogb is not installed")
    model = made("fp64", 3, dropout=0.5)
    plain = Plain(model, graph)
    receivers = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    edges = torch.from_numpy(np.stack([graph.indices, receivers]).astype(np.int64))
    held_out = torch.from_numpy(getattr(graph, f"{split}_edges").astype(np.int64))
    others = torch.from_numpy(Candidates(graph, split, CANDIDATES).of(np.arange(len(held_out))))
    with torch.no_grad():
        h = plain.embed(table_of(graph).double(), [(edges, graph.num_nodes)] * 2)
        positive = plain.score(h[held_out[:, 0]], h[held_out[:, 1]])
        negative = plain.score(h[held_out[:, :1]], h[others])
    theirs = ogb.Evaluator("ogbl-citation2").eval({"y_pred_pos": positive, "y_pred_neg": negative})
    layers = LinkLayers(model, feature_store(graph))
    evaluator = LinkEvaluator(graph, World(), layers, candidates=CANDIDATES, most_edges=0)
    tally = evaluator.tallies((split,))[split]
    assert tally.count == len(held_out)
    assert tally.score == pytest.approx(float(theirs["mrr_list"].double().mean()), abs=1e-6)


def test_the_published_layout_is_read_as_ogb_reads_it(tmp_path: Path) -> None:
    reader = pytest.importorskip("ogb.io.read_graph_raw", reason="ogb is not installed")
    from gnn_core.data import ogb_raw
    from gnn_core.data.progress import silent
    from tests.unit.made_links import citation2, write_citation2

    source = write_citation2(citation2(), tmp_path / "ogbl_citation2")
    theirs = reader.read_csv_graph_raw(
        str(source / "raw"), add_inverse_edge=False, additional_node_files=["node_year"]
    )[0]
    ogb_raw.convert("ogbl-citation2", source, tmp_path / "g", {}, silent)
    ours = Graph.open(tmp_path / "g")
    np.testing.assert_array_equal(ours.features, theirs["node_feat"])
    np.testing.assert_array_equal(ours.years, theirs["node_year"][:, 0])
    edges = sorted(map(tuple, theirs["edge_index"].T.tolist()))
    assert sorted(map(tuple, ours.train_edges.tolist())) == edges
    for split in ("train", "valid", "test"):
        published = torch.load(source / "split" / "time" / f"{split}.pt", weights_only=False)
        ends = np.stack([published["source_node"], published["target_node"]], axis=1)
        np.testing.assert_array_equal(getattr(ours, f"{split}_edges"), ends)
