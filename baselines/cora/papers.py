"""What the models know of a graph: words, citations, and the labels of the training papers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baselines.cora.settings import CoraSettings
from gnn_core.data import datasets
from gnn_core.data.catalog import NO_FILES
from gnn_core.data.graph import Graph
from gnn_core.data.progress import Say
from gnn_core.data.sources import NotHere
from gnn_core.measure.metrics import SPLITS
from gnn_core.usage import UsageError


@dataclass(frozen=True, eq=False)
class Papers:
    """N papers with F words in C classes. Training reads `labels` at `nodes["train"]` only."""

    words: npt.NDArray[np.float32]  # [N, F], 1 where the paper has the word, else 0
    indptr: npt.NDArray[np.int64]  # [N + 1]
    indices: npt.NDArray[np.integer]  # [E], whom a paper cites or is cited by
    labels: npt.NDArray[np.int32]  # [N]
    nodes: dict[str, npt.NDArray[np.int64]]  # split -> its papers
    num_classes: int

    @classmethod
    def of(cls, graph: Graph) -> Papers:
        """Take what is needed out of a graph. Raises UsageError when it has no such thing."""
        if graph.features is None or graph.labels is None or graph.feature_dtype == "bfloat16":
            raise UsageError(
                f"graph {graph.name}: expected words and classes of each paper, got "
                f"{graph.feature_dtype or 'no'} features, {graph.num_classes} classes; "
                "choose --dataset cora or cora-linqs"
            )
        nodes = {split: graph.split(split) for split in SPLITS}
        if empty := [split for split in SPLITS if not len(nodes[split])]:
            raise UsageError(
                f"graph {graph.name}: expected {empty[0]} papers, got none; "
                "choose --dataset cora or cora-linqs"
            )
        # Readers divide a row of words by its sum; here it is only whether a paper has the word.
        words = (np.asarray(graph.features) != 0).astype(np.float32)
        return cls(
            words, graph.indptr, graph.indices, np.asarray(graph.labels), nodes, graph.num_classes
        )

    @property
    def num_papers(self) -> int:
        """N."""
        return len(self.words)


def open_graph(settings: CoraSettings, progress: Say | None = None) -> Graph:
    """The graph that the settings name. Raises UsageError; no other data set stands in for it."""
    try:
        where = (settings.data_root, settings.cache_dir)
        return datasets.load(settings.dataset, *where, progress=progress)
    except NotHere as missing:
        raise UsageError(str(missing).partition(NO_FILES)[0].rstrip(" ,;")) from None
