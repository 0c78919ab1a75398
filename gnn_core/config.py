"""RunConfig: one checked description of a run, from flags, a YAML file and per-data-set recipes.

    config = parse_config(sys.argv[1:], "horovod", {})
    config.validate_world(world_size)

Everything that can be wrong is found before the first collective and reported in one line.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gnn_core.models import is_in_file, sha256_of, short_name, source_of
from gnn_core.settings.fitted import Fitted, GraphFacts, fitted_recipe
from gnn_core.settings.flags import build_parser, read_flags
from gnn_core.settings.options import LINK, show
from gnn_core.settings.recipes import RECIPES, fill, follows_graph, recipe_name
from gnn_core.settings.rules import applies, batch_problem, find_problems, label
from gnn_core.settings.table import OPTIONS, Settings
from gnn_core.settings.yaml_file import read_config_file
from gnn_core.usage import UsageError, did_you_mean

__all__ = ["OPTIONS", "RECIPES", "RunConfig", "UsageError", "parse_config"]

# What runs were like before there was a setting for it; the default is another one.
_BEFORE = {"predictor": "mlp", "negatives_kind": "uniform", "negatives_pool": 0, "link_loss": "bce"}


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Every setting of one run (see `Settings`); complete and checked as soon as it exists.

    What is left out, or None, is filled from the recipe of the data set where there is one. Raises
    UsageError naming all problems at once.
    """

    # Field name -> flag | file | recipe | derived; a field that is not here has its default.
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    # Names of the fields that the program has no use for.
    ignored: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    # The recipe that `for_graph` chose; None before, and for a data set with a recipe of its own.
    fitted: Fitted | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill what was left out, and refuse what cannot be."""
        given = {name: spec.normalised(getattr(self, name)) for name, spec in OPTIONS.items()}
        values, filled_from = fill(given, self.fitted.settings if self.fitted else None)
        origins = {**self.origins, **filled_from}
        if problems := find_problems(OPTIONS, values, origins, ()):
            raise UsageError("; ".join(problems))
        for name, value in {**values, "origins": origins}.items():
            object.__setattr__(self, name, value)  # the one moment a frozen instance may be set

    @property
    def follows_graph(self) -> bool:
        """Whether the recipe follows the graph, as that of a folder or an imported graph does."""
        return follows_graph(self.dataset, self.task)

    def for_graph(self, facts: GraphFacts) -> RunConfig:
        """The settings with the recipe that fits the graph; these, if the data set has its own.

        What was given stays as it is. Raises UsageError as the class does.
        """
        if not self.follows_graph:
            return self
        # What follows from settings of the recipe is derived anew.
        free = {name for name, origin in self.origins.items() if origin in ("recipe", "derived")}
        given = {name: getattr(self, name) for name in OPTIONS if name not in free}
        origins = {name: origin for name, origin in self.origins.items() if name not in free}
        changes: dict[str, Any] = {**dict.fromkeys(free), "origins": origins}
        return replace(self, **changes, fitted=fitted_recipe(facts, self.task, given))

    @property
    def recipe(self) -> str:
        """Name of the recipe that filled what was not given."""
        return self.fitted.name if self.fitted else recipe_name(self.dataset, self.task)

    def with_model_sha256(self) -> RunConfig:
        """The settings with the SHA-256 of the file of an own model; raises UsageError."""
        if not is_in_file(self.model) or self.model_sha256 is not None:
            return self
        origins = {**self.origins, "model_sha256": "of the file"}
        found = sha256_of(source_of(self.model))
        return replace(self, model_sha256=found, origins=origins)

    def validate_world(self, world_size: int) -> None:
        """Check the settings against the number of ranks that started; raises UsageError."""
        problems = []
        if self.world_size is not None and self.world_size != world_size:
            ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
            problems.append(
                f"--world-size: this run was meant for {ranks} but {world_size} started: "
                f"launch with `horovodrun -np {self.world_size} python ...`"
            )
        if problem := batch_problem(self.global_batch_size, world_size):
            problems.append(f"{label(OPTIONS['global_batch_size'], self.origins)}: {problem}")
        if problems:
            raise UsageError("; ".join(problems))

    def validate_elastic(self) -> None:
        """Check the settings for a run whose ranks may go and join; raises UsageError."""
        given = {
            "world_size": "their number is no mistake: horovodrun's --min-np and --max-np bound it",
            "scale_lr": "the learning rate would change with them",
        }
        problems = [
            f"{label(OPTIONS[name], self.origins)}: ranks may go and join, and {reason}: leave it "
            "out"
            for name, reason in given.items()
            if getattr(self, name)
        ]
        if problems:
            raise UsageError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON can hold it, in the order of declaration."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> RunConfig:
        """Make the configuration that `to_dict` wrote; raises UsageError as the class does."""
        require_known(settings)
        return cls(**{**(_BEFORE if settings.get("task") == "link" else {}), **settings})

    def curve_settings(self) -> dict[str, Any]:
        """Pick the settings that the training loss depends on, as `to_dict` spells them.

        The number of ranks is not among them, since the loss does not depend on it (unless
        `scale_lr`). The number of epochs is among them only when the learning rate depends on it.
        A setting that older runs did not have is among them only when it is not as theirs were. A
        model in a file is told by the file's name, without its folder, and by its SHA-256.
        """
        settings = {**self.to_dict(), "model": short_name(self.model)}
        curve = {
            name: settings[name]
            for name, spec in OPTIONS.items()
            if spec.curve and (spec.group != LINK or self.task == "link")
            if not (spec.newer and settings[name] in (spec.default, _BEFORE.get(name)))
        }
        return curve | ({"epochs": self.epochs} if self.lr_schedule == "cosine" else {})

    def digest(self) -> str:
        """SHA-256 (hex) of `curve_settings`: equal for runs whose loss curves must be equal."""
        text = json.dumps(self.curve_settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """List the settings that apply by group: (group, [(flag, value, origin)]), all as text.

        Origins: `flag`, `file`, `recipe <name>`, `derived` from another setting, `default`, or
        `given` when a program, and not a user, set it.
        """
        groups: dict[str, list[tuple[str, str, str]]] = {}
        values = {name: getattr(self, name) for name in OPTIONS}
        for name, spec in OPTIONS.items():
            value = values[name]
            given = self.origins.get(name) in ("flag", "file")
            if not given and not applies(spec, values, self.ignored):
                continue
            origin = self.origins.get(name, "default" if value == spec.default else "given")
            if origin == "recipe":
                origin = f"recipe {self.recipe}"
            groups.setdefault(spec.group, []).append((spec.flag, show(value), origin))
        return list(groups.items())

    def summary(self) -> str:
        """Lay `describe` out as lines for a terminal, as --dry-run prints it."""
        lines = []
        for group, rows in self.describe():
            lines.append(group)
            lines += [f"  {flag:<26}{value:<24}{origin}" for flag, value, origin in rows]
        return "\n".join(lines)


def parse_config(
    argv: Sequence[str] | None, strategy: str, unsupported: Mapping[str, str] | None = None
) -> RunConfig:
    """Read the command line (None: this process's) and its `--config` file into a RunConfig.

    `unsupported` maps a flag (or field name) to why `strategy` ignores it: setting it is an error.
    Raises UsageError naming all problems at once; SystemExit(0) after printing `--help`.
    """
    ignored = {_field_name(flag): reason for flag, reason in (unsupported or {}).items()}
    parser = build_parser(OPTIONS, strategy, ignored)
    flags = read_flags(parser, OPTIONS, sys.argv[1:] if argv is None else argv)
    file_values: dict[str, Any] = {}
    problems, bad = list(flags.problems), set(flags.bad)
    if flags.config_file is not None:
        try:
            file_values, file_problems, file_bad = read_config_file(flags.config_file, OPTIONS)
            problems += file_problems
            bad |= file_bad - flags.values.keys()
        except UsageError as error:
            problems.append(str(error))
    values = {**file_values, **flags.values}
    origins = dict.fromkeys(file_values, "file") | dict.fromkeys(flags.values, "flag")
    for name, reason in ignored.items():
        if name in origins:
            spelled = label(OPTIONS[name], origins)
            problems.append(f"{spelled}: the {strategy} strategy ignores it: {reason}")
    defaults = {name: spec.default for name, spec in OPTIONS.items()}
    filled, filled_from = fill({**defaults, **values})
    problems += find_problems(OPTIONS, filled, {**origins, **filled_from}, bad)
    if problems:
        raise UsageError("; ".join(problems))
    return RunConfig(**values, origins=origins, ignored=frozenset(ignored))


def _field_name(flag: str) -> str:
    name = flag.removeprefix("--").replace("-", "_")
    if name not in OPTIONS:  # a slip of the calling program, not of its user
        raise KeyError(f"`unsupported` names {flag}: no such flag{did_you_mean(name, OPTIONS)}")
    return name


def require_known(settings: Iterable[str]) -> None:
    """Raise UsageError for names that no setting has."""
    if strangers := [name for name in settings if name not in OPTIONS]:
        hints = [f"{name!r}{did_you_mean(name, OPTIONS)}" for name in strangers]
        raise UsageError("; ".join(f"unknown setting {hint}" for hint in hints))
