"""A copy of a graph whose features take 16 bits each, prepared once: `--table-dtype fp16 | bf16`.

Gathering input features is bound by memory, and half as many bytes are read in less time. Only the
stored features are rounded; the trainers widen them and compute as `--precision` says.
`gnn_core.training.tasks` asks for the copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.data.checks import ARRAY_NAMES, spans
from gnn_core.data.features import FEATURE_DTYPES, SparseFeatures, decode_features, encode_features
from gnn_core.data.graph import Graph
from gnn_core.data.prepare import prepare
from gnn_core.data.progress import Progress, Say
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

TABLE_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}  # by the name that the flag takes
_LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}


def with_table_dtype(graph: Graph, dtype: str, cache: Path, say: Say | None = None) -> Graph:
    """The graph with its features rounded to `dtype`, prepared below `cache` if it is not yet.

    Args:
        graph: opened from a folder, with features.
        dtype: `stored` returns the graph as it is; `fp16` or `bf16`.
        cache: as of `gnn_core.data.datasets.find_cache`.
        say: gets in single lines what takes time.

    Raises:
        UsageError: a feature is too large for `dtype`, or the features are sparse.
    """
    if dtype == "stored" or graph.feature_dtype == TABLE_DTYPES[dtype]:
        return graph
    if isinstance(graph.features, SparseFeatures):
        raise UsageError(
            f"--table-dtype {dtype}: expected a dense table, but graph {graph.name} keeps its "
            "features as sparse rows, which take less room than 16 bits each; leave it out"
        )
    assert graph.folder is not None
    identity = {"of": graph.fingerprint, "feature_dtype": TABLE_DTYPES[dtype]}
    folder = cache / "graphs" / f"{graph.folder.name}-{dtype}-{graph.fingerprint[:12]}"

    def make(progress: Progress) -> None:
        _write(graph, dtype, folder, identity, progress)

    title = f"{graph.name}, features in {TABLE_DTYPES[dtype]}"
    prepare(folder, title, lambda meta: meta["provenance"] == identity, make, say)
    return Graph.open(folder)


def _write(
    graph: Graph, dtype: str, folder: Path, identity: dict[str, Any], progress: Progress
) -> None:
    features, source = graph.features, graph.folder
    assert features is not None and source is not None
    with GraphWriter(folder, graph.name) as writer:
        for name in ARRAY_NAMES:
            if name != "features" and getattr(graph, name) is not None:
                writer.adopt(name, source, graph.meta["checksums"][f"{name}.npy"])
        writer.adopt_ids(source, graph.meta["checksums"])
        stored = FEATURE_DTYPES[TABLE_DTYPES[dtype]]
        with writer.stream("features", stored, features.shape) as rows:
            row_bytes = features.itemsize * features.shape[1]
            for span in spans(len(features), row_bytes, full=True):
                progress("features", span.start, len(features))
                values = decode_features(features[span])
                if (largest := np.abs(values).max()) > _LARGEST[dtype]:
                    raise UsageError(
                        f"--table-dtype {dtype}: expected features of at most {_LARGEST[dtype]:g}, "
                        f"got {largest:g} in graph {graph.name}; leave it out"
                        + (" or use bf16" if dtype == "fp16" else "")
                    )
                rows.write(encode_features(values, TABLE_DTYPES[dtype]))
        writer.finish(graph.num_classes, identity)
