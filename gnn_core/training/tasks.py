"""What the tasks ask of a graph, and how many targets it has for them."""

from __future__ import annotations

from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.data.progress import Say

# Data sets that have a version with the direction of citations, which link prediction needs.
_DIRECTED = {"cora": "cora-linqs"}


def open_for(config: RunConfig, say: Say) -> Graph:
    """The run's graph, with edges held out if links are to be predicted. Raises UsageError."""
    is_link = config.task == "link"
    name = _DIRECTED.get(config.dataset, config.dataset) if is_link else config.dataset
    graph = datasets.load(name, config.data_root, config.cache_dir, config.verify, progress=say)
    if not is_link:
        _require_labels(graph)
        return graph
    assert config.hold_out is not None
    split = LinkSplit(config.hold_out, config.held_out or 0.0, config.seed, config.svd_width)
    return link_graph(graph, split, datasets.find_cache(config.cache_dir), say)


def split_sizes(graph: Graph, task: str) -> dict[str, int]:
    """Targets of each split: nodes, or edges."""
    names = ("train", "valid", "test")
    if task == "link":
        return {name: len(getattr(graph, f"{name}_edges")) for name in names}
    return {name: len(graph.split(name)) for name in names}


def _require_labels(graph: Graph) -> None:
    missing = [what for what in ("features", "labels", "splits") if getattr(graph, what) is None]
    if not missing:
        missing = [f"{name} nodes" for name, size in split_sizes(graph, "node").items() if not size]
    if missing:
        raise UsageError(
            f"graph {graph.name}: node classification needs {missing[0]}, and it has none; choose "
            "another --dataset"
        )
