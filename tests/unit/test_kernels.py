"""The kernels against a few lines of NumPy each, on the edges of what they are given."""

# ruff: noqa: E402
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.batch import Block
from horovod_gnn import kernels

pytestmark = pytest.mark.needs_torch  # numba alone would do, but they live with the torch model

WIDTHS = [1, 7, 8, 33]


def made_block(num_dst: int = 13, num_src: int = 40, seed: int = 0) -> Block:
    """Degrees 0 to 6, the first and the last destination without edges; sources met repeatedly."""
    random = np.random.default_rng(seed)
    degrees = np.arange(num_dst) % 7
    degrees[-1] = 0
    offsets = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    return Block(offsets, random.integers(0, num_src, offsets[-1]).astype(np.int32), num_src)


def gathered(states: np.ndarray, block: Block, mean: bool) -> np.ndarray:
    """What `gather_rows` is to return, destination by destination; `[num_dst, 2 * width]`."""
    rows = []
    for i in range(block.num_dst):
        neighbours = states[block.columns[block.offsets[i] : block.offsets[i + 1]]]
        total = neighbours.sum(axis=0)
        rows.append(np.concatenate([states[i], total / max(len(neighbours), 1) if mean else total]))
    return np.stack(rows)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gather(dtype: type, mean: bool, width: int) -> None:
    random, block = np.random.default_rng(1), made_block()
    table = random.normal(size=(200, width)).astype(dtype)
    nodes = random.permutation(200)[: block.num_src]
    out = np.full((block.num_dst, 2 * width), np.nan, dtype)
    kernels.gather_rows(
        table, table[:0], nodes, block.offsets, block.columns, 0, block.num_dst, mean, out
    )
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(out, gathered(table[nodes], block, mean), tolerance, tolerance)


def test_gather_from_two_tables() -> None:
    random, block = np.random.default_rng(1), made_block()
    table = random.normal(size=(200, 7)).astype(np.float32)
    nodes = random.permutation(200)[: block.num_src]
    whole, halves = np.empty((2, block.num_dst, 14), np.float32)
    rest = (nodes, block.offsets, block.columns, 0, block.num_dst, True)
    kernels.gather_rows(table, table[:0], *rest, whole)
    kernels.gather_rows(table[:80], table[80:], *rest, halves)
    np.testing.assert_array_equal(whole, halves)


def test_gather_of_a_part_writes_just_that_part() -> None:
    random, block = np.random.default_rng(1), made_block()
    table = random.normal(size=(block.num_src, 5))
    out = np.full((6, 10), -1.0)
    kernels.gather_rows(
        table, table[:0], np.arange(block.num_src), block.offsets, block.columns, 4, 8, True, out
    )
    np.testing.assert_allclose(out[:4], gathered(table, block, True)[4:8], 1e-14)
    assert (out[4:] == -1).all()


def test_gather_of_nothing() -> None:
    nothing = np.empty(0, np.int32)
    out = np.full((3, 4), np.nan, np.float32)
    rows = np.ones((3, 2), np.float32)
    kernels.gather_rows(
        rows, rows[:0], np.arange(3), np.zeros(4, np.int32), nothing, 0, 3, True, out
    )
    assert out.tolist() == [[1, 1, 0, 0]] * 3
    kernels.gather_rows(
        rows, rows[:0], np.arange(3), np.zeros(4, np.int32), nothing, 2, 2, True, out
    )


def test_gather_sums_float32_tables_in_float64() -> None:
    table = np.array([[0.0], [1.0], [2.0**-30]], np.float32)  # 1 + 2**-30 is 1 in float32
    block = Block(np.array([0, 2], np.int32), np.array([1, 2], np.int32), 3)
    out = np.empty((1, 2))
    kernels.gather_rows(
        table, table[:0], np.arange(3), block.offsets, block.columns, 0, 1, False, out
    )
    assert out[0, 1] == 1 + 2.0**-30


@pytest.mark.parametrize(("dtype", "bits"), [("float16", np.int16), ("bfloat16", np.uint16)])
def test_every_16_bit_float_is_widened_exactly(dtype: str, bits: type) -> None:
    codes = torch.arange(-(2**15), 2**15).to(torch.int16)
    expected = codes.view(getattr(torch, dtype)).float().numpy()
    table = codes.numpy().view(bits).reshape(256, 256)
    out = np.empty((256, 512), np.float32)
    offsets = np.arange(257, dtype=np.int32)
    columns = np.arange(256, dtype=np.int32)
    kernels.gather_rows(table, table[:0], np.arange(256), offsets, columns, 0, 256, True, out)
    for half in (out[:, :256], out[:, 256:]):
        np.testing.assert_array_equal(half.ravel(), expected)
        numbers = ~np.isnan(expected)  # signs of zeros too
        assert (np.signbit(half.ravel()) == np.signbit(expected))[numbers].all()


def test_a_table_of_other_integers_is_refused() -> None:
    offsets, columns = np.zeros(2, np.int32), np.empty(0, np.int32)
    with pytest.raises(Exception, match="table of"):
        table = np.zeros((1, 2), np.int64)
        kernels.gather_rows(
            table, table, np.arange(1), offsets, columns, 0, 1, True, np.zeros((1, 4))
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activate_without_dropout_is_relu(dtype: type) -> None:
    rows = np.array([[-1, 0, 2, np.nan], [1, -3, np.inf, -np.inf]], dtype)
    bias = np.array([0.5, 0, 1, 0], dtype)
    kernels.activate(rows, bias, np.array([3, 4]), np.uint64(1), 0)
    np.testing.assert_array_equal(rows, np.array([[0, 0, 3, np.nan], [1.5, 0, np.inf, 0]], dtype))


def test_transpose_groups_the_same_edges_by_source() -> None:
    block = made_block()
    source_offsets, destinations = kernels.transpose(block.offsets, block.columns, block.num_src)
    ours = [
        (source, int(d))
        for source in range(block.num_src)
        for d in destinations[source_offsets[source] : source_offsets[source + 1]]
    ]
    rows = np.repeat(np.arange(block.num_dst), np.diff(block.offsets))
    assert ours == sorted(zip(block.columns.tolist(), rows.tolist(), strict=True))
    assert source_offsets.dtype == destinations.dtype == np.int32


def test_transpose_with_order_tells_where_each_edge_was() -> None:
    block = made_block()
    arrays = block.offsets, block.columns, block.num_src
    offsets, destinations, order = kernels.transpose_with_order(*arrays)
    for ours, theirs in zip((offsets, destinations), kernels.transpose(*arrays), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(order, np.argsort(block.columns, kind="stable"))
    assert order.dtype == np.int32


def scattered(block: Block, grad: np.ndarray, states: np.ndarray, chunk: int, **options: object):
    """`scatter_back` of the whole block, `chunk` sources at a time, and the bias gradient."""
    source_offsets, destinations = kernels.transpose(block.offsets, block.columns, block.num_src)
    out, bias_grad = np.full(states.shape, np.nan), np.full(states.shape[1], 100.0)
    for first in range(0, len(states), chunk):
        last = min(first + chunk, len(states))
        kernels.scatter_back(
            grad,
            block.offsets,
            source_offsets,
            destinations,
            states,
            first,
            last,
            options["mean"],
            options["scale"],
            out[first:last],
            bias_grad,
        )
    return out, bias_grad


@pytest.mark.parametrize("chunk", [1, 7, 40])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mean", [True, False])
def test_scatter_back_is_the_adjoint_of_gather(mean: bool, width: int, chunk: int) -> None:
    # <gather(x), y> == <x, scatter_back(y)> for all x and y.
    random, block = np.random.default_rng(2), made_block()
    states = random.normal(size=(block.num_src, width))
    grad = random.normal(size=(block.num_dst, 2 * width))
    back, bias_grad = scattered(block, grad, states, chunk, mean=mean, scale=1.0)
    inner = (gathered(states, block, mean) * grad).sum()
    assert (states * back).sum() == pytest.approx(inner, rel=1e-12)
    np.testing.assert_allclose(bias_grad, 100 + back.sum(axis=0), 1e-12)


def test_scatter_back_knows_what_was_dropped_or_rectified() -> None:
    random, block = np.random.default_rng(2), made_block()
    states = random.normal(size=(block.num_src, 6))
    grad = random.normal(size=(block.num_dst, 12))
    plain, _ = scattered(block, grad, states, 8, mean=True, scale=1.0)
    states[random.random(states.shape) < 0.5] = 0
    masked, bias_grad = scattered(block, grad, states, 8, mean=True, scale=4.0)
    np.testing.assert_allclose(masked, np.where(states != 0, 4 * plain, 0), 1e-12)
    np.testing.assert_allclose(bias_grad, 100 + masked.sum(axis=0), 1e-12)


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    """Ties to even, overflow to infinity, NaN, subnormals."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:6] = 0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800001, 0x00008000, 0x80000000
    values = bits.view(np.float32).reshape(64, 64)
    alone = np.zeros(65, np.int32)
    out = np.zeros((64, 128), np.uint16)
    kernels.gather_rows_bf16(values, values[:0], np.arange(64), alone, alone[:0], 0, 64, True, out)
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(out[:, :64][~is_nan], expected[~is_nan])
    assert torch.from_numpy(out[:, :64][is_nan]).view(torch.bfloat16).isnan().all().item()


@pytest.mark.parametrize("threshold", [0, 20_000])
def test_passes_in_bfloat16_are_those_in_float32_rounded(threshold: int) -> None:
    random = np.random.default_rng(1)
    rows = torch.from_numpy(random.normal(0, 1, (40, 12)).astype(np.float32)).bfloat16()
    bias = random.normal(0, 1, 12).astype(np.float32)
    wide = rows.float().numpy()
    kernels.activate(wide, bias, np.arange(40), np.uint64(5), threshold)
    narrow = rows.view(torch.uint16).numpy()
    kernels.activate_bf16(narrow, bias, np.arange(40), np.uint64(5), threshold)
    np.testing.assert_array_equal(narrow, bits_of(torch.from_numpy(wide)))
    block = Block(np.arange(0, 41, 2, dtype=np.int32), random.integers(0, 40, 40, np.int32), 40)
    grad = torch.from_numpy(random.normal(0, 1, (20, 24)).astype(np.float32)).bfloat16()
    back = kernels.transpose(block.offsets, block.columns, 40)
    sums = np.zeros((2, 12), np.float32)
    whole, rounded = np.empty((40, 12), np.float32), np.empty((40, 12), np.uint16)
    ends = (block.offsets, *back, narrow, 0, 40, True, 1.5)
    kernels.scatter_back(grad.float().numpy(), *ends, whole, sums[0])
    kernels.scatter_back_bf16(grad.view(torch.uint16).numpy(), *ends, rounded, sums[1])
    np.testing.assert_array_equal(rounded, bits_of(torch.from_numpy(whole)))
    np.testing.assert_array_equal(*sums)


def bits_of(values: torch.Tensor) -> np.ndarray:
    """The bits of a float32 tensor's bfloat16."""
    return values.bfloat16().view(torch.uint16).numpy()
