"""Who takes part: strategies and ranks, and the command that starts each as a user would."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnn_core.measure.run_record import STRATEGIES
from gnn_core.usage import UsageError, did_you_mean

ROOT = Path(__file__).resolve().parents[2]
ALONE = ("single", "one")
"""One process of each framework, which the others are measured against: never of more ranks."""

_LAUNCHERS = {
    "horovod": ("horovodrun", "-np"),
    "ddp": ("torchrun", "--standalone", "--nproc-per-node"),
    "multiworker": ("mpirun", "-np"),
}
_PROGRAMS = {
    "single": ("baselines/single.py",),
    "horovod": ("horovod_gnn/train.py",),
    "ddp": ("baselines/ddp.py",),
    "one": ("tf_mirrored/train.py", "--strategy", "one"),
    "mirrored": ("tf_mirrored/train.py", "--strategy", "mirrored"),
    "multiworker": ("tf_mirrored/train.py", "--strategy", "multiworker"),
}


@dataclass(frozen=True)
class Launch:
    """A strategy at a number of ranks."""

    strategy: str
    ranks: int

    @property
    def name(self) -> str:
        """For a file or a line."""
        return self.strategy if self.strategy in ALONE else f"{self.strategy}-{self.ranks}"

    def command(self, flags: Sequence[str]) -> list[str]:
        """The words that start it with these flags. Raises UsageError without its launcher."""
        program, *choice = _PROGRAMS[self.strategy]
        if self.strategy == "mirrored":
            choice += ["--replicas", str(self.ranks)]
        words = [str(ROOT / program), *choice, *flags]
        if self.strategy not in _LAUNCHERS:
            return [sys.executable, *words]
        launcher, *options = _LAUNCHERS[self.strategy]
        python = [] if launcher == "torchrun" else [sys.executable]
        start = [str(_beside_python(launcher, self.strategy)), *options, str(self.ranks)]
        return [*start, *python, *words]


def chosen(only: Sequence[str] | None, ranks: Sequence[int]) -> list[Launch]:
    """The launches of a round, in the order of their turns; raises UsageError.

    `only` names strategies; None takes all. `ranks` says how many each has that can have several.
    """
    for name in only or ():
        if name not in STRATEGIES:
            hint = did_you_mean(name, STRATEGIES) or f", expected some of {', '.join(STRATEGIES)}"
            raise UsageError(f"--only: unknown strategy {name!r}{hint}")
    return [
        Launch(strategy, count)
        for strategy in STRATEGIES
        if only is None or strategy in only
        for count in ((1,) if strategy in ALONE else ranks)
    ]


def seen_from_root(folder: Path) -> Path:
    """The folder as it stands in a launched command, which runs in the root: short if it can be.

    It stands in the run's record, which is no place for the paths of a machine.
    """
    folder = folder.resolve()
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def _beside_python(launcher: str, strategy: str) -> Path:
    path = Path(sys.executable).parent / launcher
    if not path.exists():
        rest = ", ".join(name for name in STRATEGIES if name not in _LAUNCHERS)
        raise UsageError(
            f"{strategy}: expected {launcher} beside {sys.executable}, found none; `make install` "
            f"puts it there, {rest} do without it"
        )
    return path
