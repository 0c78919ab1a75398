"""Weights to and from PyTorch Geometric: a model trained here runs there, and the other way round.

Its `SAGEConv` keeps the matrix of a node's own state (`lin_r`) and that of its neighbours (`lin_l`,
with the bias) apart; ours has both in one. The numbers are the same, and so are the logits. Nothing
of PyTorch Geometric is imported: a state dict is only names and tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gnn_core.usage import UsageError
from horovod_gnn.model import GraphSAGE

_NAME = re.compile(r"(?:convs\.)?(\d+)\.(lin_l\.weight|lin_l\.bias|lin_r\.weight)")


def to_pyg(model: GraphSAGE, prefix: str = "convs.") -> dict[str, Tensor]:
    """The weights under the names that PyTorch Geometric gives them; copies, on the CPU.

    They fit `torch_geometric.nn.models.GraphSAGE(in_features, hidden, layers, num_classes,
    aggr=aggregator)`.

    Args:
        model: ours.
        prefix: of every name; "" for a plain `ModuleList` of `SAGEConv(aggr=aggregator)`.
    """
    state = {}
    for depth, layer in enumerate(model.layers):
        own, neighbours = layer.weight.detach().cpu().chunk(2, dim=1)
        state[f"{prefix}{depth}.lin_l.weight"] = neighbours.clone()
        state[f"{prefix}{depth}.lin_l.bias"] = layer.bias.detach().cpu().clone()
        state[f"{prefix}{depth}.lin_r.weight"] = own.clone()
    return state


@torch.no_grad()
def from_pyg(model: GraphSAGE, state: Mapping[str, Tensor]) -> None:
    """Overwrite the weights of `model` with those of a stack of `SAGEConv`, all or none of them.

    Args:
        model: ours, of the same widths; its device and float type stay.
        state: as from `to_pyg`, with the prefix `convs.` or without one.

    Raises:
        UsageError: a name or a shape that `model` has no place for, or one that is missing.
    """
    found: dict[tuple[int, str], Tensor] = {}
    for name, tensor in state.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise UsageError(
                f"{name}: expected the weights of a stack of SAGEConv (convs.0.lin_l.weight, "
                "convs.0.lin_l.bias, convs.0.lin_r.weight and so on); remove what is not"
            )
        found[int(match[1]), match[2]] = tensor
    wanted = {
        (depth, part): shape
        for depth, layer in enumerate(model.layers)
        for part, shape in _shapes(layer.weight).items()
    }
    for depth, part in sorted(found.keys() ^ wanted.keys()):
        got = "no" if (depth, part) in wanted else "a"
        raise UsageError(
            f"expected the weights of {len(model.layers)} layers, got {got} {depth}.{part}: "
            "both models need the same number of layers, with bias and root weight"
        )
    for (depth, part), shape in wanted.items():
        if tuple(found[depth, part].shape) != shape:
            raise UsageError(
                f"{depth}.{part}: expected the shape {list(shape)}, got "
                f"{list(found[depth, part].shape)}: both models need the same widths"
            )
    for depth, layer in enumerate(model.layers):
        own, neighbours = layer.weight.chunk(2, dim=1)
        own.copy_(found[depth, "lin_r.weight"])
        neighbours.copy_(found[depth, "lin_l.weight"])
        layer.bias.copy_(found[depth, "lin_l.bias"])


def _shapes(weight: Tensor) -> dict[str, tuple[int, ...]]:
    half = (len(weight), weight.shape[1] // 2)
    return {"lin_l.weight": half, "lin_l.bias": half[:1], "lin_r.weight": half}
