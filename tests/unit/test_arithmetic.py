"""What each precision stores, rounds and accumulates."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from horovod_gnn import arithmetic
from horovod_gnn.arithmetic import PRECISIONS, Arithmetic

pytestmark = pytest.mark.needs_torch


def odd_numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers that bfloat16 cannot hold."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(*shape, generator=generator, dtype=dtype)
    assert not torch.equal(values, values.bfloat16().to(dtype))
    return values


@pytest.mark.parametrize(
    ("precision", "native", "storage", "accumulator"),
    [
        ("fp32", False, torch.float32, torch.float32),
        ("fp32", True, torch.float32, torch.float32),
        ("fp64", True, torch.float64, torch.float64),
        ("bf16", False, torch.float32, torch.float32),
        ("bf16", True, torch.bfloat16, torch.float32),
    ],
)
def test_types(
    precision: str, native: bool, storage: torch.dtype, accumulator: torch.dtype
) -> None:
    made = Arithmetic(precision, native)
    assert made.storage == made.empty(2, 3).dtype == storage
    assert made.accumulator == made.empty_accumulator(2, 3).dtype == accumulator
    assert made.operand(torch.ones(2)).dtype == storage
    assert made.product(made.operand(torch.ones(2, 2)), made.operand(torch.ones(2, 2))).dtype == (
        accumulator
    )


@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("has_product", [True, False])
def test_the_processor_decides_alone_how_it_stores(
    monkeypatch: pytest.MonkeyPatch, has_product: bool, has_gpu: bool
) -> None:
    monkeypatch.setattr(arithmetic, "native_bf16_product", lambda: has_product)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert Arithmetic("bf16").storage == (torch.bfloat16 if has_product else torch.float32)


def test_the_processor_can_be_asked() -> None:
    assert arithmetic.native_bf16_product() in (True, False)


@pytest.mark.parametrize("native", [True, False])
def test_bf16_operands_are_rounded(native: bool) -> None:
    values = odd_numbers(4, 5)
    rounded = Arithmetic("bf16", native).operand(values)
    assert torch.equal(rounded.float(), values.bfloat16().float())


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_other_operands_are_not(precision: str) -> None:
    made = Arithmetic(precision)
    values = odd_numbers(4, 5).to(made.accumulator)
    assert torch.equal(made.operand(values), values)
    assert not made.operand(values.requires_grad_()).requires_grad


def test_bf16_products_are_accumulated_in_float32() -> None:
    made = Arithmetic("bf16", native_bf16=False)
    # 256 + 1 + ... + 1 would stay 256 if a bfloat16 were added to.
    row = torch.tensor([[256.0] + [1.0] * 64])
    assert made.product(row, torch.ones(65, 1)).item() == 320


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("native", [True, False])
def test_sums_of_products(precision: str, native: bool) -> None:
    made = Arithmetic(precision, native)
    left, right = made.operand(odd_numbers(3, 4)), made.operand(odd_numbers(4, 2))
    total = torch.ones(3, 2, dtype=made.accumulator)
    made.add_product(total, left, right)
    torch.testing.assert_close(total, 1 + made.product(left, right))


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_linear_is_the_ordinary_one(precision: str) -> None:
    dtype = Arithmetic(precision).accumulator
    x, weight = odd_numbers(6, 4).to(dtype).requires_grad_(), odd_numbers(3, 4).to(dtype)
    out = Arithmetic(precision).linear(x, weight)
    assert torch.equal(out, x @ weight.t())
    assert out.requires_grad


@pytest.mark.parametrize("native", [True, False])
def test_linear_rounds_the_operands_of_all_three_products(native: bool) -> None:
    x, weight = odd_numbers(6, 4).requires_grad_(), odd_numbers(3, 4).requires_grad_()
    grad = odd_numbers(6, 3)
    out = Arithmetic("bf16", native).linear(x, weight)
    out.backward(grad)
    rx, rw, rg = (values.detach().bfloat16().float() for values in (x, weight, grad))
    tolerance = 2**-8 if native else 1e-6  # natively the product itself is a bfloat16 too
    for ours, exact in ((out, rx @ rw.t()), (x.grad, rg @ rw), (weight.grad, rg.t() @ rx)):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.detach(), exact, rtol=tolerance, atol=1e-6)
    if not native:
        assert not torch.allclose(weight.grad, grad.t() @ x, rtol=1e-4)


def test_linear_needs_no_gradient_of_its_input() -> None:
    x, weight = odd_numbers(6, 4), odd_numbers(3, 4).requires_grad_()
    Arithmetic("bf16", False).linear(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad.any()


@pytest.mark.parametrize(
    ("precision", "native", "rounds"),
    [("fp32", False, False), ("fp64", False, False), ("bf16", False, True), ("bf16", True, True)],
)
def test_what_is_written_ends_as_an_operand(precision: str, native: bool, rounds: bool) -> None:
    made = Arithmetic(precision, native)
    rows = made.empty(4, 5)
    values = odd_numbers(4, 5).to(made.accumulator)
    with made.written(rows) as out:
        assert out.dtype == made.accumulator
        out.copy_(values)
    expected = values.bfloat16().to(rows.dtype) if rounds else values
    assert torch.equal(rows, expected)


@pytest.mark.parametrize(("precision", "native"), [("fp32", False), ("bf16", True)])
def test_what_is_updated_begins_as_it_is(precision: str, native: bool) -> None:
    made = Arithmetic(precision, native)
    rows = made.operand(odd_numbers(4, 5))
    before = rows.clone()
    with made.updated(rows) as out:
        assert out.dtype == made.accumulator
        assert torch.equal(out.to(before.dtype), before)
        out += 1
    assert torch.equal(rows, (before.float() + 1).to(before.dtype))
