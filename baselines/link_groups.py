"""Where a model ranks missing citations better than the rules do: by age and links of the cited.

    python baselines/single.py --task link --dataset cit-hepth --checkpoint-dir saved
    python baselines/link_groups.py --checkpoint-dir saved --json groups.json
    python -m gnn_core.report.link_figure groups.json groups.svg

MRR of the test references of the model's own graph, in groups: by how many training links the
cited paper has, and by the years between the two papers. The rules are those of
`baselines/heuristics.py`.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    gc.disable()  # until all is imported: collecting garbage meanwhile takes half a second

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

import numpy as np
import numpy.typing as npt

from baselines.heuristics import Score, heuristics
from gnn_core.bench.frame import add_json_flag, columns_text, origin, require_place, write_bench
from gnn_core.config import RunConfig
from gnn_core.data.candidates import Candidates
from gnn_core.data.graph import Graph
from gnn_core.data.pair_structure import pair_structure
from gnn_core.files import path_argument
from gnn_core.inference.request import settings_of
from gnn_core.measure import machine
from gnn_core.training.checkpoint import model_of, read_model
from gnn_core.training.evaluate import ExactEvaluator
from gnn_core.training.link_ranking import scored
from gnn_core.training.tasks import open_for
from gnn_core.usage import Parser, UsageError
from horovod_gnn.evaluate import LinkLayers
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.prediction import open_layers

MODEL = "model"
_RULES = ("common neighbours", "Adamic-Adar", "resource allocation")
_CHUNK_EDGES = 64
# The least value of each group.
_LINKS = (0, 1, 3, 10, 30, 100)
_YEARS = (0, 1, 2, 3, 5)


def main() -> int:
    """Rank, print and keep the figures; the exit code."""
    options = _parse(sys.argv[1:])
    require_place(options.json)
    saved = model_of(read_model(options.checkpoint_dir, f"{options.weights}.safetensors"))
    config = settings_of(
        saved, data_root=options.data_root, cache_dir=options.cache_dir, device="cpu"
    )
    if config.task != "link":
        raise UsageError(
            "--checkpoint-dir: expected a model of --task link, got one of --task node; give "
            "another"
        )
    graph = open_for(config, lambda line: print(line, file=sys.stderr, flush=True))
    if graph.fingerprint != saved.fingerprint:
        raise UsageError(
            f"--checkpoint-dir: expected a model that was trained on {graph.name} as it is now, "
            "got one of another graph; train it anew"
        )
    rules = heuristics(graph)
    scores = {MODEL: _model_scores(options, config, graph)} | {name: rules[name] for name in _RULES}
    count = config.candidates
    ranks = {name: reciprocal_ranks(graph, count, score) for name, score in scores.items()}
    record = _record(config, graph, ranks)
    rows = [[row[0], *(_text(value) for value in row[1:])] for row in record["rows"]]
    print(columns_text([record["columns"], *rows], [26, *[20] * (len(record["columns"]) - 1)]))
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser.of(__doc__, usage="link_groups.py --checkpoint-dir DIR [--flag value ...]")
    add = parser.add_argument
    add("--checkpoint-dir", required=True, type=path_argument, metavar="DIR", help="of the model")
    add("--weights", choices=("best", "last"), default="best", help="which of its checkpoints")
    add("--data-root", metavar="DIR", help="as in training")
    add("--cache-dir", metavar="DIR", help="as in training")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _model_scores(options: argparse.Namespace, config: RunConfig, graph: Graph) -> Score:
    layers = open_layers(options.checkpoint_dir, graph, options.weights)
    assert isinstance(layers, LinkLayers)
    states = ExactEvaluator(graph, SingleProcess(), layers).embeddings(np.arange(graph.num_nodes))
    structure = pair_structure(config, graph)

    def score(
        papers: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        return np.asarray(scored(layers, states, structure, papers, others), np.float64)

    return score


def reciprocal_ranks(graph: Graph, count: int, score: Score) -> npt.NDArray[np.float64]:
    """1 / rank of each test reference among its candidates; ties as in `RankingTally`."""
    edges = np.asarray(graph.test_edges, np.int64)
    candidates = Candidates(graph, "test", count)
    found = []
    for first in range(0, len(edges), _CHUNK_EDGES):
        rows = np.arange(first, min(first + _CHUNK_EDGES, len(edges)))
        others = np.concatenate([edges[rows, 1:], candidates.of(rows)], axis=1)
        scores = score(edges[rows, 0], others)
        own, rest = scores[:, :1], scores[:, 1:]
        found.append(1 / (1 + (rest > own).sum(axis=1) + (rest == own).sum(axis=1) / 2))
    return np.concatenate(found) if found else np.empty(0)


def groups(graph: Graph) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Names of the groups, and which test references are in each."""
    edges = np.asarray(graph.test_edges, np.int64)
    yield "all", np.ones(len(edges), np.bool_)
    yield from _bands("links of the cited paper", np.diff(graph.indptr)[edges[:, 1]], _LINKS)
    if graph.years is not None:
        years = np.asarray(graph.years)
        yield from _bands("years apart", years[edges[:, 0]] - years[edges[:, 1]], _YEARS)


def _bands(
    what: str, values: npt.NDArray[np.integer], least: Sequence[int]
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    for low, end in zip(least, [*least[1:], None], strict=True):
        is_in = values >= low if end is None else (values >= low) & (values < end)
        last = "or more" if end is None else "" if end == low + 1 else f"to {end - 1}"
        if is_in.any():
            yield f"{what}: {f'{low} {last}'.strip()}", is_in


def _record(
    config: RunConfig, graph: Graph, ranks: dict[str, npt.NDArray[np.float64]]
) -> dict[str, Any]:
    rows = [
        [name, int(is_in.sum()), *(float(found[is_in].mean()) for found in ranks.values())]
        for name, is_in in groups(graph)
    ]
    return {
        "benchmark": "MRR by age and links of the cited paper",
        **origin(machine.hardware()),
        "settings": {
            "dataset": config.dataset,
            "hold_out": config.hold_out,
            "candidates": config.candidates,
            "predictor": config.predictor,
            "seed": config.seed,
        },
        "columns": ["test references", "count", *ranks],
        "rows": rows,
        "notes": ["links: of the training graph, in both directions"],
    }


def _text(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(guarded(main))
