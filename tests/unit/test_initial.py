"""Initial weights: torch's to the last bit, without torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gnn_core import seeding
from gnn_core.initial import initial_weights, layer_widths

WIDTHS = [19, 32, 5]
FIRST = ["0x1.9aa7e80000000p-4", "0x1.2ab5fc0000000p-2", "0x1.3345bc0000000p-3"]
LAST = ["0x1.cf89d80000000p-2", "0x1.3001a00000000p-3"]


def test_widths_go_from_the_features_to_the_logits() -> None:
    assert layer_widths(100, 64, 7, 1) == [100, 7]
    assert layer_widths(100, 64, 7, 2) == [100, 64, 7]
    assert layer_widths(100, 64, 7, 4) == [100, 64, 64, 64, 7]


def test_names_shapes_and_types() -> None:
    weights = initial_weights(WIDTHS, 0)
    assert [(name, array.shape) for name, array in weights.items()] == [
        ("layers.0.weight", (32, 38)),
        ("layers.0.bias", (32,)),
        ("layers.1.weight", (5, 64)),
        ("layers.1.bias", (5,)),
    ]
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("seed", range(5))
def test_they_fill_their_bounds_evenly(seed: int) -> None:
    for depth, width in enumerate((300, 40)):
        bound = 1 / math.sqrt(width)
        values = initial_weights([300, 40, 50], seed)[f"layers.{depth}.weight"].astype(np.float64)
        assert np.abs(values).max() <= bound * (1 + 1e-7)
        assert values.max() > 0.99 * bound
        assert values.min() < -0.99 * bound
        deviation = bound / math.sqrt(3)
        assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
        assert values.std() == pytest.approx(deviation, rel=0.05)
        counts, _ = np.histogram(values, 10, (-bound, bound))
        assert np.abs(counts - values.size / 10).max() < 5 * math.sqrt(values.size / 10)


def test_the_seed_and_only_the_seed_decides() -> None:
    first, again = initial_weights(WIDTHS, 7), initial_weights(WIDTHS, 7)
    for seed in (0, 8, 2**32 + 7, 2**62):
        other = initial_weights(WIDTHS, seed)
        for name, array in first.items():
            assert (array == again[name]).all()
            assert (array != other[name]).mean() > 0.9, name


def test_nobody_else_s_random_numbers_are_touched() -> None:
    np.random.seed(1)
    expected = np.random.RandomState(1).random_sample(3)
    initial_weights(WIDTHS, 1)
    assert (np.random.random_sample(3) == expected).all()


def test_no_two_arrays_begin_alike() -> None:
    weights = initial_weights([16, 16, 16], 3)
    scaled = [array.ravel()[:16].tobytes() for array in weights.values()]
    assert len(set(scaled)) == len(scaled)


def test_they_are_what_they_were() -> None:
    """Whatever becomes of NumPy: a curve must not change with its version."""
    weights = initial_weights([3, 4, 2], 0)
    assert [float(x).hex() for x in weights["layers.0.weight"][0, :3]] == FIRST
    assert [float(x).hex() for x in weights["layers.1.bias"]] == LAST


@pytest.mark.needs_torch
@pytest.mark.parametrize("seed", [0, 1, 12_345, 2**31, 2**63 - 1])
@pytest.mark.parametrize("widths", [[1, 1], [3, 2], WIDTHS, [500, 128, 128, 40]], ids=str)
def test_they_are_those_of_torch_to_the_last_bit(widths: list[int], seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seeding.key(seed, "weights") >> 1)
    weights = iter(initial_weights(widths, seed).items())
    for width, out in zip(widths, widths[1:], strict=False):
        for shape in ((out, 2 * width), (out,)):
            unit = torch.rand(*shape, generator=generator)
            name, ours = next(weights)
            theirs = ((unit * 2 - 1) * (1 / math.sqrt(width))).numpy()
            assert ours.tobytes() == theirs.tobytes(), name
    assert next(weights, None) is None


@pytest.mark.needs_torch
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_a_torch_model_begins_with_them(precision: str) -> None:
    pytest.importorskip("torch")
    from horovod_gnn.model import GraphSAGE

    state = GraphSAGE(19, 32, 5, layers=3, precision=precision, seed=4).state_dict()
    weights = initial_weights(layer_widths(19, 32, 5, 3), 4)
    assert list(state) == list(weights)
    for name, array in weights.items():
        assert (state[name].numpy() == array).all(), name
