"""Random numbers as functions of a key: the same everywhere, and random all the same."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from gnn_core.seeding import below, key, mix, permutation, permuted, splitmix64, stream

LARGEST = 2**64 - 1
# A chance of less than one in ten thousand is no chance; the keys are fixed, so a test that passes
# once passes always.
UNLIKELY = 1e-4


def as_int(value: object) -> int:
    return int(value)  # type: ignore[call-overload]


def folded(*values: int) -> int:
    """Fold as compiled code does."""
    state = np.uint64(0)
    for value in values:
        state = np.uint64(mix(state, np.uint64(value)))
    return as_int(state)


def test_mixing_is_the_published_splitmix64() -> None:
    """The reference generator, seeded with 1234567, begins with these five numbers."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    ours = [as_int(mix(np.uint64(1234567), np.uint64(step))) for step in range(5)]
    assert ours == published


@pytest.mark.parametrize("parts", [(0,), (7, 3), (3, 7), (LARGEST, 1), (1, LARGEST), (0, 0, 0)])
def test_plain_python_and_compiled_code_fold_alike(parts: tuple[int, ...]) -> None:
    """The loader makes a step's key in Python, the sampler goes on from it in compiled code."""
    assert key(*parts) == folded(*parts)


def test_a_name_stands_for_its_sha256() -> None:
    """`hash()` would differ from process to process, and so would the ranks."""
    number = int.from_bytes(hashlib.sha256(b"sampling").digest()[:8], "little")
    assert key(5, "sampling", 2) == key(5, number, 2) == folded(5, number, 2)
    assert stream(5, "sampling") == key(5, "sampling")
    assert stream(5, "sampling").dtype == np.uint64


def test_keys_never_change() -> None:
    """A run resumed under a later release must draw what it would have drawn."""
    assert key(0) == 16294208416658607535
    assert key(0, "sampling", "train", 3, 14) == 2779965290853250182
    assert permutation(12, 0, "order", "train", 1).tolist() == [
        11,
        8,
        10,
        3,
        5,
        2,
        9,
        4,
        0,
        6,
        1,
        7,
    ]


def test_different_parts_make_different_keys() -> None:
    """Also the same parts in another order, and one part more."""
    ways = [(a, name, b) for a in range(30) for name in ("order", "sampling") for b in range(30)]
    keys = {key(*parts) for parts in ways}
    keys |= {key(a, b) for a in range(30) for b in range(30)} | {key(a) for a in range(30)}
    assert len(keys) == len(ways) + 30 * 30 + 30


def test_every_bit_of_a_part_turns_half_the_bits_of_the_key() -> None:
    turned = np.zeros((64, 64))
    trials = 200
    for trial, bit in itertools.product(range(trials), range(64)):
        difference = key(trial, trial * trial) ^ key(trial, (trial * trial) ^ (1 << bit))
        turned[bit] += [difference >> place & 1 for place in range(64)]
    assert abs(turned.mean() / trials - 0.5) < 0.005
    assert np.abs(turned / trials - 0.5).max() < 0.18  # five standard deviations


def test_splitmix64_loses_nothing() -> None:
    values = np.arange(100_000, dtype=np.uint64) * np.uint64(2**40 + 1)
    assert len({as_int(splitmix64(value)) for value in values}) == len(values)


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 2**31, 2**32 - 1])
def test_below_covers_its_interval_and_stays_inside(bound: int) -> None:
    assert as_int(below(np.uint64(0), np.uint32(bound))) == 0
    assert as_int(below(np.uint64(LARGEST), np.uint32(bound))) == bound - 1
    draws = [as_int(below(np.uint64(key(bound, n)), np.uint32(bound))) for n in range(200)]
    assert all(0 <= draw < bound for draw in draws)


@pytest.mark.parametrize("bound", [2, 7, 64, 1000])
def test_below_is_uniform(bound: int) -> None:
    draws = [as_int(below(np.uint64(key("uniform", n)), np.uint32(bound))) for n in range(50_000)]
    assert chisquare(np.bincount(draws, minlength=bound)).pvalue > UNLIKELY


def test_a_permutation_is_a_function_of_its_key() -> None:
    one = permutation(1000, 3, "order", 0)
    assert one.dtype == np.int64
    assert np.array_equal(np.sort(one), np.arange(1000))
    assert np.array_equal(one, permutation(1000, 3, "order", 0))
    for other in ((3, "order", 1), (4, "order", 0), (3, "other", 0)):
        same_place = (one == permutation(1000, *other)).sum()
        assert same_place < 10  # one on average
    assert permutation(0, 1).tolist() == []
    items = np.arange(1000, dtype=np.int32) * 3
    assert np.array_equal(permuted(items, 3, "order", 0), items[one])
    assert permuted(items, 3, "order", 0).dtype == np.int32
    assert items[1] == 3, "it works on a copy"


def test_every_permutation_is_equally_likely() -> None:
    ways = {way: n for n, way in enumerate(itertools.permutations(range(4)))}
    counts = np.zeros(len(ways))
    for trial in range(6000):
        counts[ways[tuple(permutation(4, "shuffle", trial).tolist())]] += 1
    assert chisquare(counts).pvalue > UNLIKELY
