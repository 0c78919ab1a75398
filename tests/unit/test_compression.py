"""Compressed pushes: nothing of a gradient is lost, only sent later."""

from __future__ import annotations

import numpy as np
import pytest

from gnn_core.config import RunConfig, UsageError
from gnn_core.param_server.compression import Compressor, Payload, decompress, largest
from gnn_core.param_server.placement import place
from gnn_core.param_server.shards import Shards

SIZE = 1000
KINDS = ("none", "fp16", "topk:0.01", "topk:0.3", "topk:1")


def shards() -> Shards:
    return Shards(SIZE, list(place({"a": 1.0, "b": 1.0, "c": 1.0}).values()))


def received(kind: str, payloads: list[Payload], dtype: str = "float64") -> np.ndarray:
    """What servers make of a push, `[SIZE]`."""
    whole = np.zeros(SIZE, dtype)
    parts = [
        decompress(kind, one, dtype, size)
        for one, size in zip(payloads, shards().sizes, strict=True)
    ]
    shards().join(parts, whole)
    return whole


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_and_what_was_kept_are_all_gradients(kind: str) -> None:
    """To the last bit: the gradients are such that their sums are exact in float64."""
    rng = np.random.default_rng(3)
    compressor = Compressor(kind, np.zeros(SIZE))
    sent, total = np.zeros(SIZE), np.zeros(SIZE)
    for _ in range(50):
        gradient = rng.integers(-(2**20), 2**20, SIZE) / 2**24
        total += gradient
        sent += received(kind, compressor.compress(gradient, shards()))
        assert np.array_equal(sent + compressor.residual, total)
    assert (kind in ("none", "topk:1")) == (not compressor.residual.any())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_beyond_half_precision_are_sent_in_pieces(dtype: str) -> None:
    compressor = Compressor("fp16", np.zeros(SIZE, dtype))
    first = received("fp16", compressor.compress(np.full(SIZE, 1e5, dtype), shards()), dtype)
    assert np.isfinite(first).all()
    rest = received("fp16", compressor.compress(np.zeros(SIZE, dtype), shards()), dtype)
    assert np.array_equal(first + rest, np.full(SIZE, 1e5, dtype))


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.01, 10), (0.5, 500), (1.0, 1000)])
def test_the_largest_are_sent(share: float, count: int) -> None:
    values = np.random.default_rng(1).normal(size=SIZE)
    chosen = largest(values, share)
    assert chosen.sum() == count
    assert np.abs(values[chosen]).min() >= np.abs(values[~chosen]).max(initial=0)


def test_a_push_is_smaller() -> None:
    gradient = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    sizes = {
        kind: sum(
            one.num_bytes
            for one in Compressor(kind, np.zeros(SIZE, np.float32)).compress(gradient, shards())
        )
        for kind in KINDS
    }
    assert sizes["none"] == 4000 and sizes["fp16"] == 2000 and sizes["topk:0.01"] == 80


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("none", Payload(bytes(8))),
        ("fp16", Payload(bytes(8))),
        ("topk:0.1", Payload(bytes(8), np.array([9], np.uint32).tobytes())),
        ("topk:0.1", Payload(bytes(16), np.array([3, 3], np.uint32).tobytes())),
        ("topk:0.1", Payload(bytes(16), np.array([3, 2], np.uint32).tobytes())),
        ("topk:0.1", Payload(bytes(8), bytes(5))),
        ("topk:0.1", Payload(bytes(8), np.array([1, 2], np.uint32).tobytes())),
    ],
)
def test_a_payload_that_is_none_is_refused(kind: str, payload: Payload) -> None:
    with pytest.raises(ValueError, match="expected"):
        decompress(kind, payload, "float64", 9)


@pytest.mark.parametrize(
    "kind", ["topk", "topk:", "topk:0", "topk:-1", "topk:1.5", "topk:nan", "zip"]
)
def test_another_compression_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="--compress: expected none, fp16 or topk:R with R above"):
        RunConfig(compress=kind)
