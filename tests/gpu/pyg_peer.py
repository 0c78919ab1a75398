"""PyG's NeighborLoader and SAGEConv on one of our graphs and a GPU: targets a second, as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gnn_core.config import RunConfig  # noqa: E402
from gnn_core.data import datasets  # noqa: E402


def main(name: str) -> int:
    """Train three epochs; print the median of the last two."""
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader
    from torch_geometric.nn import GraphSAGE

    graph = datasets.load(name, None, None, progress=lambda line: None)
    recipe = RunConfig(dataset=name)
    targets = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    edges = torch.from_numpy(np.stack([np.array(graph.indices, np.int64), targets]))
    features = torch.from_numpy(np.array(graph.features, np.float32))
    data = Data(x=features, y=torch.from_numpy(np.array(graph.labels)).long(), edge_index=edges)
    loader = NeighborLoader(
        data,
        num_neighbors=list(recipe.fanouts),
        batch_size=recipe.global_batch_size,
        input_nodes=torch.from_numpy(np.array(graph.split("train"))),
        shuffle=True,
        num_workers=8,
        persistent_workers=True,
        filter_per_worker=True,
        pin_memory=True,
    )
    model = GraphSAGE(
        graph.num_features,
        recipe.hidden,
        len(recipe.fanouts),
        graph.num_classes,
        dropout=recipe.dropout,
    ).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        count = 0
        for batch in loader:
            batch = batch.to("cuda", non_blocking=True)
            optimizer.zero_grad()
            hops = {}
            if trims(batch):
                hops["num_sampled_nodes_per_hop"] = batch.num_sampled_nodes
                hops["num_sampled_edges_per_hop"] = batch.num_sampled_edges
            out = model(batch.x, batch.edge_index, **hops)[: batch.batch_size]
            functional.cross_entropy(out, batch.y[: batch.batch_size]).backward()
            optimizer.step()
            count += batch.batch_size
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    found = {"targets/s": round(count / median), "seconds": round(median, 3)}
    print(json.dumps({**found, "trimmed": trims(batch)}))
    return 0


def trims(batch: Any) -> bool:
    """Whether the loader says which nodes and edges each hop needs (only with pyg-lib)."""
    return getattr(batch, "num_sampled_nodes", None) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
