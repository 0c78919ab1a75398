"""Predict links without learning: the rules of thumb that a model has to beat.

    python baselines/heuristics.py --dataset synthetic
    python baselines/heuristics.py --dataset cora --seeds 0-2 --json results/heuristics-cora.json

Each held-out reference is ranked among the same candidates as in training (`--task link`), by the
neighbours that the two papers share, counted in four ways, or by how often the candidate is linked
already. All of them see the training edges alone. Of a synthetic graph there is also the oracle,
which knows the rules by which the graph was made: the best that can be expected of a model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import numpy.typing as npt
from scipy import sparse

from baselines.oracle import Oracle
from gnn_core.bench.frame import add_json_flag, columns_text, require_place, write_bench
from gnn_core.config import RunConfig
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.synthetic_spec import PRESETS, SyntheticSpec
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.metrics import RankingTally
from gnn_core.training.tasks import open_for
from gnn_core.usage import Parser, finite, read_whole, shown, whole

_MEANING = {
    "common neighbours": "papers linked to both (Liben-Nowell, Kleinberg, CIKM 2003)",
    "Jaccard": "common neighbours divided by the papers linked to either (ibid.)",
    "Adamic-Adar": "common neighbours, each divided by the logarithm of its degree (ibid.)",
    "resource allocation": "common neighbours, each divided by its degree (Zhou, Lü, Zhang, EPJ B)",
    "preferential attachment": "product of the numbers of links of both (Liben-Nowell, Kleinberg)",
}
_ORACLE = "oracle"
_ORACLE_MEANING = "probability by the rules that made the graph (baselines/oracle.py)"
_CHUNK_EDGES = 64
_MOST_SEEDS = 10_000
Score = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float64]]


def main() -> int:
    """Rank by each rule, print and keep the figures; the exit code."""
    options = _parse(sys.argv[1:])
    require_place(options.json)
    is_made = options.dataset.partition(":")[0] in PRESETS and not options.no_oracle
    names = [*_MEANING, *([_ORACLE] if is_made else [])]
    tallies: dict[str, list[RankingTally]] = {name: [] for name in names}
    config = None
    for seed in options.seeds:
        config = RunConfig(
            dataset=options.dataset,
            data_root=options.data_root,
            cache_dir=options.cache_dir,
            hold_out=options.hold_out,
            held_out=options.held_out,
            seed=seed,
            task="link",
            candidates=options.candidates,
        )
        graph = open_for(config, lambda line: print(line, file=sys.stderr, flush=True))
        rules = heuristics(graph)
        if is_made:
            rules[_ORACLE] = Oracle(SyntheticSpec.parse(options.dataset), graph).scores
        for name, score in rules.items():
            tallies[name].append(ranked(graph, options.split, options.candidates, score))
    assert config is not None
    record = _record(config, options, tallies)
    _print(record)
    if options.json:
        write_bench(options.json, record)
    return 0


def heuristics(graph: Graph) -> dict[str, Score]:
    """Each rule: (papers `[n]`, others of each `[n, k]`) -> scores `[n, k]`."""
    size = graph.num_nodes
    ones = np.ones(graph.num_edges, np.float64)
    links = sparse.csr_array((ones, graph.indices, graph.indptr), (size, size))
    degrees = np.diff(graph.indptr).astype(np.float64)

    def common(weights: npt.NDArray[np.float64]) -> Score:
        weighted = sparse.diags_array(weights) @ links

        def score(
            papers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
        ) -> npt.NDArray[np.float64]:
            found = links[papers] @ weighted  # sparse: a row of all papers may not fit the memory
            found.sum_duplicates()  # and sorts, so that each of the others is looked up quickly
            picked: npt.NDArray[np.float64] = found[
                np.arange(len(papers))[:, None], others
            ].toarray()
            return picked

        return score

    common_neighbours = common(np.ones(size))

    def jaccard(
        papers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        shared = common_neighbours(papers, others)
        return shared / np.maximum(degrees[papers][:, None] + degrees[others] - shared, 1)

    def preferential_attachment(
        papers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        return degrees[papers][:, None] * degrees[others]

    adamic_adar = common(1 / np.log(np.maximum(degrees, 2)))
    resource_allocation = common(1 / np.maximum(degrees, 1))
    rules = (
        *(common_neighbours, jaccard, adamic_adar, resource_allocation),
        preferential_attachment,
    )
    return dict(zip(_MEANING, rules, strict=True))


def ranked(graph: Graph, split: str, count: int, score: Score) -> RankingTally:
    """The tally of a split whose references are ranked by `score`. Raises UsageError."""
    edges = np.asarray(getattr(graph, f"{split}_edges"), np.int64)
    candidates = Candidates(graph, split, count)
    total = RankingTally()
    for first in range(0, len(edges), _CHUNK_EDGES):
        rows = np.arange(first, min(first + _CHUNK_EDGES, len(edges)))
        others = np.concatenate([edges[rows, 1:], candidates.of(rows)], axis=1)
        scores = score(edges[rows, 0], others)
        total += RankingTally.of(scores[:, 0], scores[:, 1:])
    return total


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        usage="heuristics.py [--flag value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="synthetic", metavar="NAME", help="as in training")
    add("--data-root", metavar="DIR", help="as in training")
    add("--cache-dir", metavar="DIR", help="as in training")
    add("--hold-out", choices=("newest", "random", "published"), help="as in training")
    add("--held-out", type=finite(), metavar="X", help="as in training")
    add("--candidates", type=whole(), default=1000, metavar="N", help="as in training")
    add("--split", choices=("valid", "test"), default="test", help="whose references are ranked")
    add(
        "--seeds", type=seed_list, default=[0], metavar="LIST", help="such as 3 or 0-2 (default: 0)"
    )
    add(
        "--no-oracle",
        action="store_true",
        help="leave out the oracle of a synthetic graph, which reads all edges for each reference",
    )
    add_json_flag(parser)
    return parser.parse_args(argv)


def seed_list(text: str) -> list[int]:
    """The seeds in `3` or `0-2`. Raises ArgumentTypeError."""
    first, _, last = text.partition("-")
    try:
        begin, end = read_whole(first), read_whole(last or first)
        return list(range(begin, end + 1)) if 0 <= end - begin < _MOST_SEEDS else _refuse(text)
    except ValueError:
        return _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"expected seeds such as 3 or 0-2, got {shown(text)}")


def _record(
    config: RunConfig, options: argparse.Namespace, tallies: dict[str, list[RankingTally]]
) -> dict[str, Any]:
    """Means over the seeds and what they were measured on, as JSON can hold it."""
    names = ("mrr", "hits_1", "hits_10", "hits_100", "auc")
    rows = []
    for rule, found in tallies.items():
        fields = [tally.fields() for tally in found]
        rows.append([rule, *(float(np.mean([one[name] for one in fields])) for name in names)])
    return {
        "benchmark": f"link heuristics on {options.dataset}",
        **machine.origin(machine.hardware()),
        "settings": {
            "dataset": options.dataset,
            "split": options.split,
            "hold_out": config.hold_out,
            "held_out": config.held_out,
            "candidates": options.candidates,
            "seeds": len(options.seeds),
            "references": tallies["common neighbours"][0].count,
        },
        "columns": ["heuristic", "MRR", "hits@1", "hits@10", "hits@100", "AUC"],
        "rows": rows,
        "notes": [
            f"{name}: {meaning}"
            for name, meaning in {**_MEANING, _ORACLE: _ORACLE_MEANING}.items()
            if name in tallies
        ],
    }


def _print(record: dict[str, Any]) -> None:
    settings = record["settings"]
    print(
        f"{settings['dataset']}: {settings['references']:,} references of the {settings['split']} "
        f"split among {settings['candidates']:,} candidates each ({settings['hold_out']})"
    )
    rows = [[name, *(f"{value:.4f}" for value in values)] for name, *values in record["rows"]]
    print(columns_text([record["columns"], *rows], [26, *[10] * (len(record["columns"]) - 1)]))


if __name__ == "__main__":
    sys.exit(guarded(main))
