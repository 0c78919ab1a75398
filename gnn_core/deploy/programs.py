"""Reads a container's command as far as the program of this repository that it starts.

    mpirun -x OMP_NUM_THREADS python /opt/ringsage/horovod_gnn/train.py --dataset cora

What would fail in the pod is reported here: an option that mpirun does not have, a program that
is not there, a flag that the trainer refuses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnn_core.config import RunConfig, parse_config
from gnn_core.data.datasets import names
from gnn_core.data.synthetic_spec import PRESETS, SyntheticSpec
from gnn_core.deploy.manifest_files import REPOSITORY
from gnn_core.inference.request import Request, read_request
from gnn_core.strategies import STRATEGIES, Strategy
from gnn_core.usage import UsageError, did_you_mean

IN_IMAGE = "/opt/ringsage"
"""Where the repository lies in the image, and the folder that its programs start in."""

TRAINERS: dict[str, Strategy] = {name: one for name, one in STRATEGIES.items() if one.launcher}
"""The strategies of an MPIJob: those with a process for each rank. mpirun starts all of them."""

PREDICT = "horovod_gnn/predict.py"

# Options of mpirun (Open MPI 4.1) and horovodrun (0.28.1) in use with MPIJobs, and how many words
# follow each.
_LAUNCHERS = ("mpirun", "mpiexec", "horovodrun")
_NUM_RANKS = ("-np", "--np", "-n", "-c", "--n")
_OPTIONS = dict.fromkeys(_NUM_RANKS, 1) | {
    "-x": 1,
    "--map-by": 1,
    "-map-by": 1,
    "--bind-to": 1,
    "-bind-to": 1,
    "--hostfile": 1,
    "-hostfile": 1,
    "-H": 1,
    "--host": 1,
    "--mca": 2,
    "-mca": 2,
    "--tag-output": 0,
    "--report-bindings": 0,
    "--oversubscribe": 0,
    "--display-map": 0,
    "--verbose": 0,
    "-p": 1,
    "--network-interfaces": 1,
    "--start-timeout": 1,
    "--timeout": 1,
    "--min-np": 1,
    "--max-np": 1,
    "--slots-per-host": 1,
    "--host-discovery-script": 1,
    "--elastic-timeout": 1,
    "--reset-limit": 1,
    "--blacklist-cooldown-range": 2,
}
_OTHERS = ("/usr/sbin/sshd", "tensorboard", "sleep")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass
class Command:
    """What a container runs."""

    program: str = ""  # path in the repository, or the name of another program
    flags: list[str] = field(default_factory=list)  # all words after it
    launcher: str = ""  # mpirun or horovodrun; none for another program
    options: dict[str, str] = field(default_factory=dict)  # of the launcher, with their words
    num_ranks: str | None = None  # -np, where it stands
    problems: list[str] = field(default_factory=list)


def read_command(container: Mapping[str, Any]) -> Command:
    """Read command and args; what is wrong up to the program's name stands in `problems`."""
    command = Command()
    words = _resolved(container, command.problems)
    if not words:
        return command
    first = words.pop(0)
    variables = {one["name"] for one in container.get("env") or ()}
    if (launcher := first.rpartition("/")[2]) in _LAUNCHERS:
        command.launcher = launcher
        words = _after_options(launcher, words, variables, command)
        if not words:
            command.problems.append(f"{first}: expected a program after its options, got none")
            return command
        first = words.pop(0)
    if re.fullmatch(r"(.*/)?python3?(\.\d+)?", first) and words:
        command.program = _program(words, container.get("workingDir", IN_IMAGE), command.problems)
    elif first in _OTHERS:
        command.program = first
    else:
        known = ("python", *_LAUNCHERS, *_OTHERS)
        hint = did_you_mean(first, known)
        command.problems.append(
            f"expected a program of the image ({', '.join(known)}), got {first!r}{hint}"
        )
    command.flags = words
    return command


def _resolved(container: Mapping[str, Any], problems: list[str]) -> list[str]:
    """The words, with $(NAME) replaced where the variable's value is known before it runs."""
    variables = {one["name"]: one.get("value") for one in container.get("env") or ()}
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    unknown = {name for word in words for name in _REFERENCE.findall(word)} - variables.keys()
    for name in sorted(unknown):
        hint = did_you_mean(name, variables) or ": add it to env"
        problems.append(f"$({name}): no variable of the container has that name{hint}")

    def value(found: re.Match[str]) -> str:
        known = variables.get(found[1])
        return found[0] if known is None else known

    return [_REFERENCE.sub(value, word) for word in words]


def _after_options(launcher: str, words: list[str], env: set[str], command: Command) -> list[str]:
    """The words from the program on; what the options of the launcher say goes into `command`."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0), "", ""
        if launcher == "horovodrun":  # mpirun knows no --option=value
            option, equals, value = option.partition("=")
        if option not in _OPTIONS:
            hint = did_you_mean(option, _OPTIONS)
            command.problems.append(f"{launcher}: unknown option {option}{hint}")
            continue
        following = _OPTIONS[option] - len(equals)
        values, rest = [value] * len(equals) + rest[:following], rest[following:]
        command.options[option] = " ".join(values)
        if option in _NUM_RANKS:
            command.num_ranks = "".join(values)
        if option == "-x" and values and "=" not in values[0] and values[0] not in env:
            if values[0] not in ("PATH", "LD_LIBRARY_PATH"):  # the image's
                command.problems.append(
                    f"{launcher}: -x {values[0]}: the launcher has no such variable: add it to env"
                )
    return rest


def _program(words: list[str], folder: str, problems: list[str]) -> str:
    """Take the program's name off the words; its path in the repository."""
    first = words.pop(0)
    while first in ("-u", "-P", "-B") and words:
        first = words.pop(0)
    if first == "-m" and words:
        module = words.pop(0)
        path = module.replace(".", "/")
        places = [path + ".py", path + "/__main__.py"]
    else:
        module = first
        whole = first if first.startswith("/") else f"{folder.rstrip('/')}/{first}"
        places = [whole.removeprefix(IN_IMAGE + "/")]
    for place in places:
        if not place.startswith(("/", "-")) and (REPOSITORY / place).is_file():
            return place
    problems.append(
        f"{module}: expected a program of this repository (in the image under {IN_IMAGE}), "
        "found none of that name"
    )
    return ""


def strategy_of(command: Command) -> str | None:
    """Which of TRAINERS the command starts; None if another program."""
    for name, strategy in TRAINERS.items():
        if command.program == strategy.program:
            return name
    return None


def read_flags(strategy: str, flags: Sequence[str], num_ranks: int) -> RunConfig:
    """The trainer's settings with so many ranks. Raises UsageError as the trainer would."""
    if any(flag.partition("=")[0] == "--config" for flag in flags):
        raise UsageError("--config: expected flags, got a file, which is not in the image")
    config = parse_config(flags, strategy, TRAINERS[strategy].refuses)
    config.validate_world(num_ranks)
    if strategy == "multiworker":
        if config.strategy != strategy:
            raise UsageError(
                f"--strategy: mpirun starts workers of multiworker, got {config.strategy}: give "
                "--strategy multiworker"
            )
        if config.global_batch_size % num_ranks:
            raise UsageError(
                f"--global-batch-size: expected a multiple of {num_ranks}, the number of workers' "
                f"processes, got {config.global_batch_size}"
            )
    return config


def read_prediction(flags: Sequence[str]) -> Request:
    """What PREDICT is asked for. Raises UsageError as it would."""
    return read_request(None, flags)


def unknown_flags(command: Command) -> list[str]:
    """Flags that the source of another program than trainers and PREDICT does not name."""
    program = REPOSITORY / command.program
    if not command.program.endswith(".py") or not program.is_file():
        return []
    source = _source_in(program.parent)
    given = {word.partition("=")[0] for word in command.flags if word.startswith("--")}
    return sorted(flag for flag in given if f'"{flag}"' not in source)


@functools.cache
def _source_in(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in sorted(folder.rglob("*.py")))


def dataset_problem(name: str) -> str | None:
    """What is wrong with the name of a data set, if anything is; a folder is one of the pod's."""
    if name.partition(":")[0] in PRESETS:
        try:
            SyntheticSpec.parse(name)
        except UsageError as error:
            return str(error)
        return None
    if name in names() or name.startswith("/"):
        return None
    hint = did_you_mean(name, names()) or f"; it knows {', '.join(names())} and folders"
    return f"unknown data set {name!r}{hint}"
