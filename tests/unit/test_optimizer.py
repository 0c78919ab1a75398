"""Adam and SGD take the very steps that those of `torch.optim` take."""

from __future__ import annotations

import pytest
import torch

from horovod_gnn.optimizer import OPTIMIZERS

_TORCH = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_SHAPES = ((64, 17), (64,), (3, 128), (1,))  # whole vectors of the kernels, and what is left of one


def _parameters(dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return [torch.randn(shape, dtype=dtype, generator=random) for shape in _SHAPES]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_those_of_torch(name: str, dtype: torch.dtype, weight_decay: float) -> None:
    mine, theirs = _parameters(dtype), _parameters(dtype)
    own = OPTIMIZERS[name](mine, 0.0, weight_decay)
    oracle = _TORCH[name](theirs, lr=0.0, weight_decay=weight_decay, fused=True)
    random = torch.Generator().manual_seed(4)
    for step in range(5):
        own.lr = oracle.param_groups[0]["lr"] = 0.1 / (step + 1)  # the schedule changes it
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape, dtype=dtype, generator=random)
            other.grad = one.grad.clone()
        own.step()
        oracle.step()
        assert all(map(torch.equal, mine, theirs))
    assert not any(map(torch.equal, mine, _parameters(dtype)))
