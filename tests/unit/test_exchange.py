"""Weights to PyTorch Geometric's names and back; what does not fit is refused in one line."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import UsageError
from horovod_gnn.exchange import from_pyg, to_pyg
from tests.unit.made_models import CLASSES, WIDTH, made_model

pytestmark = pytest.mark.needs_torch


def test_names_and_shapes() -> None:
    state = to_pyg(made_model("fp32", layers=2, hidden=9))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "convs.0.lin_l.weight": (9, WIDTH),
        "convs.0.lin_l.bias": (9,),
        "convs.0.lin_r.weight": (9, WIDTH),
        "convs.1.lin_l.weight": (CLASSES, 9),
        "convs.1.lin_l.bias": (CLASSES,),
        "convs.1.lin_r.weight": (CLASSES, 9),
    }


def test_the_left_half_is_the_node_itself() -> None:
    model = made_model("fp32")
    state = to_pyg(model)
    weight = model.layers[0].weight
    assert torch.equal(state["convs.0.lin_r.weight"], weight[:, :WIDTH])
    assert torch.equal(state["convs.0.lin_l.weight"], weight[:, WIDTH:])


@pytest.mark.parametrize("prefix", ["convs.", ""])
@pytest.mark.parametrize("layers", [1, 3])
def test_there_and_back(layers: int, prefix: str) -> None:
    model, other = made_model("fp32", layers, seed=1), made_model("fp64", layers, seed=2)
    parameters = list(other.parameters())
    from_pyg(other, to_pyg(model, prefix))
    for ours, theirs in zip(parameters, model.parameters(), strict=True):
        assert ours.dtype == torch.float64
        assert ours.requires_grad
        assert torch.equal(ours.float(), theirs)


def test_what_is_given_away_is_a_copy() -> None:
    model = made_model("fp32")
    before = [p.clone() for p in model.parameters()]
    for tensor in to_pyg(model).values():
        assert not tensor.requires_grad
        tensor.zero_()
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, was)


def drop(state: dict, name: str) -> dict:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: drop(s, "convs.1.lin_l.bias"), "got no 1.lin_l.bias"),
        (lambda s: drop(s, "convs.0.lin_r.weight"), "got no 0.lin_r.weight"),
        (lambda s: s | {"convs.2.lin_l.bias": torch.zeros(3)}, "2 layers, got a 2.lin_l.bias"),
        (lambda s: s | {"norms.0.weight": torch.zeros(3)}, "norms.0.weight: expected the weights"),
        (lambda s: s | {"convs.0.lin_r.bias": torch.zeros(3)}, "convs.0.lin_r.bias: expected"),
        (lambda s: s | {"convs.1.lin_l.bias": torch.zeros(3)}, r"the shape \[5\], got \[3\]"),
        (lambda s: to_pyg(made_model(hidden=8)), r"0.lin_l.weight: expected the shape \[9, 7\]"),
        (lambda s: to_pyg(made_model(layers=3)), "2 layers, got a 2."),
        (lambda s: {}, "got no 0."),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: object, words: str) -> None:
    model = made_model("fp32", 2, 9)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(UsageError, match=words) as caught:
        from_pyg(model, change(to_pyg(made_model("fp32", 2, 9, seed=8))))
    assert "\n" not in str(caught.value)
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, was)
