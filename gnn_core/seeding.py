"""One seed, many named, counter-based random streams.

Nothing here keeps state. A random number is a *function* of a key, and a key is made by folding
integers into a 64-bit state with `mix`: the run's seed, a stream's name, then epoch, step, hop,
node, slot. Whoever asks for the same key gets the same number, on any rank, in any order; that is
why the ranks of a job draw exactly what one process would have drawn.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014) over an odd multiple of its golden-ratio increment.
"""

from __future__ import annotations

import hashlib

import numpy as np

from gnn_core.compiled import njit, types

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK64 = 0xFFFFFFFFFFFFFFFF


def _splitmix64_python(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK64
    return value ^ (value >> 31)


@njit(types.uint64(types.uint64), cache=True, nogil=True, inline="always")
def splitmix64(value):  # type: ignore[no-untyped-def]
    """SplitMix64's output function: a bijection of uint64 that passes the usual tests."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(types.uint64(types.uint64, types.uint64), cache=True, nogil=True, inline="always")
def mix(state, value):  # type: ignore[no-untyped-def]
    """The uint64 made of `state` and `value`, both uint64; their order matters."""
    return splitmix64(state + (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


@njit(types.uint32(types.uint64, types.uint32), cache=True, nogil=True, inline="always")
def below(bits, bound):  # type: ignore[no-untyped-def]
    """Uniform integer in [0, bound) from 64 random bits: multiply-shift, bias under bound / 2**32.

    Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 2019.
    """
    return np.uint32(((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


def key(*parts: int | str) -> int:
    """Fold integers and names into one 64-bit key (plain Python: once a step, not once an edge).

    `key(seed, "sampling", epoch, step)` equals `mix(mix(mix(mix(0, seed), name), epoch), step)`,
    where a name stands for the first 8 bytes of its SHA-256.
    """
    state = 0
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "little")
        state = _splitmix64_python((state + (part + 1) * GOLDEN_GAMMA) & _MASK64)
    return state


def stream(seed: int, name: str) -> np.uint64:
    """The root key of a named stream, ready for `mix`."""
    return np.uint64(key(seed, name))


def permutation(length: int, *parts: int | str) -> np.ndarray:
    """A permutation (int64 `[length]`) that is a pure function of the key parts."""
    return _generator(*parts).permutation(length)


def permuted(items: np.ndarray, *parts: int | str) -> np.ndarray:
    """`items[permutation(len(items), *parts)]` of `items` `[n]`, without an int64 for each."""
    return _generator(*parts).permutation(items)


def _generator(*parts: int | str) -> np.random.Generator:
    # Philox is itself counter-based; ranks compare their NumPy versions before they rely on it.
    return np.random.Generator(np.random.Philox(key=key(*parts)))
