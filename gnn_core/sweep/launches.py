"""A strategy at a number of ranks, and the command that starts it. Sweeps and benchmarks use it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnn_core.strategies import STRATEGIES
from gnn_core.usage import UsageError, did_you_mean

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Launch:
    """A strategy at a number of ranks."""

    strategy: str
    ranks: int

    @property
    def name(self) -> str:
        """For a file or a line."""
        is_single = STRATEGIES[self.strategy].is_single
        return self.strategy if is_single else f"{self.strategy}-{self.ranks}"

    def command(self, flags: Sequence[str]) -> list[str]:
        """The words that start it with these flags. Raises UsageError without its launcher."""
        strategy = STRATEGIES[self.strategy]
        paths = {"python": sys.executable, strategy.program: str(ROOT / strategy.program)}
        if strategy.launcher:
            launcher = strategy.launcher[0]
            paths[launcher] = str(_beside_python(launcher, self.strategy))
        return [*(paths.get(word, word) for word in strategy.words(self.ranks)), *flags]


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
        for count in ((1,) if STRATEGIES[strategy].is_single else ranks)
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
        rest = ", ".join(name for name, one in STRATEGIES.items() if not one.launcher)
        raise UsageError(
            f"{strategy}: expected {launcher} beside {sys.executable}, found none; `make install` "
            f"puts it there, {rest} do without it"
        )
    return path
