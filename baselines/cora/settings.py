"""What may be set on the command line of `baselines/cora_models.py`, and what each model takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gnn_core.settings.flags import build_parser, read_flags
from gnn_core.settings.options import Option, option, options_of
from gnn_core.settings.yaml_file import read_config_file
from gnn_core.strategies import keras_strategies
from gnn_core.usage import UsageError

MODELS = ("words", "graph", "graph+words")
_WHAT, _BEFORE, _HEAD = "what to train on", "pre-training", "classifier"
_MACHINE, _OUTPUT = "machine", "output"
_HELP = """\
Classify Cora's papers without message passing, and write one record per seed.

  words         a fully connected net on the 1433 words of a paper
  graph         an embedding of each paper, pre-trained on who cites whom, then a classifier
  graph+words   the same beside a tower of dense layers on the words: pre-trained together so that
                a paper's embedding and its words both find the papers around it; then fine-tuned

examples:
  python baselines/cora_models.py --model words --seeds 0-9     ten runs, mean and deviation
  python baselines/cora_models.py --model graph+words           one run, seed 0
  python baselines/cora_models.py --strategy mirrored --replicas 2
  mpirun -np 2 python baselines/cora_models.py --strategy multiworker
  python baselines/cora_models.py --dataset cora-linqs          its own split of the same sizes

Pre-training sees all citations and words but no label; the classifier sees the labels of the
training papers; the epoch that is reported is the best one on the validation papers.
"per model" means that the model's recipe decides."""


@dataclass(frozen=True, kw_only=True)
class CoraSettings:
    """Every setting of a run. What is None is filled from the recipe of the model.

    What the model has no use for stays None.
    """

    model: str = option("graph+words", _WHAT, "what a paper is known by", choices=MODELS)
    dataset: str = option("cora", _WHAT, "data set, such as cora or cora-linqs", metavar="NAME")
    data_root: str | None = option(
        None, _WHAT, "folder of the published raw files (default: $RINGSAGE_DATA)", metavar="DIR"
    )
    cache_dir: str | None = option(
        None, _WHAT, "folder of prepared graphs (default: $RINGSAGE_CACHE)", metavar="DIR"
    )
    seeds: str = option(
        "0",
        _WHAT,
        "random seeds, one run each: 3 or 0-9 or 1,4,5; --seed is the same",
        metavar="LIST",
    )

    pretrain_epochs: int = option(
        None, _BEFORE, "passes over all papers (default: per model)", low=0
    )
    pretrain_lr: float = option(
        None, _BEFORE, "learning rate, falling to 0 (default: per model)", above=0
    )
    pretrain_batch: int = option(
        None, _BEFORE, "papers per step over all replicas, at most (default: per model)", low=1
    )
    negatives: int = option(
        None, _BEFORE, "papers that a step tells a context from (default: per model)", low=1
    )
    restart: float = option(
        None,
        _BEFORE,
        "chance that a random walk ends at each of its steps (default: per model)",
        above=0,
        high=1,
    )
    temperature: float = option(
        None, _BEFORE, "divisor of the cosines in the loss (default: per model)", above=0
    )
    width: int = option(None, _BEFORE, "numbers in an embedding (default: per model)", low=1)
    hidden_units: int = option(None, _BEFORE, "of the tower on words (default: per model)", low=1)
    word_dropout: float = option(
        None, _BEFORE, "share of words dropped in training (default: per model)", low=0, below=1
    )

    epochs: int = option(100, _HEAD, "passes over the training papers", low=1)
    head_lr: float = option(
        None, _HEAD, "learning rate of the classifier (default: per model)", above=0
    )
    tuning_lr: float = option(
        None, _HEAD, "learning rate of what lies below it (default: per model)", above=0
    )
    head_dropout: float = option(
        None,
        _HEAD,
        "share of the classifier's inputs dropped in training (default: per model)",
        low=0,
        below=1,
    )
    decay: float = option(
        None, _HEAD, "L2 pull on weights that were not pre-trained (default: per model)", low=0
    )

    strategy: str = option(
        "one",
        _MACHINE,
        "one device, replicas in one process, or processes",
        choices=keras_strategies(),
    )
    replicas: int | None = option(
        None, _MACHINE, "that are meant (default: a device each; one per process)", low=1, high=1024
    )
    threads: int = option(1, _MACHINE, "threads per replica", low=1, high=1024)
    device: str = option("auto", _MACHINE, "where to compute", choices=("auto", "cpu", "cuda"))
    records: str = option("results/runs", _OUTPUT, "folder of run records", metavar="DIR")

    @property
    def seed_list(self) -> list[int]:
        """The seeds that `seeds` spells, in its order. Raises UsageError."""
        found: list[int] = []
        for part in self.seeds.split(","):
            match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
            if not 0 <= last - first < 10_000:
                raise UsageError(f"--seeds: expected seeds such as 3, 0-9 or 1,4,5, got {part!r}")
            found += range(first, last + 1)
        if len(set(found)) < len(found):
            raise UsageError(f"--seeds: expected each seed once, got {self.seeds!r}")
        return found

    def recorded(self, seed: int) -> dict[str, Any]:
        """The settings of the run of one seed, as its record keeps them."""
        chosen = {**asdict(self), "seed": seed, "precision": "fp32"}
        # A record has the strategy and the number of replicas in fields of their own.
        for name in ("seeds", "strategy", "replicas"):
            del chosen[name]
        return chosen

    def digest(self, seed: int) -> str:
        """SHA-256 (hex) of what the loss depends on: equal for runs whose losses must be equal."""
        machine = ("data_root", "cache_dir", "threads", "device", "records")
        chosen = {k: v for k, v in self.recorded(seed).items() if k not in machine}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


OPTIONS: Mapping[str, Option] = options_of(CoraSettings)
# Chosen on Cora's validation papers with seeds 100 to 102, which no reported figure uses.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "words": {
        "hidden_units": 1024,
        "word_dropout": 0.8,
        "tuning_lr": 1e-3,
        "head_lr": 1e-3,
        "head_dropout": 0.5,
        "decay": 5e-3,
    },
    "graph": {
        "pretrain_epochs": 100,
        "pretrain_lr": 0.01,
        "pretrain_batch": 1024,
        "negatives": 1024,
        "restart": 0.05,
        "temperature": 1.0,
        "width": 256,
        "tuning_lr": 1e-4,
        "head_lr": 0.01,
        "head_dropout": 0.8,
        "decay": 1e-3,
    },
    "graph+words": {
        "pretrain_epochs": 40,
        "pretrain_lr": 0.01,
        "pretrain_batch": 1024,
        "negatives": 1024,
        "restart": 0.4,
        "temperature": 0.25,
        "width": 128,
        "hidden_units": 256,
        "word_dropout": 0.5,
        "tuning_lr": 3e-4,
        "head_lr": 0.01,
        "head_dropout": 0.8,
        "decay": 1e-3,
    },
}


def parse(argv: Sequence[str]) -> CoraSettings:
    """Read a command line. UsageError names all its problems; SystemExit(0) after `--help`."""
    parser = build_parser(OPTIONS, "", {})
    parser.description = _HELP
    words = [re.sub(r"^--seed(?=$|=)", "--seeds", word) for word in argv]
    flags = read_flags(parser, OPTIONS, words)
    problems, bad = list(flags.problems), set(flags.bad)
    values: dict[str, Any] = {}
    if flags.config_file is not None:
        values, more, wrong = read_config_file(flags.config_file, OPTIONS)
        problems, bad = problems + more, bad | wrong
    values |= flags.values
    for name, value in values.items():
        if name not in bad and (problem := OPTIONS[name].problem(value)):
            problems.append(f"{OPTIONS[name].flag}: {problem}")
    problems += _ignored(values)
    if problems:
        raise UsageError("; ".join(problems))
    settings = filled(CoraSettings(**values))
    if settings.strategy == "one" and (settings.replicas or 1) > 1:
        raise UsageError(
            f"--replicas: expected 1 with --strategy one, got {settings.replicas}; "
            "choose --strategy mirrored or multiworker"
        )
    _ = settings.seed_list  # complains before anything is started
    return settings


def _ignored(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that only the recipes of other models have."""
    model = values.get("model", OPTIONS["model"].default)
    some_use = {name for recipe in RECIPES.values() for name in recipe}
    unused = some_use - RECIPES.get(model, dict.fromkeys(some_use)).keys()
    return [
        f"{OPTIONS[name].flag}: the {model} model has no use for it; leave it out, or choose "
        "another --model"
        for name in OPTIONS
        if name in unused and values.get(name) is not None
    ]


def filled(settings: CoraSettings) -> CoraSettings:
    """The settings with the recipe of the model in place of each None."""
    recipe = RECIPES[settings.model]
    return replace(settings, **{k: v for k, v in recipe.items() if getattr(settings, k) is None})
