"""The command line, built from the declared options: what `--help` says and how argv is read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gnn_core.settings.options import Option, show
from gnn_core.settings.table import OPTIONS
from gnn_core.strategies import STRATEGIES
from gnn_core.usage import Parser, did_you_mean

_TEACHING = """\
Train GraphSAGE on one graph with the {strategy} strategy and write one record of the run.

examples:
{starts}
  mpirun -np 4 python horovod_gnn/train.py --epochs 5     Horovod, started by MPI alone
  python baselines/single.py --dataset cora --dry-run     print every setting and stop
  python baselines/single.py --config run.yaml --lr 1e-3  settings from a file; flags beat the file
  python baselines/single.py --checkpoint-dir ckpt --resume   go on where a killed run stopped

A configuration file holds the same names: `global_batch_size: 512`, one a line.
"per data set" means that the recipe of the data set decides; --dry-run shows what it decided.
SIGTERM, Ctrl-C, SIGHUP, SIGUSR1 and SIGUSR2 save a checkpoint (--checkpoint-dir) and end the run
with exit code 128 + n. `python -m gnn_core.deploy slurm` prints a batch script that goes on then.
"""
# argparse would take `-1,-1` and `-1e-3` for flags.
_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


class _FlagParser(Parser):
    """The same, which names a flag alone."""

    def error(self, message: str) -> NoReturn:
        super().error(
            re.sub(r"^argument (?:-\w, )?(--[\w-]+)\S*:", r"\1:", " ".join(message.split()))
        )


def build_parser(
    options: Mapping[str, Option], strategy: str, ignored: Mapping[str, str]
) -> argparse.ArgumentParser:
    """Make the parser. `ignored`: field name -> why this strategy has no use for it.

    Values stay text and absent flags stay absent, so that all mistakes can be reported at once.
    """
    parser = _FlagParser(
        description=_TEACHING.format(strategy=strategy, starts=_starts()),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=34, width=100
        ),
        usage="%(prog)s [--flag value ...]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    for name, spec in options.items():
        if spec.group not in groups:
            groups[spec.group] = parser.add_argument_group(spec.group)
        text = _help(spec)
        if name in ignored:
            text = f"not with the {strategy} strategy: {ignored[name]}"
        text = text.replace("%", "%%")
        if spec.kind == "bool":
            action = argparse.BooleanOptionalAction
            groups[spec.group].add_argument(spec.flag, action=action, dest=name, help=text)
        else:
            groups[spec.group].add_argument(spec.flag, dest=name, metavar=_metavar(spec), help=text)
    launch = groups.get("launch", parser)
    launch.add_argument("--config", metavar="FILE", help="YAML file of settings; flags beat it")
    return parser


def _starts() -> str:
    """An example of how each strategy is started, one a line."""
    return "\n".join(f"  {' '.join(one.words(4)):<65}{one.help}" for one in STRATEGIES.values())


def _help(spec: Option) -> str:
    if spec.per_data_set:
        return f"{spec.help} (default: per data set)"
    return f"{spec.help} (default: {show(spec.default)})" if spec.default is not None else spec.help


def _metavar(spec: Option) -> str:
    if spec.choices:
        return "{" + ",".join(spec.choices) + "}" + "|FILE.py:CLASS" * spec.or_file
    by_kind = {"int": "N", "float": "X", "str": "TEXT"}
    return spec.metavar or by_kind.get(spec.kind, "N,N,...")


@dataclass(frozen=True)
class Flags:
    """What the command line said."""

    values: dict[str, Any]  # field name -> value, for the flags that were given
    config_file: str | None
    problems: list[str]
    bad: set[str]  # fields that were given but could not be read


def read_flags(
    parser: argparse.ArgumentParser, options: Mapping[str, Option], argv: Sequence[str]
) -> Flags:
    """Read argv with `build_parser`'s parser.

    Raises UsageError when argv cannot be read at all (a flag without its value), SystemExit after
    printing `--help`.
    """
    words, problems = _pair_values(argv, options)
    given, extra = parser.parse_known_args(words)
    texts = vars(given)
    path = texts.pop("config", None)
    problems += _complaints(extra, _all_flags(options))
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for name, text in texts.items():
        try:
            values[name] = text if isinstance(text, bool) else options[name].from_text(text)
        except ValueError as error:
            problems.append(f"{options[name].flag}: {error}")
            bad.add(name)
    return Flags(values, path, problems, bad)


def write_flags(settings: Mapping[str, Any]) -> list[str]:
    """Spell settings of a run (field name -> value) as the words of a command line."""
    words: list[str] = []
    for name, value in settings.items():
        flag = OPTIONS[name].flag
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [flag, text]
    return words


def _pair_values(argv: Sequence[str], options: Mapping[str, Option]) -> tuple[list[str], list[str]]:
    """Tie each flag to its value with `=`; take flags without one out, as (words, problems)."""
    takes_value = {spec.flag for spec in options.values() if spec.kind != "bool"} | {"--config"}
    words: list[str] = []
    problems: list[str] = []
    remaining = list(argv)
    while remaining:
        word = remaining.pop(0)
        if word.endswith("=--") and word[:-3] in takes_value:  # argparse would drop the value
            problems.append(f"{word[:-3]}: expected a value after it, got --")
        elif word not in takes_value:
            words.append(word)
        elif remaining and (not remaining[0].startswith("-") or _NEGATIVE.match(remaining[0])):
            words.append(f"{word}={remaining.pop(0)}")
        else:
            problems.append(f"{word}: expected a value after it, got none")
    return words, problems


def _all_flags(options: Mapping[str, Option]) -> list[str]:
    switches = [spec for spec in options.values() if spec.kind == "bool"]
    off = ["--no-" + spec.flag.removeprefix("--") for spec in switches]
    return [*(spec.flag for spec in options.values()), *off, "--config", "--help"]


def _complaints(extra: Sequence[str], known: Sequence[str]) -> list[str]:
    complaints: list[str] = []
    after_unknown_flag = False
    for word in extra:
        if word.startswith("-") and word != "-":
            flag = word.partition("=")[0]
            complaints.append(f"unknown flag {flag}{did_you_mean(flag, known)}")
        elif not after_unknown_flag:  # otherwise it is that flag's value
            complaints.append(f"unexpected {word!r}, every setting is a flag such as --epochs 5")
        after_unknown_flag = word.startswith("-") and "=" not in word
    return complaints
