"""What a user asks a saved model for: the flags of predict.py, checked before any rank is met.

What shaped the model stands in its checkpoint. Such a setting need not be given again; one that is
given and differs is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.config import OPTIONS, RunConfig
from gnn_core.files import expanded
from gnn_core.inference.tables import CSV, NPY, PARQUET, SUFFIXES, require_parquet
from gnn_core.measure.records import require_writable
from gnn_core.models import is_in_file, short_name
from gnn_core.settings.options import show
from gnn_core.training.checkpoint import SavedModel
from gnn_core.usage import Parser, UsageError, whole

CLASSES, LOGITS, EMBEDDINGS, CITATIONS = "classes", "logits", "embeddings", "citations"
SPLITS = ("train", "valid", "test")
_PLACE = (
    *("data_root", "cache_dir", "partitions", "partition_topology", "share_parts", "verify"),
    *("device", "threads"),
    *("feature_store", "memory_limit", "disk_cache"),
    *("start_timeout", "collective_timeout"),
)
_OF_TRAINING = (
    *("fanouts", "dropout", "input_dropout"),
    *("link_loss", "negatives", "negatives_pool", "shared_negatives"),
    *("hide_targets", "edges_per_epoch"),
)
SHAPE = tuple(
    name
    for name, spec in OPTIONS.items()
    if spec.curve and spec.group != OPTIONS["lr"].group and name not in ("dataset", *_OF_TRAINING)
)
"""Settings that decide what a saved model computes."""
_TOP_CITATIONS = 10


@dataclass(frozen=True)
class Request:
    """What is asked for, as it was typed."""

    checkpoint_dir: Path
    weights: str  # best | last
    dataset: str | None  # None: that of the checkpoint
    output: Path
    overwrite: bool
    what: str | None  # None: what suits the task
    layer: int | None
    nodes: str  # all, a split, or a file
    top_k: int | None
    papers: str | None
    candidates: str | None
    export: str | None
    place: RunConfig  # where and how it runs; its other settings mean nothing
    shape: dict[str, Any]  # settings of the model that were given


def read_request(doc: str | None, argv: Sequence[str]) -> Request:
    """Read the command line of a program whose docstring is `doc`. Raises UsageError."""
    given = vars(_parser(doc).parse_args(argv))
    place = {name: given.pop(name) for name in (*_PLACE, "quiet") if name in given}
    shape = {name: given.pop(name) for name in SHAPE if name in given}
    for name in ("checkpoint_dir", "output"):
        given[name] = expanded(given[name], "--" + name.replace("_", "-"))
    request = Request(**given, place=RunConfig(**place), shape=shape)
    suffix = request.output.suffix
    if request.export:
        _require_weights_alone(request)
    elif suffix not in SUFFIXES:
        raise UsageError(
            f"--output {request.output}: expected a name in {', '.join(SUFFIXES)}, got "
            f"{suffix or 'no suffix'}; the suffix decides the format"
        )
    if suffix == PARQUET:
        require_parquet()
    return request


def files_of(output: Path) -> list[Path]:
    """All that is written: beside an array a second one, of the ids of its rows."""
    return [output, output.with_suffix(".ids.npy")] if output.suffix == NPY else [output]


def require_place(request: Request) -> None:
    """Raise UsageError where the output cannot be written, or is there already."""
    if request.output.is_dir():
        raise UsageError(f"--output {request.output}: expected a file, got a folder; name a file")
    if there := [file for file in files_of(request.output) if file.exists()]:
        if not request.overwrite:
            raise UsageError(
                f"--output: {there[0]} is there already; give another name, or --overwrite"
            )
    require_writable(request.output.parent, "output")


@dataclass(frozen=True)
class Plan:
    """What is to be computed, with what model: all that a request and a checkpoint decide."""

    config: RunConfig  # the settings that shape the model, on this machine
    what: str
    depth: int  # of the layer, from 0
    top_k: int


def plan_of(request: Request, saved: SavedModel) -> Plan:
    """Resolve a request against the checkpoint. Raises UsageError for what contradicts it."""
    config = _settings(request, saved)
    if request.export:
        return Plan(config, "", 0, 0)
    is_link = config.task == "link"
    what = request.what or (CITATIONS if is_link else CLASSES)
    allowed = (CITATIONS, EMBEDDINGS) if is_link else (CLASSES, LOGITS, EMBEDDINGS)
    if what not in allowed:
        raise UsageError(
            f"--what {what}: this checkpoint is of --task {config.task}, which gives "
            f"{' or '.join(allowed)}; choose one of them"
        )
    _require_use(request, what)
    _require_suffix(request, what)
    last = config.layers if is_link or what != EMBEDDINGS else max(1, config.layers - 1)
    layer = last if request.layer is None else request.layer
    if not 1 <= layer <= config.layers:
        raise UsageError(
            f"--layer {layer}: expected one from 1 to {config.layers}, the layers of the "
            "checkpoint's model; change it"
        )
    top_k = request.top_k or (_TOP_CITATIONS if what == CITATIONS else 1)
    return Plan(config, what, layer - 1, top_k)


def settings_of(saved: SavedModel, **changes: Any) -> RunConfig:
    """The settings that shaped a saved model, with some changes; how it was trained is left out.

    Raises UsageError for settings that this version does not know.
    """
    optimisation = OPTIONS["lr"].group
    values = {
        name: value
        for name, value in saved.settings.items()
        if name == "seed" or name not in OPTIONS or OPTIONS[name].group != optimisation
    }
    return RunConfig.from_dict({**values, **changes})


def _settings(request: Request, saved: SavedModel) -> RunConfig:
    """The checkpoint's settings in the place that was asked for."""
    place = {name: getattr(request.place, name) for name in (*_PLACE, "quiet")}
    changes = {"dataset": request.dataset} if request.dataset else {}
    if is_in_file(model := saved.settings.get("model", "")):
        changes["model"] = _own_model(request, model)
    config = settings_of(saved, **place, **changes)
    for name, value in request.shape.items():
        if value != (theirs := getattr(config, name)):
            raise UsageError(
                f"{OPTIONS[name].flag} {show(value)}: the checkpoint in {request.checkpoint_dir} "
                f"was trained with {show(theirs)}; leave it out"
            )
    return config


def _own_model(request: Request, saved: str) -> str:
    """The file and class that the user names; a checkpoint alone never makes a file run."""
    given = request.shape.get("model")
    if given is None or short_name(given) != saved:
        raise UsageError(
            f"--model: expected the file of {saved}, the class that the checkpoint in "
            f"{request.checkpoint_dir} is of, got {given or 'none'}: give --model "
            f"FOLDER/{saved}; its code is run"
        )
    return str(given)


def _require_weights_alone(request: Request) -> None:
    """Raise UsageError for a flag that an export has no use for."""
    if request.output.suffix != ".pt":
        raise UsageError(
            f"--output {request.output}: expected a name in .pt for --export {request.export}, got "
            f"{request.output.suffix or 'no suffix'}; change it"
        )
    for name in ("dataset", "what", "layer", "top_k", "papers", "candidates"):
        if getattr(request, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: --export writes the weights alone; leave it out")


def _require_use(request: Request, what: str) -> None:
    """Raise UsageError for a flag that this kind of answer has no use for."""
    users = {
        "layer": (EMBEDDINGS,),
        "top_k": (CLASSES, CITATIONS),
        "papers": (CITATIONS,),
        "candidates": (CITATIONS,),
    }
    for name, uses in users.items():
        if getattr(request, name) is not None and what not in uses:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: --what {what} has no use for it; leave it out")
    if what == CITATIONS and request.nodes != "all":
        raise UsageError("--nodes: missing citations are those of --papers; leave it out")
    if what == CITATIONS and request.papers is None:
        raise UsageError(
            "--papers: expected the papers whose missing citations are asked for, got none; give "
            "their ids with commas between, or a file of ids"
        )


def _require_suffix(request: Request, what: str) -> None:
    known = (CSV, PARQUET) if what in (CLASSES, CITATIONS) else SUFFIXES
    if request.output.suffix not in known:
        raise UsageError(
            f"--output {request.output}: --what {what} writes {' or '.join(known)}, got "
            f"{request.output.suffix}; change the suffix"
        )


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = Parser.of(doc, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint-dir", required=True, metavar="DIR", help="of the run that trained")
    add("--weights", choices=("best", "last"), default="best", help="best on validation, or newest")
    add("--dataset", metavar="NAME", help="graph to predict on (default: that of the checkpoint)")
    add("--output", required=True, metavar="FILE", help=".csv, .parquet or .npy")
    add("--overwrite", action="store_true", help="replace the output if it is there")
    add("--what", choices=(CLASSES, LOGITS, EMBEDDINGS, CITATIONS), help="what to write")
    add("--layer", type=whole(0), metavar="K", help="embeddings after layer K, from 1")
    add(
        "--nodes", default="all", metavar="WHICH", help="all, train, valid, test, ids or their file"
    )
    add("--top-k", type=whole(), metavar="K", help="classes of a node, or citations of a paper")
    add("--papers", metavar="IDS", help="whose missing citations: ids, or a file of ids")
    add("--candidates", metavar="IDS", help="among which they are sought (default: all papers)")
    add("--export", choices=("pyg",), help="write the weights for PyTorch Geometric, and stop")
    add("--quiet", action="store_true", help="print errors alone")
    place = parser.add_argument_group("data and machine")
    shape = parser.add_argument_group("the checkpoint's settings, which need not be given")
    for group, names in ((place, _PLACE), (shape, SHAPE)):
        for name in names:
            _add_setting(group, name)
    return parser


def _add_setting(group: argparse._ArgumentGroup, name: str) -> None:
    spec = OPTIONS[name]
    text = spec.help.replace("%", "%%")
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
    if spec.kind == "bool":
        group.add_argument(spec.flag, action=argparse.BooleanOptionalAction, **options)
    else:
        metavar = spec.metavar or name.upper()
        group.add_argument(spec.flag, type=_reader(name), metavar=metavar, **options)


def _reader(name: str) -> Callable[[str], Any]:
    """A `type` of argparse: a value of that setting."""

    def read(text: str) -> Any:
        try:
            value = OPTIONS[name].from_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if problem := OPTIONS[name].problem(value):
            raise argparse.ArgumentTypeError(problem)
        return value

    return read
