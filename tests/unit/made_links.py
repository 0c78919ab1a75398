"""Citation graphs with every oddity, their links held out, and ogbl-citation2 made small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from tests.unit.made_files import write_csv

Edges = npt.NDArray[np.int64]


def as_graph(citations: npt.ArrayLike, num_papers: int, **arrays: Any) -> Graph:
    """Make a graph of `citations` `[M, 2]` (citing, cited), linked both ways."""
    edges = np.asarray(citations).reshape(-1, 2)
    linked = np.zeros((num_papers, num_papers), np.bool_)
    linked[tuple(edges.T)] = True
    linked |= linked.T
    np.fill_diagonal(linked, False)
    indptr = np.concatenate([[0], np.cumsum(linked.sum(axis=1))])
    return Graph.from_arrays("citing", indptr, np.nonzero(linked)[1], citations=edges, **arrays)


def odd_citations(num_papers: int = 150, seed: int = 0) -> tuple[Edges, npt.NDArray[np.int32]]:
    """Make citations `[M, 2]` and years `[num_papers]`.

    Papers cite 0 to 8 that are not newer. Some citations are there twice, some papers cite each
    other, two cite themselves; the last three neither cite nor are cited.
    """
    random = np.random.default_rng(seed)
    years = random.integers(2000, 2010, num_papers).astype(np.int32)
    edges = []
    for paper in range(num_papers - 3):
        older = np.flatnonzero(years[:-3] <= years[paper])
        older = older[older != paper]
        count = min(int(random.integers(0, 9)), len(older))
        edges += [(paper, int(other)) for other in random.choice(older, count, replace=False)]
    some = [edges[i] for i in random.permutation(len(edges))[:30]]
    edges += [(cited, citing) for citing, cited in some[:15]] + some[15:] + [(0, 0), (7, 7)]
    return random.permutation(np.array(edges)), years


def citing(num_papers: int = 150, seed: int = 0, *, years: bool = True, width: int = 6) -> Graph:
    """Make the graph of such citations, with `width` features; with 0 it has none."""
    citations, found = odd_citations(num_papers, seed)
    features = np.random.default_rng(seed).normal(size=(num_papers, width)).astype(np.float32)
    return as_graph(
        citations, num_papers, years=found if years else None, features=features if width else None
    )


def linked_graph(
    cache: Path, how: str = "newest", share: float = 0.2, seed: int = 0, **of: Any
) -> Graph:
    """Hold links of such a graph out, prepared below `cache`."""
    return link_graph(citing(**of), LinkSplit(how, share, seed, 8), cache)


def both_ways(*edges: npt.ArrayLike) -> set[tuple[int, int]]:
    """Collect all edges of those lists, in both directions."""
    found = {(int(a), int(b)) for part in edges for a, b in np.asarray(part)}
    return found | {(b, a) for a, b in found}


@dataclass
class Citation2:
    """What the files of ogbl-citation2 hold; `papers` in all."""

    papers: int
    features: npt.NDArray[np.float32]
    years: npt.NDArray[np.int32]
    splits: dict[str, dict[str, Any]]  # split -> name of an array -> array
    edges: Edges  # of the raw file


def citation2(num_papers: int = 200, candidates: int = 30, seed: int = 0) -> Citation2:
    """Make contents for those files: as published, but few."""
    random = np.random.default_rng(seed)
    citations, years = odd_citations(num_papers, seed)
    order = random.permutation(len(citations))
    parts = {"valid": order[:20], "test": order[20:45], "train": order[45:]}
    splits: dict[str, dict[str, Any]] = {}
    for split, rows in parts.items():
        sources, targets = citations[rows].T
        splits[split] = {"source_node": sources.copy(), "target_node": targets.copy()}
        if split != "train":
            shape = (len(rows), candidates)
            splits[split]["target_node_neg"] = random.integers(0, num_papers, shape)
    features = random.normal(size=(num_papers, 5)).astype(np.float32)
    edges = random.permutation(citations[parts["train"]])  # in another order than the split's
    return Citation2(num_papers, features, years, splits, edges)


def write_citation2(data: Citation2, source: Path, *, tensors: bool = False, **form: Any) -> Path:
    """Write the published layout; `form` goes to `torch.save`."""
    import torch

    raw, split = source / "raw", source / "split" / "time"
    split.mkdir(parents=True)
    write_csv(raw / "edge.csv.gz", data.edges)
    write_csv(raw / "num-node-list.csv.gz", np.array([data.papers]))
    write_csv(raw / "num-edge-list.csv.gz", np.array([len(data.edges)]))
    write_csv(raw / "node-feat.csv.gz", data.features)
    write_csv(raw / "node_year.csv.gz", data.years)
    for which, arrays in data.splits.items():
        kept = {name: torch.from_numpy(a) for name, a in arrays.items()} if tensors else arrays
        torch.save(kept, split / f"{which}.pt", **form)
    return source
