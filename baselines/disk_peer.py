"""Train GraphSAGE as users of another library do whose features exceed memory; started by a bench.

    PYTHON baselines/disk_peer.py pyg --folder GRAPH --targets-per-step 512 --fanouts 10,10
    PYTHON baselines/disk_peer.py graphbolt --folder GRAPH --targets-per-step 512 --fanouts 10,10

PYTHON has the library: for `pyg` torch_geometric with pyg-lib or torch-sparse, for `graphbolt` dgl.
Both read the features from a memory map of their file. The last line printed is JSON: seconds and
loss of each epoch, and versions. It needs nothing of this project: `gnn_core.bench.disk_training
--peer` gives it a graph folder and a limit of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Step = tuple[Tensor, Any, Tensor]  # rows of features, what the model needs of edges, labels
_DROPOUT = 0.5
_LEARNING_RATE = 0.001


def main() -> int:
    """Train; 2 where the library is not there."""
    options = _parse()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        batches, layer_of = _LIBRARIES[options.library](options)
    except ImportError as error:
        print(f"error: {options.library}: {error}", file=sys.stderr)
        return 2
    features = np.load(options.folder / "features.npy", mmap_mode="r")
    classes = int(np.load(options.folder / "labels.npy").max()) + 1
    widths = [features.shape[1], *[options.hidden] * (len(options.fanouts) - 1), classes]
    layers = nn.ModuleList(layer_of(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))
    optimizer = torch.optim.Adam(layers.parameters(), lr=_LEARNING_RATE)
    epochs = []
    for _ in range(options.epochs):
        start, losses = time.perf_counter(), []
        for states, edges, labels in batches():
            for depth, layer in enumerate(layers):
                states = layer(*_inputs(options.library, states, edges, depth))
                if depth < len(layers) - 1:
                    states = functional.dropout(functional.relu(states), _DROPOUT)
            loss = functional.cross_entropy(states[: len(labels)].float(), labels.long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        epochs.append({"seconds": time.perf_counter() - start, "loss": float(np.mean(losses))})
        print(f"epoch {len(epochs)}: {epochs[-1]}", file=sys.stderr, flush=True)
    print(json.dumps({"epochs": epochs, "torch": torch.__version__}))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("library", choices=sorted(_LIBRARIES))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--targets", type=int, help="of an epoch, the first (default: all)")
    parser.add_argument("--targets-per-step", type=int, default=512)
    parser.add_argument("--fanouts", default="10,10")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    options.fanouts = [int(one) for one in options.fanouts.split(",")]
    return options


def _arrays(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Offsets, neighbours, features (mapped), labels and training targets of a graph folder."""
    folder = options.folder
    indptr, indices, labels = (
        torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.int64))
        for name in ("indptr", "indices", "labels")
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        features = torch.from_numpy(np.load(folder / "features.npy", mmap_mode="r"))
    train = torch.from_numpy(np.flatnonzero(np.load(folder / "splits.npy") == 1))
    return indptr, indices, features, labels, train[: options.targets]


def _pyg(options: argparse.Namespace) -> tuple[Callable[[], Iterable[Step]], Callable]:
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader
    from torch_geometric.nn import SAGEConv
    from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

    if not (WITH_PYG_LIB or WITH_TORCH_SPARSE):
        raise ImportError("its NeighborLoader needs pyg-lib or torch-sparse")
    indptr, indices, features, labels, train = _arrays(options)
    targets = torch.repeat_interleave(torch.arange(len(labels)), indptr.diff())
    loader = NeighborLoader(
        Data(x=features, y=labels, edge_index=torch.stack([indices, targets])),
        num_neighbors=options.fanouts,
        input_nodes=train,
        batch_size=options.targets_per_step,
        shuffle=True,
        is_sorted=True,
        num_workers=1,
        persistent_workers=True,
    )

    def batches() -> Iterator[Step]:
        for batch in loader:
            yield batch.x, batch.edge_index, batch.y[: batch.batch_size]

    return batches, SAGEConv


def _graphbolt(options: argparse.Namespace) -> tuple[Callable[[], Iterable[Step]], Callable]:
    from dgl import graphbolt
    from dgl.nn import SAGEConv

    indptr, indices, features, labels, train = _arrays(options)
    graph = graphbolt.fused_csc_sampling_graph(indptr, indices)
    store = graphbolt.BasicFeatureStore(
        {("node", None, "feat"): graphbolt.TorchBasedFeature(features)}
    )
    items = graphbolt.ItemSet((train, labels[train]), names=("seed_nodes", "labels"))
    pipe = graphbolt.ItemSampler(items, batch_size=options.targets_per_step, shuffle=True)
    pipe = pipe.sample_neighbor(graph, options.fanouts)
    pipe = pipe.fetch_feature(store, node_feature_keys=["feat"])
    loader = graphbolt.DataLoader(pipe, num_workers=1)

    def batches() -> Iterator[Step]:
        for batch in loader:
            yield batch.node_features["feat"], batch.blocks, batch.labels

    return batches, lambda width, out: SAGEConv(width, out, "mean")


def _inputs(library: str, states: Tensor, edges: Any, depth: int) -> tuple[Any, ...]:
    if library == "pyg":
        return states, edges
    return edges[depth], states


_LIBRARIES: dict[str, Callable] = {"pyg": _pyg, "graphbolt": _graphbolt}

if __name__ == "__main__":
    sys.exit(main())
