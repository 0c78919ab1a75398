"""Keyed dropout: two implementations bit for bit, and statistics that a real mask must pass."""

# ruff: noqa: E402
from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core import dropout, seeding
from gnn_core.dropout import dropout_threshold
from horovod_gnn import kernels
from horovod_gnn.dropout import dropout_factors, keyed_dropout

pytestmark = pytest.mark.needs_torch

KEYS = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, seeding.key(0, "dropout", 3, 4)]
SIGMAS = 5  # a sound mask misses a bound this wide once in two million tries


def kept(nodes: np.ndarray, key: int, threshold: int, width: int) -> np.ndarray:
    """Which features survive: bool `[n, width]`."""
    return keyed_dropout(torch.ones(len(nodes), width), nodes, key, threshold).numpy() > 0


def assert_share(found: float, expected: float, count: int) -> None:
    """A share of `count` independent tries lies within SIGMAS of its expectation."""
    assert abs(found - expected) < SIGMAS * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("width", [1, 3, 4, 5, 64, 257])
@pytest.mark.parametrize("threshold", [1, 20_000, 32_768, 65_535])
def test_torch_and_the_kernel_drop_the_same_bit_for_bit(
    threshold: int, width: int, key: int
) -> None:
    random = np.random.default_rng(width)
    nodes = np.array([0, 1, 2, 169_342, 2**31, 2**40 + 1])
    rows = random.random((len(nodes), width)).astype(np.float32) + np.float32(0.5)
    factors = dropout_factors(nodes, key, threshold, torch.from_numpy(rows)).numpy()
    ours = np.full_like(rows, np.nan)
    dropout.dropout_factors(nodes, np.uint64(key), threshold, ours)
    np.testing.assert_array_equal(ours, factors)
    dropped = keyed_dropout(torch.from_numpy(rows), nodes, key, threshold).numpy()
    np.testing.assert_array_equal(dropped, rows * factors)
    kernels.activate(rows, np.zeros(width, np.float32), nodes, np.uint64(key), threshold)
    np.testing.assert_array_equal(rows, dropped)


def test_torch_and_the_kernel_agree_on_the_threshold_itself() -> None:
    # One feature in 65536 meets the threshold exactly: among a million there are some.
    nodes = np.arange(4000)
    ours = np.empty((4000, 256), np.float32)
    dropout.dropout_factors(nodes, np.uint64(3), 32_768, ours)
    theirs = dropout_factors(nodes, 3, 32_768, torch.from_numpy(ours)).numpy()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_features_stays(dtype: torch.dtype) -> None:
    assert keyed_dropout(torch.ones(3, 5, dtype=dtype), np.arange(3), 1, 9).dtype == dtype
    factors = dropout_factors(np.arange(3), 1, 30_000, torch.empty(3, 5, dtype=dtype))
    assert factors.dtype == dtype
    assert set(factors.flatten().tolist()) <= {0.0, float(factors.max())}


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_as_asked(probability: float) -> None:
    threshold = dropout_threshold(probability)
    exact = 1 - threshold / 65536
    mask = kept(np.arange(2000), 5, threshold, 256)
    assert_share(mask.mean(), exact, mask.size)
    for lane in range(4):  # the four features that share one 64-bit word
        assert_share(mask[:, lane::4].mean(), exact, mask.size // 4)
    spread = SIGMAS * math.sqrt(exact * (1 - exact) / 2000)
    assert np.abs(mask.mean(axis=0) - exact).max() < spread
    spread = SIGMAS * math.sqrt(exact * (1 - exact) / 256)
    assert np.abs(mask.mean(axis=1) - exact).max() < spread + 0.01


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_masks_of_two_steps_layers_and_neighbouring_nodes_are_independent(
    probability: float,
) -> None:
    threshold = dropout_threshold(probability)
    keep = 1 - threshold / 65536
    nodes = np.arange(2000)
    step = seeding.key(0, "dropout", 0, 0)
    mask = kept(nodes, seeding.key(step, "layer", 0), threshold, 128)
    others = {
        "next step": kept(
            nodes, seeding.key(seeding.key(0, "dropout", 0, 1), "layer", 0), threshold, 128
        ),
        "next layer": kept(nodes, seeding.key(step, "layer", 1), threshold, 128),
        "next node": np.roll(mask, 1, axis=0),
        "next feature": np.roll(mask, 1, axis=1),
        "same feature of the next word": np.roll(mask, 4, axis=1),
    }
    for name, other in others.items():
        both = (mask & other).mean()
        assert abs(both - keep**2) < SIGMAS * math.sqrt(keep**2 * (1 - keep**2) / mask.size), name


def test_a_node_keeps_its_mask_in_any_company() -> None:
    nodes = np.array([7, 100, 3, 55_000, 8])
    mask = kept(nodes, 42, 30_000, 65)
    for i, node in enumerate(nodes):
        assert (kept(np.array([node]), 42, 30_000, 65)[0] == mask[i]).all()
    assert (kept(nodes[::-1].copy(), 42, 30_000, 65)[::-1] == mask).all()
    assert (kept(nodes, 42, 30_000, 20) == mask[:, :20]).all()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_the_expectation_is_kept(probability: float) -> None:
    threshold = dropout_threshold(probability)
    h = torch.full((4000, 64), 3.0, dtype=torch.float64)
    dropped = keyed_dropout(h, np.arange(4000), 1, threshold)
    p = threshold / 65536
    deviation = 3 * math.sqrt(p / (1 - p) / h.numel())
    assert abs(float(dropped.mean()) - 3) < SIGMAS * deviation
    assert dropped.max().item() == pytest.approx(3 / (1 - p), rel=1e-15)


def test_gradients_pass_where_features_do() -> None:
    h = torch.randn(50, 9, requires_grad=True)
    nodes = np.arange(50)
    keyed_dropout(h, nodes, 3, 16_384).sum().backward()
    expected = torch.from_numpy(kept(nodes, 3, 16_384, 9)) * (65536 / (65536 - 16_384))
    assert torch.equal(h.grad, expected.float())


def test_the_probability_is_met_to_its_nearest_level() -> None:
    assert dropout_threshold(0.0) == 0
    assert dropout_threshold(0.5) == 32_768
    assert dropout_threshold(0.1) == 6554
    assert dropout_threshold(1e-9) == 1  # asked for, so not none at all
    assert dropout_threshold(0.99999) == 65_535


def test_only_a_probability_of_one_would_drop_everything() -> None:
    assert dropout_threshold(1 - 2**-40) <= 65_535
    mask = kept(np.arange(3000), 0, dropout_threshold(1 - 2**-40), 256)
    assert mask.any()
