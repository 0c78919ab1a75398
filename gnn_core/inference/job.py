"""Predictions of a saved model, computed by all ranks and written to one file.

Layers are computed exactly, for all neighbours, as evaluation computes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.data.ids import OriginalIds, class_names, original_ids
from gnn_core.data.pair_structure import PairStructure, pair_structure
from gnn_core.data.progress import Progress, reporter
from gnn_core.inference.citations import common_neighbours, missing_citations
from gnn_core.inference.nodes import chosen_nodes, listed_nodes
from gnn_core.inference.output import Output
from gnn_core.inference.request import CITATIONS, CLASSES, EMBEDDINGS, Plan, Request, files_of
from gnn_core.inference.tables import (
    CSV,
    PARQUET,
    Blocks,
    Table,
    write_csv,
    write_ids,
    write_npy,
    write_parquet,
)
from gnn_core.measure.console import Console
from gnn_core.measure.pair_scores import Calibration
from gnn_core.training.checkpoint import SavedModel
from gnn_core.training.evaluate import ExactEvaluator, LayerwiseModel
from gnn_core.training.link_ranking import LinkEvaluator, LinkScorer
from gnn_core.training.tasks import load_for, trained_on
from gnn_core.training.world import World
from gnn_core.usage import UsageError, shown

IntArray = npt.NDArray[np.int64]
_MOST_COMMON = 3  # common neighbours that are named of a pair
_CALIBRATED_BY = 5000  # validation references, at most


@dataclass(frozen=True)
class Graphs:
    """The graph that is predicted on."""

    whole: Graph  # with its splits, ids and all its edges
    read: Graph  # whose edges messages pass along, and whose features the model reads
    classes: list[str] | None = None  # what they are called

    @property
    def has_validation(self) -> bool:
        """Whether there are citations that the model did not train on, to fit probabilities to."""
        edges = self.read.valid_edges
        return edges is not None and len(edges) > 0


def open_graphs(config: RunConfig, saved: SavedModel, console: Console) -> Graphs:
    """The graph that `--dataset` names; it need not have labels or splits.

    For link prediction, messages pass along the training edges of the graph that the model was
    trained on, as in its evaluation, and along all edges of any other. Raises UsageError.
    """
    whole = load_for(config, console.progress)
    if config.task == "link":
        if _same_name(config.dataset, saved.settings["dataset"]):
            trained = trained_on(config, whole, console.progress)
            if trained.fingerprint == saved.fingerprint:
                return Graphs(whole, trained)
        if whole.features is None:
            raise UsageError(
                f"graph {whole.name}: expected features, or the graph that the model was trained "
                "on, whose features were made of its edges, got another one without features; "
                f"give --dataset {saved.settings['dataset']} as it was then"
            )
        return Graphs(whole, whole)
    if whole.features is None:
        raise UsageError(
            f"graph {whole.name}: a model of node classes needs features, and it has none; choose "
            "another --dataset"
        )
    names = names_of_classes(saved, whole)
    return Graphs(whole, trained_on(config, whole, console.progress), names)


def names_of_classes(saved: SavedModel, graph: Graph) -> list[str] | None:
    """What the classes are called: as in the training, else as in the graph.

    Raises UsageError where the two call them differently: a class would get another's name.
    """
    ours, theirs = saved.class_names, class_names(graph)
    if ours is None or theirs is None or ours == theirs:
        return ours or theirs
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if len({*pair}) > 1), 0)
    raise UsageError(
        f"graph {graph.name}: expected the classes that the checkpoint was trained with, got "
        f"others: class {at} is {shown(theirs[at])}, and was {shown(ours[at])}; import it with the "
        "same labels, or without any"
    )


def require_widths(saved: tuple[int, int], graph: Graph, config: RunConfig) -> None:
    """Raise UsageError for a graph of other features or classes than the checkpoint's.

    Args:
        saved: width of the features and number of classes that the saved model has.
        graph: may have no classes.
        config: of the saved model.
    """
    num_features, num_classes = saved
    got = [(num_features, graph.num_features, "features")]
    if config.task == "node" and graph.num_classes:
        got.append((num_classes, graph.num_classes, "classes"))
    for expected, found, what in got:
        if expected != found:
            raise UsageError(
                f"graph {graph.name}: expected {expected} {what}, as the checkpoint was trained "
                f"with, got {found}; give a graph of as many, or another --checkpoint-dir"
            )


def predict(
    request: Request, plan: Plan, graphs: Graphs, world: World, model: LayerwiseModel
) -> None:
    """Compute what is asked for and write it. Every rank must call it.

    Args:
        request: as the user typed it.
        plan: what it comes to.
        graphs: opened for it.
        world: the other ranks.
        model: the saved one; a `LinkScorer` for missing citations.

    Raises:
        UsageError: unknown ids, a full disk; on every rank.
        Stopped: a signal came.
    """
    console = Console.of(plan.config, world.rank)
    with world.errors_on_all_ranks():
        ids = original_ids(graphs.whole)
        dtype = rows_of(plan, model, graphs.has_validation)
    nodes, candidates = _asked_for(request, plan, graphs.whole, ids, world)
    started = time.monotonic()
    with Output(request.output, dtype, world) as output:
        rows = _Rows(plan, graphs, world, model, output, reporter(console.progress, "predicting"))
        if plan.what == CITATIONS:
            rows.add_citations(nodes, candidates)
        else:
            rows.add_layer(nodes)
        seconds = time.monotonic() - started
        table = Table(dtype, ids, graphs.classes)
        output.finish(files_of(request.output), partial(_write, table, nodes))
    what = "papers" if plan.what == CITATIONS else "nodes"
    ranks = f"{world.world_size} rank{'s' * (world.world_size > 1)}"
    console.say(
        f"predicted  {plan.what} of {len(nodes):,} {what} in {seconds:.2f} s on {ranks}: "
        f"{len(nodes) / max(seconds, 1e-9):,.0f} {what}/s\noutput     {request.output}"
    )


def rows_of(plan: Plan, model: LayerwiseModel, calibrated: bool = False) -> np.dtype[Any]:
    """The fields of the output; with probabilities of citations if these can be `calibrated`.

    Raises UsageError for more classes than there are.
    """
    real = model.dtype
    if plan.what == CITATIONS:
        return np.dtype(
            [
                *((name, np.int64) for name in ("paper", "rank", "candidate")),
                ("score", real),
                *([("probability", np.float64)] if calibrated else []),
                ("common_neighbours", np.int64),
                *((f"common_{i + 1}", np.int64) for i in range(_MOST_COMMON)),
            ]
        )
    if plan.what == CLASSES:
        width = model.widths[-1]
        if plan.top_k > width:
            raise UsageError(
                f"--top-k {plan.top_k}: expected at most {width}, the number of classes; lower it"
            )
        marks = [""] if plan.top_k == 1 else [f"_{i + 1}" for i in range(plan.top_k)]
        pairs = [[(f"class{mark}", np.int64), (f"probability{mark}", real)] for mark in marks]
        return np.dtype([("node", np.int64), *(field for pair in pairs for field in pair)])
    name = "embedding" if plan.what == EMBEDDINGS else "logit"
    return np.dtype([("node", np.int64), (name, real, (model.widths[plan.depth],))])


@dataclass(frozen=True)
class _Rows:
    """Computes this rank's rows of the output."""

    plan: Plan
    graphs: Graphs
    world: World
    model: LayerwiseModel
    output: Output
    progress: Progress

    @property
    def evaluator(self) -> ExactEvaluator:
        return ExactEvaluator(self.graphs.read, self.world, self.model, progress=self.progress)

    def add_layer(self, nodes: IntArray) -> None:
        """Add rows of classes, logits or embeddings of this rank's share of the nodes."""
        fields = self.output.dtype.names or ()
        top_k = self.plan.top_k

        def take(part: IntArray, rows: npt.NDArray[Any]) -> None:
            block = np.empty(len(part), self.output.dtype)
            block["node"] = part
            if self.plan.what == CLASSES:
                best = np.argsort(-rows, axis=1, kind="stable")[:, :top_k]
                probabilities = np.take_along_axis(softmax(rows), best, axis=1)
                for k in range(top_k):
                    block[fields[1 + 2 * k]] = best[:, k]
                    block[fields[2 + 2 * k]] = probabilities[:, k]
            else:
                block[fields[1]] = rows
            self.output.add(block)

        self.evaluator.layer(self.plan.depth, nodes, take)

    def add_citations(self, papers: IntArray, candidates: IntArray) -> None:
        """Add rows of the missing citations of this rank's share of the papers."""
        structure = pair_structure(self.plan.config, self.graphs.read)
        calibration = self._calibration(structure) if self.graphs.has_validation else None

        def take(paper: int, best: IntArray, scores: npt.NDArray[Any]) -> None:
            block = np.empty(len(best), self.output.dtype)
            block["paper"], block["rank"] = paper, np.arange(1, len(best) + 1)
            block["candidate"], block["score"] = best, scores
            if calibration is not None:
                block["probability"] = calibration.probabilities(scores)
            counts, common = common_neighbours(self.graphs.read, paper, best, _MOST_COMMON)
            block["common_neighbours"] = counts
            for i in range(_MOST_COMMON):
                block[f"common_{i + 1}"] = common[:, i]
            self.output.add(block)

        missing_citations(
            self.graphs.whole,
            self.evaluator,
            self.world,
            cast(LinkScorer, self.model),
            papers=papers,
            candidates=candidates,
            top_k=self.plan.top_k,
            structure=structure,
            take=take,
            progress=self.progress,
        )

    def _calibration(self, structure: PairStructure | None) -> Calibration:
        evaluator = LinkEvaluator(
            self.graphs.read,
            self.world,
            cast(LinkScorer, self.model),
            candidates=1,
            most_edges=_CALIBRATED_BY,
            structure=structure,
        )
        return evaluator.calibration()


def _asked_for(
    request: Request, plan: Plan, graph: Graph, ids: OriginalIds | None, world: World
) -> tuple[IntArray, IntArray]:
    """The nodes, or papers, and the candidates of these; none for other answers. Collective."""
    if plan.what != CITATIONS:
        return chosen_nodes(request.nodes, graph, ids, world), np.empty(0, np.int64)
    papers = listed_nodes(request.papers or "", "--papers", graph, ids, world)
    if request.candidates is None:
        return papers, np.arange(graph.num_nodes)
    return papers, listed_nodes(request.candidates, "--candidates", graph, ids, world)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities `[n, classes]` of logits of that shape."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _write(table: Table, nodes: IntArray, blocks: Blocks, files: Sequence[Path]) -> None:
    """Write the rows to the first of the files, and what they are of to the second, if any."""
    path, *others = files
    if path.suffix == CSV:
        write_csv(table, blocks, path)
    elif path.suffix == PARQUET:
        write_parquet(table, blocks, path)
    else:
        field = (table.dtype.names or ())[1]
        write_npy(blocks, path, field, (len(nodes), *table.dtype[field].shape))
        write_ids(table.ids, nodes, others[0])


def _same_name(dataset: str, trained_on: str) -> bool:
    """Whether both name one data set, or one folder."""
    return dataset == trained_on or Path(dataset).resolve() == Path(trained_on).resolve()
