"""Batch norm over the targets of a step: torch's where all rows are targets, and what it keeps."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from horovod_gnn.norm import BatchNorm

pytestmark = pytest.mark.needs_torch
WIDTH = 5


def alone(tensor: Tensor) -> Tensor:
    """The sum over one rank."""
    return tensor


def made() -> BatchNorm:
    norm = BatchNorm(WIDTH).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, WIDTH))
        norm.bias.copy_(torch.linspace(-1, 1, WIDTH))
    return norm.train()


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) * 3 + 1
    return made.requires_grad_()


def test_it_is_torch_s_where_all_rows_are_targets() -> None:
    ours, theirs = made(), nn.BatchNorm1d(WIDTH).double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for seed in range(3):
        found = []
        for norm in (ours, theirs):
            h = rows(20, seed)
            if norm is ours:
                norm.begin_step(20, alone)
            out = norm(h)
            (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
            found.append([out.detach(), h.grad])
        ours.end_step()
        for mine, other in zip(*found, strict=True):
            torch.testing.assert_close(mine, other)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(rows(7)), theirs.eval()(rows(7)))


def test_ranks_add_up_to_the_whole() -> None:
    """Two ranks, each with rows of neighbours after its targets, against one with all of them."""
    h = rows(30)
    targets, neighbours = h[:20], h[20:]
    whole = made()
    whole.begin_step(20, alone)
    expected = whole(torch.cat([targets, neighbours]))
    sums = [targets.sum(0), targets.square().sum(0), torch.tensor([20.0])]
    everybody = torch.cat(sums).detach()
    for part in (targets[:13], targets[13:]):
        one = made()
        one.begin_step(len(part), lambda tensor: everybody)
        out = one(torch.cat([part, neighbours]))
        first = 0 if len(part) == 13 else 13
        torch.testing.assert_close(out[: len(part)], expected[first : first + len(part)])
        torch.testing.assert_close(out[len(part) :], expected[20:])


def test_averages_move_after_the_step_alone() -> None:
    norm = made()
    before = norm.running_mean.clone()
    norm.begin_step(20, alone)
    norm(rows(20))
    assert torch.equal(norm.running_mean, before)  # the step may yet be given up
    norm.end_step()
    moved = norm.running_mean.clone()
    assert not torch.equal(moved, before)
    norm(rows(20))  # outside a step, as when kernels are compiled
    norm.end_step()
    assert torch.equal(norm.running_mean, moved)


def test_a_rank_without_targets_takes_part() -> None:
    norm, h = made(), rows(4)
    norm.begin_step(0, lambda tensor: tensor + torch.tensor([1.0] * WIDTH + [9.0] * WIDTH + [4]))
    out = norm(h)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert torch.isfinite(h.grad).all()
