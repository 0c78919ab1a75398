"""The weights that a model begins with: equal to the last bit in every framework.

Uniform in +-1 / sqrt(in), as `torch.nn.Linear` has it, from the Mersenne Twister that torch's CPU
generator is, so that `torch.rand` with the same seed gives the same numbers. A curve then does not
depend on the framework that trains it any more than on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
    draw = _uniform(seed, "weights")
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for depth, (width, out) in enumerate(zip(widths, widths[1:], strict=False)):
        weights[f"layers.{depth}.weight"] = draw((out, 2 * width), width)
        weights[f"layers.{depth}.bias"] = draw((out,), width)
    return weights


def initial_predictor(
    width: int, layers: int, seed: int, structure_width: int = 0, reads_common: bool = False
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of a predictor of links by name, in the order of its layers.

    Returns `<i>.weight` float32 `[out, width]` and `<i>.bias` float32 `[out]` of each layer, where
    `out` is `width` but for the last layer, which gives one number; and, where structural features
    are read, `structure.weight` float32 `[out of the first layer, structure_width]`; where those of
    common neighbours are, `common.weight` float32 `[out of the first layer, width]`.
    """
    draw = _uniform(seed, "predictor")
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for depth in range(layers):
        out = width if depth < layers - 1 else 1
        weights[f"{depth}.weight"] = draw((out, width), width)
        weights[f"{depth}.bias"] = draw((out,), width)
    if structure_width:
        shape = (len(weights["0.weight"]), structure_width)
        weights["structure.weight"] = draw(shape, structure_width)
    if reads_common:
        weights["common.weight"] = draw((len(weights["0.weight"]), width), width)
    return weights


def drawn_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of any other model by name, in the order of `shapes`.

    Args:
        shapes: of each weight, by name. A matrix is `[out, in]`; a vector follows the matrix whose
            products it is added to, and is drawn from the same range.
        seed: of the run.
    """
    draw = _uniform(seed, "other weights")
    weights: dict[str, npt.NDArray[np.float32]] = {}
    width = 1
    for name, shape in shapes.items():
        width = shape[-1] if len(shape) > 1 else width
        weights[name] = draw(shape, width)
    return weights


def _uniform(seed: int, what: str) -> Callable[..., npt.NDArray[np.float32]]:
    """Draws arrays one after the other: (shape, width of what they multiply) -> float32."""
    # The old interface, frozen for good: it seeds the original way, as torch does.
    twister = np.random.RandomState(seeding.key(seed, what) >> 1 & 0xFFFFFFFF)

    def draw(shape: tuple[int, ...], width: int) -> npt.NDArray[np.float32]:
        bound = np.float32(1 / math.sqrt(width))
        raw = twister.randint(0, 1 << 32, shape, dtype=np.uint32) & ((1 << _BITS) - 1)
        unit = raw.astype(np.float32) / np.float32(1 << _BITS)
        return (unit * 2 - 1) * bound

    return draw
