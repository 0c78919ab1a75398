"""What settings must be true together: every broken rule is found, not only the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gnn_core.models import FIXED_AGGREGATION, is_in_file
from gnn_core.settings.options import LINK, Option, show
from gnn_core.usage import read_number, shown

Values = Mapping[str, Any]
_LEAST_SAMPLE_SECONDS = 0.05
_SHA256 = re.compile("[0-9a-f]{64}")


def find_problems(
    options: Mapping[str, Option], values: Values, origins: Mapping[str, str], bad: Collection[str]
) -> list[str]:
    """Every problem of `values` (field name -> value, already filled), each as one clause.

    `bad` names the fields that were already complained about: neither they nor the rules that
    involve them are judged again, since one slip should be reported once.
    """
    problems, wrong = [], set(bad)
    for name, spec in options.items():
        if name not in wrong and (problem := spec.problem(values[name])):
            problems.append(f"{label(spec, origins)}: {problem}")
            wrong.add(name)
    for names, rule in _RULES:
        if not wrong.intersection(names) and (problem := rule(values)):
            problems.append(f"{label(options[names[0]], origins)}: {problem}")
    problems += [
        f"{label(spec, origins)}: only --task link uses it, but --task is {values['task']}: leave "
        "it out"
        for name, spec in options.items()
        if spec.group == LINK and values["task"] == "node" and values[name] != spec.default
        if name not in wrong
    ]
    return problems


def applies(spec: Option, values: Values, ignored: Collection[str]) -> bool:
    """Whether a run with these values uses the setting; `ignored` names what its program does not.

    What another setting switches off, such as the fan-outs of a sampled evaluation, does not apply.
    """
    if spec.name in ignored or (spec.group == LINK and values["task"] != "link"):
        return False
    if spec.name in ("resume", "checkpoint_every_steps"):
        return values["checkpoint_dir"] is not None
    if spec.name in ("partition_topology", "fetch_window", "fetch_cache", "share_parts"):
        return values["partitions"] is not None
    if spec.name in _OF_MODELS:
        return _OF_MODELS[spec.name](values["model"])
    switch, positions = _SWITCHES.get(spec.name, ("task", (values["task"],)))
    return switch in ignored or values[switch] in positions


def label(spec: Option, origins: Mapping[str, str]) -> str:
    """How to call a setting in a message: by flag, or by YAML key when it came from the file."""
    return f"{spec.name} (--config)" if origins.get(spec.name) == "file" else spec.flag


def _one_fanout_per_layer(values: Values) -> str | None:
    layers, fanouts = values["layers"], values["fanouts"]
    if len(fanouts) == layers:
        return None
    return f"expected {layers} entries, one per layer, got {len(fanouts)} ({show(fanouts)})"


def _one_eval_fanout_per_layer(values: Values) -> str | None:
    layers, fanouts = values["layers"], values["eval_fanouts"]
    if fanouts is None or len(fanouts) == layers:
        return None
    return f"expected {layers} entries, one per layer, got {len(fanouts)} ({show(fanouts)})"


def _only_when(name: str, switch: str, position: str) -> Callable[[Values], str | None]:
    def rule(values: Values) -> str | None:
        if not values[name] or values[switch] == position:
            return None
        flag = "--" + switch.replace("_", "-")
        return f"only {flag} {position} uses it, but {flag} is {values[switch]}: change one of them"

    return rule


def _only_of(name: str, default: Any) -> Callable[[Values], str | None]:
    def rule(values: Values) -> str | None:
        model = values["model"]
        if values[name] == default or _OF_MODELS[name](model):
            return None
        return f"--model {model} has no use for it: leave it out"

    return rule


def _model_sha256(values: Values) -> str | None:
    given = values["model_sha256"]
    if given is None or _SHA256.fullmatch(given):
        return _only_of("model_sha256", None)(values)
    return f"expected 64 digits of 0-9 and a-f, got {shown(given)}"


def _heads_share_the_width(values: Values) -> str | None:
    hidden, heads = values["hidden"], values["heads"]
    if values["model"] != "gat" or hidden % heads == 0:
        return None
    return f"expected a divisor of --hidden, which the heads share, got {heads} for {hidden}"


def _batch_norm_of_nodes(values: Values) -> str | None:
    if values["norm"] != "batch" or values["task"] == "node":
        return None
    return (
        "a paper in the pairs of two ranks would count twice, so that the loss would depend on the "
        "ranks: use layer, or --task node"
    )


def _smooths_classes(values: Values) -> str | None:
    if values["label_smoothing"] == 0 or values["task"] == "node":
        return None
    return "only --task node has classes, but --task is link: leave it out"


def _link_is_exact(values: Values) -> str | None:
    if values["task"] == "node" or values["eval"] == "exact":
        return None
    return "link prediction ranks with exact embeddings: leave it out; --eval-edges makes it quick"


def _dated_for_each(values: Values) -> str | None:
    if values["negatives_kind"] != "dated" or not values["shared_negatives"]:
        return None
    return "all citations of a step have the same negatives with --shared-negatives: leave it out"


def _pool_for_each(values: Values) -> str | None:
    if not values["negatives_pool"] or not values["shared_negatives"]:
        return None
    return "all citations of a step have the same negatives with --shared-negatives: leave it out"


def _parts_are_mapped(values: Values) -> str | None:
    if values["feature_store"] != "disk" or values["partitions"] is None:
        return None
    return "the parts of --partitions are memory-mapped: leave one of the two out"


def _topology_of_parts(values: Values) -> str | None:
    if not values["partition_topology"] or values["partitions"] is not None:
        return None
    return "it needs --partitions, the folder of a partition that was written with --topology"


def _content_is_at_hand(values: Values) -> str | None:
    if values["task"] != "link" or values["predictor"] != "content":
        return None
    if values["partitions"] is None and values["feature_store"] != "disk":
        return None
    return (
        "content reads the features of any paper in memory, but with --partitions or "
        "--feature-store disk they are elsewhere: use structure"
    )


def _share_of_hold_out(values: Values) -> str | None:
    if values["held_out"] is None or values["hold_out"] != "published":
        return None
    return "only --hold-out newest and random use it, but --hold-out is published: leave it out"


def _cache_of_disk(values: Values) -> str | None:
    if values["disk_cache"] is None or values["feature_store"] != "memory":
        return None
    return "--feature-store memory has no use for it: leave it out"


def _warmup_ends(values: Values) -> str | None:
    warmup, epochs = values["warmup_epochs"], values["epochs"]
    if warmup < epochs:
        return None
    return f"expected fewer warm-up epochs than the {epochs} epochs of the run, got {warmup}"


def _resume_needs_folder(values: Values) -> str | None:
    if not values["resume"] or values["checkpoint_dir"] is not None:
        return None
    return "it needs --checkpoint-dir, the folder the interrupted run saved to"


def _saving_needs_folder(values: Values) -> str | None:
    if values["checkpoint_every_steps"] == 0 or values["checkpoint_dir"] is not None:
        return None
    return "it needs --checkpoint-dir, the folder to save to"


def _parts_reach_the_coordinator(values: Values) -> str | None:
    role = values["role"]
    if role == "all" or values["coordinator"] is not None:
        return None
    return f"--role {role} needs --coordinator, the address that all roles of the job have"


def _journal_of_asynchronous(values: Values) -> str | None:
    return _order_of_updates(values, "journal", "replay")


def _replay_of_asynchronous(values: Values) -> str | None:
    return _order_of_updates(values, "replay", "journal")


def _order_of_updates(values: Values, name: str, other: str) -> str | None:
    if values[name] is None:
        return None
    if values["staleness"] == "0":
        return "with --staleness 0 a run is equal to any other of its settings: leave it out"
    if values[other] is not None or values["resume"]:
        return f"it is of a whole run that begins anew: leave out --{other} and --resume"
    return None


def _compression(values: Values) -> str | None:
    kind = values["compress"]
    if kind in ("none", "fp16"):
        return None
    try:
        share = read_number(kind.removeprefix("topk:")) if kind.startswith("topk:") else 0.0
    except ValueError:
        share = 0.0
    if 0 < share <= 1:
        return None
    return f"expected none, fp16 or topk:R with R above 0 and at most 1, got {shown(kind)}"


def _journal_of_all(values: Values) -> str | None:
    if values["compress"] == "none" or not (values["journal"] or values["replay"]):
        return None
    return "a journal does not know what each worker has left out: leave out --journal and --replay"


def _saves_whole_steps(values: Values) -> str | None:
    if values["checkpoint_every_steps"] == 0 or values["staleness"] == "0":
        return None
    return (
        f"with --staleness {values['staleness']} workers are in several steps at a time, and a "
        "checkpoint is saved after each epoch: leave it out"
    )


def _samples_are_apart(values: Values) -> str | None:
    seconds = values["sample_seconds"]
    if seconds == 0 or seconds >= _LEAST_SAMPLE_SECONDS:
        return None
    return (
        f"expected 0 (no samples) or at least {_LEAST_SAMPLE_SECONDS}, so that looking does not "
        f"slow down the training, got {seconds:g}"
    )


def _batch_feeds_all_ranks(values: Values) -> str | None:
    world_size = values["world_size"]
    return None if world_size is None else batch_problem(values["global_batch_size"], world_size)


def batch_problem(global_batch_size: int, world_size: int) -> str | None:
    """Why a global batch of so many targets cannot be cut over so many ranks, or None."""
    if global_batch_size >= world_size:
        return None
    return (
        f"expected at least one target per rank, got {global_batch_size} for {world_size} ranks: "
        "raise it or start fewer ranks"
    )


# Setting -> the one that switches it on, and in which positions.
_SWITCHES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "eval": ("task", ("node",)),
    "eval_fanouts": ("eval", ("sampled",)),
    "eval_nodes": ("eval", ("sampled",)),
    "held_out": ("hold_out", ("newest", "random")),
    "lr_step_epochs": ("lr_schedule", ("step",)),
    "lr_gamma": ("lr_schedule", ("step",)),
    "replicas": ("strategy", ("mirrored",)),
    "start_timeout": ("strategy", ("multiworker",)),
    "table_on": ("device", ("auto", "cuda")),
    "disk_cache": ("feature_store", ("auto", "disk")),
    "collective_timeout": ("strategy", ("multiworker",)),
}

# Setting -> whether a model has a use for it.
_OF_MODELS: Mapping[str, Callable[[str], bool]] = {
    "aggregator": lambda model: model not in FIXED_AGGREGATION,
    "heads": lambda model: model == "gat" or is_in_file(model),
    "model_sha256": is_in_file,
}

# The fields a rule reads, the one its message is about first.
_RULES: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("fanouts", "layers"), _one_fanout_per_layer),
    (("eval_fanouts", "eval"), _only_when("eval_fanouts", "eval", "sampled")),
    (("eval_nodes", "eval"), _only_when("eval_nodes", "eval", "sampled")),
    (("eval_fanouts", "layers", "eval", "fanouts"), _one_eval_fanout_per_layer),
    (("lr_step_epochs", "lr_schedule"), _only_when("lr_step_epochs", "lr_schedule", "step")),
    (("lr_gamma", "lr_schedule"), _only_when("lr_gamma", "lr_schedule", "step")),
    (("aggregator", "model"), _only_of("aggregator", "mean")),
    (("heads", "model"), _only_of("heads", 4)),
    (("heads", "hidden", "model"), _heads_share_the_width),
    (("model_sha256", "model"), _model_sha256),
    (("norm", "task"), _batch_norm_of_nodes),
    (("label_smoothing", "task"), _smooths_classes),
    (("eval", "task"), _link_is_exact),
    (("negatives_kind", "shared_negatives"), _dated_for_each),
    (("negatives_pool", "shared_negatives"), _pool_for_each),
    (("held_out", "hold_out"), _share_of_hold_out),
    (("disk_cache", "feature_store"), _cache_of_disk),
    (("feature_store", "partitions"), _parts_are_mapped),
    (("partition_topology", "partitions"), _topology_of_parts),
    (("predictor", "task", "partitions", "feature_store"), _content_is_at_hand),
    (("warmup_epochs", "epochs"), _warmup_ends),
    (("resume", "checkpoint_dir"), _resume_needs_folder),
    (("checkpoint_every_steps", "checkpoint_dir"), _saving_needs_folder),
    (("checkpoint_every_steps", "staleness"), _saves_whole_steps),
    (("role", "coordinator"), _parts_reach_the_coordinator),
    (("compress",), _compression),
    (("compress", "journal", "replay"), _journal_of_all),
    (("journal", "replay", "staleness", "resume"), _journal_of_asynchronous),
    (("replay", "journal", "staleness", "resume"), _replay_of_asynchronous),
    (("sample_seconds",), _samples_are_apart),
    (("global_batch_size", "world_size"), _batch_feeds_all_ranks),
)
