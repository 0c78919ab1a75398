"""Makes the batch scripts of Slurm: of a training run, of a sweep, and of a chain around either."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnn_core.config import RunConfig, parse_config
from gnn_core.deploy.manifest_files import REPOSITORY
from gnn_core.deploy.programs import dataset_problem
from gnn_core.deploy.slurm_text import Header, Training, array_body, chained, script
from gnn_core.number_text import counted
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.plan import Plan, read_plan
from gnn_core.sweep.turns import in_order
from gnn_core.usage import UsageError, shown

STRATEGIES_OF_SEVERAL_NODES = ("horovod", "ddp", "multiworker", "param-server")
_MOST_NODES, _MOST_RANKS = 65_536, 1024
_SHORTEST_RUN = 60  # seconds from the start to the signal
_TIME = re.compile(
    r"(?:(?P<days>\d{1,4})-)?(?P<first>\d{1,5})(?::(?P<second>\d{1,2}))?(?::(?P<third>\d{1,2}))?"
)
_MEMORY = re.compile(r"[1-9]\d{0,8}[KMGT]?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OF_SCRIPT = {  # flag -> what gives it instead
    "--dataset": "--dataset before the --",
    "--cache-dir": "--shared and --local",
    "--workers": "--nodes and --ranks-per-node",
    "--role": "--strategy param-server",
    "--coordinator": "--strategy param-server",
    "--strategy": "--strategy before the --",
}


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What a job is to be like."""

    nodes: int | None
    ranks_per_node: int | None
    threads: int | None  # cores of each rank
    dataset: str | None
    strategy: str  # of STRATEGIES_OF_SEVERAL_NODES
    time: str  # as Slurm writes it
    save_before: int  # seconds before the time is up
    restarts: int
    memory: str | None  # of each node, as Slurm writes it
    name: str | None
    shared: Path
    local: str  # a folder, or `none`
    array: Path | None  # a sweep's plan
    chain: bool
    flags: Sequence[str]  # of the trainer

    @property
    def job_name(self) -> str:
        """As given, or made of what the job is."""
        if self.name is not None:
            return self.name
        if self.array is not None:
            words = f"sweep-{self.array.stem}"
        else:
            words = f"{self.strategy}-{self.dataset}-{self.nodes or 1}x{self.ranks_per_node or 1}"
        return re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:64]

    @property
    def ranks(self) -> int:
        """Of all nodes."""
        return (self.nodes or 1) * (self.ranks_per_node or 1)

    def problems(self) -> list[str]:
        """Every problem but those of a plan, each as one clause."""
        found = []
        for flag, value, most in (
            ("nodes", self.nodes, _MOST_NODES),
            ("ranks-per-node", self.ranks_per_node, _MOST_RANKS),
            ("threads", self.threads, _MOST_RANKS),
        ):
            if value is not None and not 1 <= value <= most:
                found.append(f"--{flag}: expected a number from 1 to {most}, got {value}")
        if not _NAME.fullmatch(self.job_name):
            found.append(
                f"--name: expected at most 64 letters, digits and ._-, got {shown(self.job_name)}"
            )
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            found.append(
                f"--memory: expected a size of Slurm, such as 8G or 500M, got {shown(self.memory)}"
            )
        if self.local != "none" and not self.local.startswith("/"):
            found.append(f"--local: expected an absolute path, or none, got {shown(self.local)}")
        for flag, text in (("shared", str(self.shared)), ("local", self.local)):
            if not text.isprintable():  # a line of the script could end in it
                found.append(
                    f"--{flag}: expected a path without control characters, got {shown(text)}"
                )
        found += self._time_problems()
        return found + (self._array_problems() if self.array else self._training_problems())

    def _time_problems(self) -> list[str]:
        seconds = seconds_of(self.time)
        if seconds is None:
            return [
                "--time: expected minutes, H:MM:SS, D-HH or D-HH:MM:SS, as Slurm reads them, got "
                f"{shown(self.time)}"
            ]
        if seconds < self.save_before + _SHORTEST_RUN:
            return [
                f"--time: expected a minute more than the {self.save_before} seconds of "
                f"--save-before, got {shown(self.time)} ({seconds} s)"
            ]
        return []

    def _array_problems(self) -> list[str]:
        given = [
            f"--{flag}"
            for flag, value in (
                ("dataset", self.dataset),
                ("nodes", self.nodes),
                ("ranks-per-node", self.ranks_per_node),
                ("threads", self.threads),
            )
            if value is not None
        ]
        if given or self.flags:
            what = ", ".join([*given, *(["flags of the trainer"] if self.flags else [])])
            return [f"--array: the plan says what runs, and how wide it is: leave out {what}"]
        return []

    def _training_problems(self) -> list[str]:
        if self.dataset is None:
            return ["--dataset: expected the name of a data set, or a folder; or --array PLAN"]
        if problem := dataset_problem(self.dataset):
            return [f"--dataset: {problem}"]
        given = {flag.partition("=")[0] for flag in self.flags}
        if taken := [f"{flag} (it is {own})" for flag, own in _OF_SCRIPT.items() if flag in given]:
            return [f"flags of the trainer: the script sets {', '.join(taken)}: leave it out"]
        try:
            self.config().validate_world(self.ranks)
        except UsageError as error:
            return [str(error)]
        return []

    def config(self) -> RunConfig:
        """The settings of the training run. Raises UsageError as the trainer would."""
        return parse_config(self.trainer_flags(), self.strategy, STRATEGIES[self.strategy].refuses)

    def trainer_flags(self) -> list[str]:
        """The flags of the run but for those of folders; of two, the trainer takes the last."""
        arguments = STRATEGIES[self.strategy].arguments
        return [
            f"--dataset={self.dataset}",
            f"--threads={self.threads or 1}",
            *(f"{flag}={value.format(ranks=self.ranks)}" for flag, value in arguments.items()),
            *self.flags,
        ]


def make_slurm(settings: SlurmSettings) -> str:
    """The script, for sbatch; with `chain` one for bash. Raises UsageError naming all problems."""
    if problems := settings.problems():
        raise UsageError("; ".join(problems))
    if settings.array is not None:
        return _of_sweep(settings, read_plan(settings.array))
    return _of_run(settings)


def _of_run(settings: SlurmSettings) -> str:
    config = settings.config()
    shared = settings.shared.absolute()
    is_named = not str(settings.dataset).startswith("/")
    prepared = [str(settings.dataset)] if is_named else []
    head = (
        f"GraphSAGE on {settings.dataset}: {settings.strategy}, "
        f"{counted(settings.nodes or 1, 'node')} with "
        f"{counted(settings.ranks_per_node or 1, 'rank')} each"
    )
    header = _header(settings, head, settings.nodes or 1, settings.ranks_per_node or 1)
    training = Training(
        strategy=settings.strategy,
        flags=settings.trainer_flags(),
        servers=config.servers * (2 if config.standby else 1),
        nodes=settings.nodes or 1,
        ranks_per_node=settings.ranks_per_node or 1,
        threads=settings.threads or 1,
        dataset=prepared[0] if prepared else None,
        data_root=config.data_root,
        shared=shared,
        local=None if settings.local == "none" else settings.local,
        restarts=settings.restarts,
        root=REPOSITORY,
    )
    text = script(header, training.body())
    if not settings.chain:
        return text
    own_records = any(flag.partition("=")[0] == "--records" for flag in settings.flags)
    records = Path(config.records) if own_records else shared / "records"
    return _chain(settings, text, prepared, config.data_root, records)


def _of_sweep(settings: SlurmSettings, plan: Plan) -> str:
    turns = in_order(plan)
    widest = max(turn.launch.ranks for turn in turns)
    assert settings.array is not None
    head = f"Sweep {settings.array.name}: {counted(len(turns), 'run')}, a task of the array each"
    header = _header(settings, head, 1, widest, len(turns), plan.threads)
    shared = settings.shared.absolute()
    text = script(header, array_body(settings.array.absolute(), shared, REPOSITORY))
    if not settings.chain:
        return text
    names = dict.fromkeys(one.name for one in plan.datasets)
    named = [name for name in names if not name.startswith("/")]
    return _chain(settings, text, named, None, plan.records)


def _header(
    settings: SlurmSettings,
    head: str,
    nodes: int,
    ranks_per_node: int,
    tasks: int | None = None,
    threads: int | None = None,
) -> Header:
    return Header(
        head=head,
        name=settings.job_name,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        threads=threads or settings.threads or 1,
        memory=settings.memory,
        time=settings.time,
        save_before=settings.save_before,
        tasks=tasks,
    )


def _chain(
    settings: SlurmSettings, text: str, names: list[str], data_root: str | None, records: Path
) -> str:
    return chained(
        text,
        name=settings.job_name,
        datasets=names,
        data_root=data_root,
        records=records,
        shared=settings.shared.absolute(),
        time=settings.time,
        memory=settings.memory,
        root=REPOSITORY,
    )


def seconds_of(time: str) -> int | None:
    """The seconds of a time limit as Slurm reads it; None if it is none.

    `30` is minutes, `30:00` minutes and seconds, `1:30:00` begins with hours; behind days, as in
    `1-12`, come hours.
    """
    found = _TIME.fullmatch(time)
    if found is None:
        return None
    parts = [int(part) for part in found.group("first", "second", "third") if part is not None]
    if any(part > 59 for part in parts[1:]):
        return None
    if found["days"] is not None or len(parts) == 3:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return ((int(found["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
