"""Look at a graph before training on it: tables on the terminal, figures in a folder.

    python baselines/eda.py                                   # Cora, to results/figures/eda
    python baselines/eda.py --dataset cora-linqs --output looks
    python baselines/eda.py --paper 1358 --hops 1             # draw the surroundings of that paper

Class sizes and splits, degrees, homophily by class, frequent words, and a drawing of the papers
around a well-connected one. No framework is needed, and nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from baselines.citation_plots.measures import (
    ClassMeasures,
    WordMeasures,
    measure_classes,
    measure_words,
    require_small_and_labelled,
    well_connected,
)
from gnn_core.data import datasets
from gnn_core.data.graph import Graph
from gnn_core.data.graph_statistics import edge_homophily, statistics
from gnn_core.data.sources import NotHere
from gnn_core.files import file_stem, path_argument
from gnn_core.launch import guarded
from gnn_core.markup import without_math
from gnn_core.usage import Parser, UsageError, whole


def main() -> int:
    """Read the command line, print the tables, draw the figures; the exit code."""
    options = _parse(sys.argv[1:])
    graph = _open(options)
    require_small_and_labelled(graph)
    if options.paper is not None and not 0 <= options.paper < graph.num_nodes:
        raise UsageError(
            f"--paper: expected a paper from 0 to {graph.num_nodes - 1}, got {options.paper}"
        )
    classes, words = measure_classes(graph), measure_words(graph)
    print(statistics(graph))
    print(f"\n{class_table(graph, classes, words)}\n\n{word_table(classes, words)}\n")
    centre = options.paper
    if centre is None:
        centre = well_connected(graph, options.hops, options.most)
    for path in draw(graph, classes, words, centre, options.hops, options.output):
        print(f"drew {path}")
    return 0


def _open(options: argparse.Namespace) -> Graph:
    """The graph that was asked for; where none was and Cora cannot be had, a generated one."""
    where = (options.data_root, options.cache_dir)
    try:
        return datasets.load(options.dataset or "cora", *where)
    except NotHere as missing:
        if options.dataset is not None:
            raise
        print(f"no cora here, so this is --dataset synthetic: {missing}\n", flush=True)
    return datasets.load("synthetic", *where)


def class_table(graph: Graph, classes: ClassMeasures, words: WordMeasures) -> str:
    """One line per class, the largest first."""
    labels, degrees = np.asarray(graph.labels), np.diff(graph.indptr)
    lines = [
        f"{'class':<24}{'papers':>8}{'train':>7}{'valid':>7}{'test':>7}{'degree':>8}"
        f"{'words':>7}{'within':>9}{'chance':>9}"
    ]
    for label in np.argsort(-classes.sizes, kind="stable"):
        mine = labels == label
        if not mine.any():
            continue
        none, train, valid, test = classes.in_split[label]
        lines.append(
            f"{classes.names[label]:<24}{classes.sizes[label]:>8}{train:>7}{valid:>7}{test:>7}"
            f"{degrees[mine].mean():>8.1f}{words.per_paper[mine].mean():>7.1f}"
            f"{100 * classes.homophily[label]:>7.0f} %{100 * classes.by_chance[label]:>7.0f} %"
        )
    homophily = edge_homophily(graph) or 0.0
    lines.append(
        f"within: share of a class's citations that stay in it; {100 * homophily:.1f} % of all do"
    )
    return "\n".join(lines)


def word_table(classes: ClassMeasures, words: WordMeasures, top: int = 10) -> str:
    """The most frequent words, one a line."""
    lines = [f"{'word':<8}{'papers':>8}{'share':>8}   class that favours it"]
    for word in np.argsort(-words.papers_with, kind="stable")[:top]:
        count = words.papers_with[word]
        lines.append(
            f"{word:<8}{count:>8}{100 * count / len(words.per_paper):>6.1f} %   "
            f"{classes.names[words.likeliest_class[word]]}, {words.lift[word]:.1f} times as often"
        )
    low, middle, high = np.percentile(words.per_paper, (0, 50, 100)).astype(int)
    lines.append(f"words per paper: {low} to {high}, median {middle}")
    return "\n".join(lines)


def draw(
    graph: Graph, classes: ClassMeasures, words: WordMeasures, centre: int, hops: int, folder: Path
) -> list[Path]:
    """Write every figure as a PNG; the files. Raises UsageError when the folder cannot be."""
    # matplotlib takes most of a second to import, and a wrong flag should be reported at once.
    from baselines.citation_plots import drawings

    figures = {
        "classes": drawings.draw_classes(graph, classes),
        "degrees": drawings.draw_degrees(graph),
        "homophily": drawings.draw_homophily(graph, classes),
        "words": drawings.draw_words(graph, classes, words),
        "neighbourhood": drawings.draw_neighbourhood(graph, classes, centre, hops),
    }
    paths = {
        folder / f"{file_stem(graph.name)}-{name}.png": figure for name, figure in figures.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, figure in paths.items():
            without_math(figure)
            figure.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as problem:
        reason = problem.strerror or problem
        raise UsageError(
            f"--output: expected a folder for figures, but {folder}: {reason}"
        ) from None
    return list(paths)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser.of(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="data set (default: cora, else synthetic)")
    add("--data-root", metavar="DIR", help="published files (default: $RINGSAGE_DATA)")
    add("--cache-dir", metavar="DIR", help="prepared graphs (default: $RINGSAGE_CACHE)")
    add(
        "--output",
        type=path_argument,
        default=Path("results/figures/eda"),
        metavar="DIR",
        help="folder of the figures (default: results/figures/eda)",
    )
    add("--paper", type=whole(0), metavar="N", help="centre of the drawing (default: see --most)")
    add("--hops", type=whole(1, 3), default=2, metavar="N", help="how far around it (default: 2)")
    add(
        "--most",
        type=whole(),
        default=150,
        metavar="N",
        help="without --paper, the paper with most neighbours is taken of which no more than N "
        "papers lie around (default: 150)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(guarded(main))
