"""Sentences about a run: what is printed at its start and end, per epoch and in a dry run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from gnn_core import models
from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph
from gnn_core.measure import machine
from gnn_core.measure.run_record import EpochRecord, RunRecord, WorldRecord
from gnn_core.measure.tensorboard import folder_of_run
from gnn_core.measure.timing import per_second
from gnn_core.models import ModelSettings
from gnn_core.training.evaluate import CHUNK_EDGES, CHUNK_NODES
from gnn_core.training.learner import Learner
from gnn_core.training.link_ranking import CHUNK_PAIRS
from gnn_core.training.tasks import (
    assigns_by_locality,
    assigns_to_owners,
    most_targets,
    targets_per_epoch,
)
from gnn_core.training.world import World
from gnn_core.usage import read_size

BEST_IS_LAST = "the best epoch is the last: more --epochs may gain"
NOTHING_LEFT = "nothing was left to train: all epochs are of the run that it resumed"
_SHOWN_SECTIONS = ("wait", "fetch", "compute", "communicate")


def opening(record: RunRecord, config: RunConfig, graph: Graph, learner: Learner) -> str:
    """What is about to run, where, and how it was launched."""
    is_link = config.task == "link"
    sizes = " / ".join(f"{size:,}" for size in record.dataset.splits.values())
    targets = "citations" if is_link else "targets"
    controller = f" over {record.controller}" if record.controller else ""
    lines = [
        f"launched   {record.launch_command}",
        f"ranks      {_ranks(record)} ({record.strategy}{controller})",
        f"graph      {graph.name}: {graph.num_nodes:,} nodes, {graph.num_edges:,} edges, "
        f"{graph.num_features:,} features"
        + (f"; {targets}: " if is_link else f", {graph.num_classes} classes; ")
        + f"train / valid / test {sizes}",
        f"model      {config.layers}-layer {models.title(config.to_dict())}, "
        f"hidden {config.hidden}"
        + (f", {config.predictor_layers}-layer predictor" if is_link else "")
        + f", {learner.num_parameters:,} parameters, {config.precision} on {learner.device}",
        f"batches    {config.global_batch_size:,} {targets} a step over all ranks"
        + (", assigned by locality" if graph.clusters is not None else "")
        + ", fan-outs "
        f"{','.join(map(str, config.fanouts))}",
    ]
    if is_link:
        lines.append(
            f"held out   {config.hold_out}; each reference is ranked among {config.candidates:,} "
            "candidates"
        )
    lines += _length(config, graph)
    return "\n".join(lines + [f"note       {note}" for note in notes(record, learner)])


def _length(config: RunConfig, graph: Graph) -> list[str]:
    """A line on how long the recipe of a folder makes the run; none if it did not."""
    if config.origins.get("epochs") != "recipe" or not config.counts_steps:
        return []
    targets = targets_per_epoch(config, graph)
    steps = -(-targets // config.global_batch_size)
    text = (
        f"recipe     {config.epochs * steps:,} steps: {config.epochs} epochs of {steps:,} for "
        f"{targets:,} training {'citations' if config.task == 'link' else 'targets'}, evaluated "
        f"every {config.eval_every}"
    )
    if config.patience:
        text += f"; stops after {config.patience} evaluations without a gain"
    return [text]


def _ranks(record: RunRecord) -> str:
    hosts = zip(record.hosts, record.ranks_per_host, strict=True)
    return f"{record.world_size}: " + ", ".join(f"{count} on {host}" for host, count in hosts)


def new_world(world: WorldRecord, before: WorldRecord) -> str:
    """One line about the ranks that go on after others have gone or joined."""
    gone = [host for host in before.hosts if host not in world.hosts]
    come = [host for host in world.hosts if host not in before.hosts]
    named = {"without": gone, "and with" if gone else "with": come}
    changes = [f"{word} {', '.join(hosts)}" for word, hosts in named.items() if hosts]
    ranks = sum(world.ranks_per_host)
    return (
        f"goes on    on {' '.join([f'{ranks} rank' + 's' * (ranks > 1), *changes])} from epoch "
        f"{world.epoch + 1}, step {world.step + 1}, after {world.seconds_between or 0:.1f} s"
    )


def notes(record: RunRecord, learner: Learner) -> list[str]:
    """What a reader of this run's numbers has to know."""
    found = []
    cores = record.machine["cores_available"]
    if max(record.ranks_per_host) * record.config["threads"] > cores:
        found.append(f"more ranks x threads than {cores} cores: shows correctness, not speed-up")
    return found + learner.notes()


def epoch(record: EpochRecord, epochs: int, targets: str = "targets") -> str:
    """One line about an epoch."""
    rate = per_second(record.num_targets, record.seconds)
    shown = (f"{name} {record.sections.get(name, 0.0):.2f}" for name in _SHOWN_SECTIONS)
    score = record.valid_accuracy if record.valid_mrr is None else record.valid_mrr
    name = "valid" if record.valid_mrr is None else "valid MRR"
    valid = "" if score is None else f"  {name} {score:.4f}"
    return (
        f"epoch {record.epoch + 1}/{epochs}  loss {_number(record.train_loss)}  "
        f"train {_number(record.train_accuracy)}{valid}  {record.seconds:.2f} s "
        f"({', '.join(shown)})  {rate or 0:,.0f} {targets}/s"
    )


def closing(record: RunRecord, path: Path) -> str:
    """How the run ended and where its record lies."""
    if record.status != "ok":
        return f"{record.status}: {record.error}\nrecord     {path}"
    final = record.final
    name, word = ("mrr", "MRR") if "test_mrr" in final else ("accuracy", "accuracy")
    more = "".join(
        f", {word} {_number(final[f'test_{field}'])}"
        for field, word in (("hits_1", "hits@1"), ("hits_10", "hits@10"), ("auc", "AUC"))
        if f"test_{field}" in final
    )
    lines = [
        f"best       epoch {int(final['best_epoch'] or 0) + 1}: valid {word} "
        f"{_number(final[f'valid_{name}'])}, test {word} {_number(final[f'test_{name}'])}{more}"
    ]
    lines += [f"note       {note}" for note in record.notes if note in (BEST_IS_LAST, NOTHING_LEFT)]
    if folder := record.config.get("tensorboard"):
        mine = folder_of_run(folder, record.strategy, record.dataset.name, record.run_id)
        shows = shlex.join(["tensorboard", "--logdir", folder])
        lines.append(f"curves     {shows} (of this run: {mine})")
    return "\n".join([*lines, f"record     {path}"])


def dry_run(config: RunConfig, graph: Graph, world: World) -> str:
    """The resolved settings and the memory they will need."""
    memory = machine.hardware()["memory_bytes"]
    lines = [config.summary(), "", *_length(config, graph)]
    lines += [f"graph {graph!r}", _shares(config, graph, world), "memory"]
    shared, per_rank = _graph_bytes(graph), _rank_bytes(config, graph, world.num_replicas)
    if config.task == "link":  # states of all nodes after a layer, in a file that ranks share
        width = 8 if config.precision == "fp64" else 4
        shared += 2 * graph.num_nodes * config.hidden * width
    ranks = max(world.replica_hosts.count(host) for host in world.replica_hosts)
    if config.partitions and graph.features is not None:  # a host reads the parts of its ranks
        shared -= graph.features.nbytes * (world.num_replicas - ranks) // world.num_replicas
    total = shared + ranks * sum(per_rank.values())
    what = "graph and embeddings" if config.task == "link" else "graph"
    rows = {f"{what}, shared by a host's ranks": shared, **per_rank, "per host, at most": total}
    lines += [f"  {name:<40}{size(count):>10}" for name, count in rows.items()]
    if memory and total > memory:
        lines.append(f"  this host has {size(memory)}: the graph will be paged in and out")
    return "\n".join(lines)


def _shares(config: RunConfig, graph: Graph, world: World) -> str:
    ranks = world.num_replicas
    if ranks == 1:
        return "ranks 1"
    by = "locality" if assigns_by_locality(config, graph, ranks) else "slices"
    by = "owner" if assigns_to_owners(config) else by
    most = most_targets(config, graph, ranks)
    return f"ranks {ranks}, targets assigned by {by}: about {most:,} of a step to each, at most"


def _graph_bytes(graph: Graph) -> int:
    arrays = (graph.indptr, graph.indices, graph.features, graph.labels, graph.splits)
    return sum(array.nbytes for array in arrays if array is not None)


def _rank_bytes(config: RunConfig, graph: Graph, world_size: int) -> dict[str, int]:
    """Upper bounds of what one rank holds: every draw is taken for a new node."""
    is_link = config.task == "link"
    width = 8 if config.precision == "fp64" else 4
    out = config.hidden if is_link else graph.num_classes
    settings = models.ModelSettings.of(config, graph.num_features, out)
    widest = max(map(max, settings.layer_widths))
    mean_degree = graph.num_edges / max(1, graph.num_nodes)
    targets = most_targets(config, graph, world_size)
    pairs = targets * (1 + (config.negatives or 1)) if is_link else 0
    nodes = [float(min(graph.num_nodes, targets + pairs) if is_link else targets)]
    for fanout in config.fanouts:
        drawn = mean_degree if fanout < 0 else min(fanout, mean_degree)
        nodes.append(min(float(graph.num_nodes), nodes[-1] * (1 + drawn)))
    states = _numbers_of_layers(config.model, settings, nodes)
    states += pairs * config.hidden * (2 + 2 * config.predictor_layers)
    scratch = (CHUNK_NODES + CHUNK_EDGES) * 8 + CHUNK_NODES * 2 * widest * width
    if not models.is_fused(config.model, settings):
        rows = min(CHUNK_NODES + CHUNK_EDGES, graph.num_nodes + graph.num_edges)
        scratch += 2 * rows * widest * width
    if is_link:
        scratch += CHUNK_PAIRS * config.hidden * 5 * width
    has_degrees = config.model in ("gcn", "gin")
    fetched: dict[str, int] = {}
    if config.partitions and world_size > 1 and graph.features is not None:
        row = graph.features.nbytes / max(1, graph.num_nodes)
        remote = min(float(graph.num_nodes), config.fetch_window * nodes[-1])
        fetched["rows of other ranks' parts"] = int(
            2 * config.fetch_window * sum(nodes) * 12  # batches of a window and of the next
            + 3 * remote * row
            + min(read_size(config.fetch_cache), graph.features.nbytes)
        )
    return {
        "program and libraries": 450 << 20,
        "weights, gradients and optimizer": num_weights(config, graph) * width * 4,
        "one training step": int(states * width * 1.5),
        "batches drawn ahead": int(sum(nodes) * 12 * (config.prefetch + 1)),
        **fetched,
        "sampler": graph.num_nodes * 4,
        **({"degrees": graph.num_nodes * 4} if has_degrees else {}),
        "evaluation": scratch,
    }


def _numbers_of_layers(model: str, settings: ModelSettings, nodes: list[float]) -> float:
    """Numbers that the layers keep in a step for the backward pass.

    `nodes` are those of each hop, the targets first.
    """
    found = 0.0
    for depth, (before, after) in enumerate(settings.layer_widths):
        destinations, sources = nodes[-2 - depth], nodes[-1 - depth]
        found += destinations * (2 * before + after)
        if not models.is_fused(model, settings):
            found += sources * 2 * before + destinations * 3 * after
        if model == "gat":
            averages = depth == settings.num_hidden
            found += sources * after * (settings.heads if averages else 1)
    return found


def num_weights(config: RunConfig, graph: Graph) -> int:
    """Numbers in the model that this configuration asks for."""
    is_link = config.task == "link"
    out = config.hidden if is_link else graph.num_classes
    settings = models.ModelSettings.of(config, graph.num_features, out)
    found = models.num_weights(config.model, settings)
    predictor = ((config.predictor_layers - 1) * config.hidden + 1) * (config.hidden + 1)
    return found + predictor * is_link


def print_lost(rank: int, error: Exception) -> None:
    """Say on stderr that this rank ends because another one answers no more."""
    print(f"rank {rank} failed: {error}", file=sys.stderr)


def size(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.4f}"
