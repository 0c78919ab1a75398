"""The loss: from a batch to the sum of its losses, and how many of its targets were right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gnn_core.data.batch import Batch, Common
from gnn_core.models import BCE_SHARE
from horovod_gnn.inputs import Inputs
from horovod_gnn.link import LinkModel
from horovod_gnn.node_model import NodeModel

# (model, input features, batch) -> (sum of the losses, number of right targets), of real targets
Objective = Callable[[Any, Inputs, Batch], tuple[Tensor, Tensor]]


def node_objective(
    model: NodeModel, inputs: Inputs, batch: Batch, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the labels; right is a target whose largest logit is its label.

    A share `label_smoothing` of each label is spread evenly over all classes.
    """
    logits = model(inputs, batch.input_nodes, batch.blocks, batch.key)[: batch.num_real]
    labels = torch.from_numpy(batch.labels[: batch.num_real]).long().to(logits.device)
    loss_sum = functional.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=label_smoothing
    )
    return loss_sum, (logits.argmax(dim=1) == labels).sum()


def link_objective(
    model: LinkModel, inputs: Inputs, batch: Batch, loss: str = "bce"
) -> tuple[Tensor, Tensor]:
    """Telling each edge from its negatives; right is one that scores above the first of them.

    With `bce` the loss of an edge is -log sigmoid(score) of its own and the mean of
    -log(1 - sigmoid(score)) over its negatives, as in OGB's example for ogbl-citation2; with
    `softmax` it is the cross-entropy of its own among all of them, and `BCE_SHARE` of the other.
    """
    assert batch.pairs is not None
    embeddings = model(inputs, batch.input_nodes, batch.blocks, batch.key)
    count = batch.num_real
    parts = (batch.pairs.sources, batch.pairs.destinations, batch.pairs.negatives)
    sources, destinations, negatives = (
        torch.from_numpy(part[:count].copy()).to(embeddings.device) for part in parts
    )
    own = others = None  # structural features of the edges, and of their negatives
    if batch.pairs.structure is not None:
        structure = torch.from_numpy(batch.pairs.structure[:count]).to(embeddings.device)
        own, others = structure[:, 0], structure[:, 1:].flatten(0, 1)
    of_own = of_others = None  # sums over common neighbours
    if batch.pairs.common is not None:
        of_own = _sums(batch.pairs.common[0].first(count), embeddings)
        of_others = _sums(batch.pairs.common[1].first(negatives.numel()), embeddings)
    left = embeddings[sources]
    positive = model.predictor(left, embeddings[destinations], own, of_own)
    repeated = left.repeat_interleave(negatives.shape[1], dim=0)
    negative = model.predictor(repeated, embeddings[negatives.flatten()], others, of_others)
    negative = negative.view_as(negatives)
    losses = functional.softplus(-positive) + functional.softplus(negative).mean(dim=1)
    if loss == "softmax":
        scores = torch.cat([positive[:, None], negative], dim=1)
        losses = torch.logsumexp(scores, dim=1) - positive + BCE_SHARE * losses
    # Drawn as its own negative a paper has one score twice, but for rounding: that is no win.
    wins = (positive > negative[:, 0]) & (destinations != negatives[:, 0])
    return losses.sum(), wins.sum()


def _sums(common: Common, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs int64 `[R]`, and the weighted sums `[R, width]` over their common neighbours."""
    parts = (common.pairs, common.segments, common.nodes, common.weights)
    pairs, segments, nodes, weights = (
        torch.from_numpy(part).to(embeddings.device) for part in parts
    )
    weighted = embeddings[nodes] * weights[:, None].to(embeddings.dtype)
    return pairs, embeddings.new_zeros(len(pairs), embeddings.shape[1]).index_add(
        0, segments, weighted
    )
