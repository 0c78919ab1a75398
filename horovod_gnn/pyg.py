"""`Graph` -> PyG's `Data`, and PyG's `Data` that was saved with `torch.save` -> `Graph`."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gnn_core.data.features import decode_features
from gnn_core.data.graph import Graph
from gnn_core.data.interop import from_pyg
from gnn_core.files import open_regular
from gnn_core.usage import UsageError, one_line


def to_pyg(graph: Graph) -> Any:
    """PyG's `Data` with `edge_index`, and `x`, `y` and masks where the graph has them.

    Features become dense float32, which may take far more memory than the graph; `y` is -1 where a
    node has no class.
    """
    from torch_geometric.data import Data

    rows = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    edge_index = np.stack([graph.indices, rows]).astype(np.int64)  # from neighbour to node
    data = Data(edge_index=torch.from_numpy(edge_index), num_nodes=graph.num_nodes)
    if graph.features is not None:
        data.x = torch.from_numpy(decode_features(np.array(graph.features)))
    if graph.labels is not None:
        data.y = torch.from_numpy(graph.labels.astype(np.int64))
    if graph.splits is not None:
        for mask, value in (("train_mask", 1), ("val_mask", 2), ("test_mask", 3)):
            data[mask] = torch.from_numpy(graph.splits == value)
    return data


def load_pyg(file: str | Path, name: str | None = None, directed: bool = False) -> Graph:
    """The graph of a `Data` that was saved, or of a `processed/data.pt` of one graph.

    It is read with `weights_only=True`: no code in it runs. Raises UsageError.
    """
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    path = Path(file)
    known = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
    open_regular(path).close()
    try:
        with torch.serialization.safe_globals(known):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        got = one_line(error)[:200]
        raise UsageError(
            f"{path}: expected a saved Data of PyG, got {got}; save it again"
        ) from None
    if isinstance(found, tuple):
        found = found[0]
    if isinstance(found, dict):
        found = _of_dict(path, found)
    if not hasattr(found, "edge_index"):
        got = type(found).__name__
        raise UsageError(f"{path}: expected a saved Data of PyG, got {got}; save another one")
    return from_pyg(found, name or path.stem, directed)


def _of_dict(path: Path, parts: dict[str, Any]) -> Any:
    """What `Data.to_dict` gives."""
    if "edge_index" not in parts:
        raise UsageError(f"{path}: expected edge_index, got {', '.join(map(str, parts))[:200]}")
    counts = [len(parts[key]) for key in ("x", "y", "train_mask") if parts.get(key) is not None]
    highest = int(parts["edge_index"].max()) + 1 if parts["edge_index"].numel() else 0
    return SimpleNamespace(**{"num_nodes": max([highest, *counts]), **parts})
