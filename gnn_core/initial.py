"""The weights that a GraphSAGE begins with: equal to the last bit in every framework.

Uniform in +-1 / sqrt(in), as `torch.nn.Linear` has it, from the Mersenne Twister that torch's CPU
generator is, so that `torch.rand` with the same seed gives the same numbers. A curve then does not
depend on the framework that trains it any more than on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gnn_core import seeding

_BITS = 24  # of a float32's significand


def layer_widths(in_features: int, hidden: int, num_classes: int, layers: int) -> list[int]:
    """Widths from the features to the logits: one more than there are layers."""
    return [in_features] + [hidden] * (layers - 1) + [num_classes]


def initial_weights(widths: Sequence[int], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights by name, in the order of the layers.

    Args:
        widths: as from `layer_widths`.
        seed: of the run.

    Returns:
        `layers.<i>.weight` float32 `[out, 2 * in]` (left half: the node itself; right: its
        neighbours) and `layers.<i>.bias` float32 `[out]` of each layer.
    """
    # The old interface, frozen for good: it seeds the original way, as torch does.
    twister = np.random.RandomState(seeding.key(seed, "weights") >> 1 & 0xFFFFFFFF)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for depth, (width, out) in enumerate(zip(widths, widths[1:], strict=False)):
        bound = np.float32(1 / math.sqrt(width))
        for name, shape in (("weight", (out, 2 * width)), ("bias", (out,))):
            raw = twister.randint(0, 1 << 32, shape, dtype=np.uint32) & ((1 << _BITS) - 1)
            unit = raw.astype(np.float32) / np.float32(1 << _BITS)
            weights[f"layers.{depth}.{name}"] = (unit * 2 - 1) * bound
    return weights
