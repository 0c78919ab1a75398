"""Sentences about a run: what is printed at its start and end, per epoch and in a dry run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from gnn_core import models
from gnn_core.config import OPTIONS, RunConfig
from gnn_core.data.graph import Graph
from gnn_core.measure import machine
from gnn_core.measure.run_record import EpochRecord, RunRecord, WorldRecord
from gnn_core.measure.tensorboard import folder_of_run
from gnn_core.measure.timing import per_second
from gnn_core.number_text import counted, size
from gnn_core.training.learner import Learner
from gnn_core.training.memory_plan import MemoryPlan, mapped_bytes, rank_bytes
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
        + (f", {config.predictor_layers}-layer predictor ({config.predictor})" if is_link else "")
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
    if config.feature_store == "disk":
        cache = size(read_size(config.disk_cache or "0"))
        lines.append(
            f"features   {size(graph.feature_bytes)} on disk, {cache} of memory for them a process"
        )
    lines += _recipe(config, graph)
    return "\n".join(lines + [f"note       {note}" for note in notes(record, learner)])


def _recipe(config: RunConfig, graph: Graph) -> list[str]:
    """A line on the recipe that was fitted to the graph: why, and what; none of other recipes."""
    if config.fitted is None:
        return []
    num_targets = targets_per_epoch(config, graph)
    steps_of_epoch = -(-num_targets // config.global_batch_size)
    targets = (
        f"{num_targets:,} training citations"
        if config.task == "link"
        else f"{num_targets:,} labelled nodes in {graph.num_classes} classes"
    )
    batches = f"batches of {config.global_batch_size:,}"
    fanouts = f"fan-outs {','.join(map(str, config.fanouts))}"
    steps = f"{config.epochs * steps_of_epoch:,} steps"
    evaluated = f"evaluated every {counted(config.eval_every * steps_of_epoch, 'step')}"
    if config.patience:
        steps = f"up to {steps}"
        evaluated += f" and stopped after {config.patience} evaluations without a gain"
    given = [
        option.flag
        for name, option in OPTIONS.items()
        if option.per_data_set and config.origins.get(name) not in ("recipe", "derived")
    ]
    return [
        f"recipe     {targets}, mean degree {graph.num_edges / max(1, graph.num_nodes):.1f}, "
        f"{graph.num_features:,} features: "
        f"{'whole-split batches' if steps_of_epoch == 1 else batches}, "
        f"{'all neighbours' if max(config.fanouts) < 0 else fanouts}, {steps}, {evaluated} "
        f"(recipe {config.recipe}{', but for ' * bool(given)}{', '.join(given)})"
    ]


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
        for field, word in (
            *(("hits_1", "hits@1"), ("hits_10", "hits@10"), ("auc", "AUC")),
            *(("pair_accuracy", "accuracy"), ("average_precision", "AP")),
        )
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


def dry_run(config: RunConfig, graph: Graph, world: World, plan: MemoryPlan) -> str:
    """The resolved settings and the memory they will need."""
    lines = [config.summary(), "", *_recipe(config, graph)]
    lines += [f"graph {graph!r}", _shares(config, graph, world)]
    return "\n".join(
        lines + (_on_disk(plan) if plan.store == "disk" else _mapped(config, graph, world))
    )


def _on_disk(plan: MemoryPlan) -> list[str]:
    rows = {**plan.needs, "per process": sum(plan.needs.values())}
    return ["memory, features on disk", *_sizes(rows)]


def _mapped(config: RunConfig, graph: Graph, world: World) -> list[str]:
    ranks = max(world.replica_hosts.count(host) for host in world.replica_hosts)
    mapped = mapped_bytes(config, graph, ranks, world.num_replicas)
    shared, per_rank = sum(mapped.values()), rank_bytes(config, graph, world.num_replicas)
    if config.task == "link":  # states of all nodes after a layer, in a file that ranks share
        width = 8 if config.precision == "fp64" else 4
        shared += 2 * graph.num_nodes * config.hidden * width
    total = shared + ranks * sum(per_rank.values())
    what = "graph and embeddings" if config.task == "link" else "graph"
    parts = {f"  {name}": size for name, size in mapped.items()} if len(mapped) > 1 else {}
    rows = {f"{what}, shared by a host's ranks": shared, **parts}
    rows |= {**per_rank, "per host, at most": total}
    lines = ["memory", *_sizes(rows)]
    memory = machine.memory_bytes()
    if memory and total > memory:
        lines.append(f"  this host has {size(memory)}: the graph will be paged in and out")
    return lines


def _shares(config: RunConfig, graph: Graph, world: World) -> str:
    ranks = world.num_replicas
    if ranks == 1:
        return "ranks 1"
    by = "locality" if assigns_by_locality(config, graph, ranks) else "slices"
    by = "owner" if assigns_to_owners(config) else by
    most = most_targets(config, graph, ranks)
    return f"ranks {ranks}, targets assigned by {by}: about {most:,} of a step to each, at most"


def _sizes(rows: Mapping[str, int]) -> list[str]:
    return [f"  {name:<40}{size(count):>10}" for name, count in rows.items()]


def print_failed(rank: int, reason: object) -> None:
    """Say on stderr why this rank ends, where no record does."""
    print(f"rank {rank} failed: {reason}", file=sys.stderr)


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.4f}"
