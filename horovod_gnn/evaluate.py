"""Evaluation of a torch model: `gnn_core.training.evaluate` with its features and its layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from gnn_core.data.batch import Batch, Block
from gnn_core.data.feature_store import FeatureStore
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.measure.metrics import RankingTally, Tally
from gnn_core.training import evaluate, link_ranking
from gnn_core.training.world import World
from horovod_gnn.feed import Feed
from horovod_gnn.link import LinkModel
from horovod_gnn.node_model import NodeModel


class Layers:
    """The layers of a model for `evaluate.ExactEvaluator`, the lowest over the store's features."""

    def __init__(self, model: NodeModel, store: FeatureStore):
        self._model = model.eval()
        self._feed = Feed(store)
        self.widths = model.widths
        self.dtype = np.dtype(str(model.arithmetic.accumulator).removeprefix("torch."))

    def infer_layer(
        self, depth: int, states: np.ndarray | None, nodes: np.ndarray, block: Block
    ) -> np.ndarray:
        """One layer: see `evaluate.LayerwiseModel`."""
        below = self._feed.inputs(nodes) if states is None else torch.from_numpy(states)
        return self._model.infer_layer(depth, below, nodes, block).cpu().numpy()


class LinkLayers(Layers):
    """The layers of a model's encoder, and its predictor, for `link_ranking.LinkEvaluator`."""

    def __init__(self, model: LinkModel, store: FeatureStore):
        super().__init__(model.encoder, store)
        self._predictor = model.predictor.eval()

    @torch.no_grad()
    def scores(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Scores of pairs of embeddings: see `link_ranking.LinkScorer`."""
        device = self._model.device
        ends = [torch.from_numpy(end).to(device) for end in (left, right)]
        return self._predictor(*ends).cpu().numpy()


class LinkEvaluator(link_ranking.LinkEvaluator):
    """Ranks held-out references: see the base class.

    Args:
        graph: with its held-out edges.
        store: of its features.
        world: the other ranks.
        candidates: how many papers a reference is ranked against.
        most_edges: references that tell one epoch from the next; 0 is all.
    """

    def __init__(
        self, graph: Graph, store: FeatureStore, world: World, candidates: int, most_edges: int
    ):
        super().__init__(graph, world, candidates=candidates, most_edges=most_edges)
        self._store = store

    def tallies(
        self, model: LinkModel, splits: tuple[str, ...], whole: bool = True
    ) -> dict[str, RankingTally]:
        """The tally of each split, over all ranks. Every rank must call it."""
        return super().tallies(LinkLayers(model, self._store), splits, whole)


class ExactEvaluator(evaluate.ExactEvaluator):
    """Layer-wise evaluation over all neighbours.

    Args:
        graph: the graph.
        store: of its features.
        world: the other ranks.
        share_directly: as in the base class.
    """

    def __init__(
        self, graph: Graph, store: FeatureStore, world: World, share_directly: bool | None = None
    ):
        super().__init__(graph, world, share_directly)
        self._store = store

    def tallies(
        self, model: NodeModel, splits: tuple[str, ...], whole: bool = True
    ) -> dict[str, Tally]:
        """The tally of each split, over all ranks. Every rank must call it."""
        return super().tallies(Layers(model, self._store), splits)


class SampledEvaluator:
    """Evaluation on sampled neighbourhoods, as in training: quick, and a little off.

    Args:
        loaders: one loader per split, not shuffled.
        store: of the features.
        world: the other ranks.
    """

    def __init__(self, loaders: Mapping[str, Loader], store: FeatureStore, world: World):
        self._loaders = {split: [loader] for split, loader in loaders.items()}
        self._feed = Feed(store)
        self._world = world

    def tallies(
        self, model: NodeModel, splits: tuple[str, ...], whole: bool = True
    ) -> dict[str, Tally]:
        """The tally of each split, over all ranks. Every rank must call it."""
        model.eval()

        @torch.no_grad()
        def logits_of(batch: Batch) -> np.ndarray:
            logits = model(self._feed.inputs(batch.input_nodes), batch.input_nodes, batch.blocks)
            return logits[: batch.num_real].cpu().numpy()

        return evaluate.SampledEvaluator(self._loaders, self._world, logits_of).tallies(splits)
