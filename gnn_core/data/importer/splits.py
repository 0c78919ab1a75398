"""Splits of the nodes with a label: drawn at random, per class or by year, or read from a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.data.importer.request import SplitRule
from gnn_core.usage import UsageError

Splits = npt.NDArray[np.uint8]
WORDS = {
    "train": 1,
    "training": 1,
    "valid": 2,
    "val": 2,
    "validation": 2,
    "dev": 2,
    "test": 3,
    "testing": 3,
    "none": 0,
    "": 0,
    "unlabeled": 0,
    "unlabelled": 0,
}
Mask = tuple[str, npt.NDArray]  # its name and values
_PER_CLASS, _NUM_VALID, _NUM_TEST = 20, 500, 1000


def make_splits(
    rule: SplitRule, labels: npt.NDArray[np.int32], years: npt.NDArray | None, seed: int
) -> Splits:
    """uint8 [N]: 0 none, 1 train, 2 validation, 3 test. UsageError by year without years."""
    if rule.how == "year":
        if years is None:
            raise UsageError(
                f"--split {rule}: expected years, got none; name them with --year-column or --years"
            )
        first, second = rule.last_years
        splits = np.where(years <= first, 1, np.where(years <= second, 2, 3)).astype(np.uint8)
        splits[labels < 0] = 0
        return splits
    order = seeding.permutation(len(labels), seed, "import split")
    order = order[labels[order] >= 0]
    return _planetoid(order, labels) if rule.how == "planetoid" else _random(order, labels, rule)


def splits_of_masks(
    masks: Mapping[int, Mask], num_nodes: int, refuse: Callable[[str, object], UsageError]
) -> Splits:
    """uint8 [N] out of a mask for each value: [N], or of several splits, of which the first counts.

    `refuse` makes the error out of what was expected and what came.
    """
    splits = np.zeros(num_nodes, np.uint8)
    for value, (name, mask) in masks.items():
        chosen = mask
        if mask.ndim == 2 and mask.size:
            chosen = mask[:, 0] if len(mask) == num_nodes else mask[0]
        if chosen.shape != (num_nodes,):
            raise refuse(f"{name} of {num_nodes:,} nodes", f"shape {list(mask.shape)}")
        if chosen.dtype.kind not in "biuf" or not ((chosen == 0) | (chosen == 1)).all():
            raise refuse(f"{name} of true and false, or 1 and 0", f"others ({chosen.dtype})")
        splits[chosen.astype(np.bool_)] = value
    return splits


def _random(order: npt.NDArray, labels: npt.NDArray[np.int32], rule: SplitRule) -> Splits:
    """Of each class these shares, and at least one node to train on."""
    splits = np.zeros(len(labels), np.uint8)
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels[by_class])
    for nodes in np.split(by_class, np.cumsum(sizes)[:-1]):
        train, valid, test = np.cumsum(rule.shares) * len(nodes)
        ends = [max(round(train), min(1, len(nodes))), round(valid), round(test)]
        splits[nodes[: ends[0]]] = 1
        splits[nodes[ends[0] : ends[1]]] = 2
        splits[nodes[max(ends[:2]) : ends[2]]] = 3
    return splits


def _planetoid(order: npt.NDArray, labels: npt.NDArray[np.int32]) -> Splits:
    """20 nodes of each class train, 500 others validate, 1000 others test, if there are enough."""
    splits = np.zeros(len(labels), np.uint8)
    for label in np.unique(labels[order]):
        splits[order[labels[order] == label][:_PER_CLASS]] = 1
    rest = order[splits[order] == 0]
    num_valid = min(_NUM_VALID, len(rest) // 3)
    splits[rest[:num_valid]] = 2
    splits[rest[num_valid : num_valid + _NUM_TEST]] = 3
    return splits
