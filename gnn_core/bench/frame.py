"""What the benchmarks share: variants that take turns, flags, the JSON record, tables as text.

Called by the modules beside it, by `horovod_gnn.bench` and `probe`, by `tf_mirrored.bench` and by
the benches and `heuristics` of `baselines`. The records are read by
`gnn_core.report.tables.benches`, which says what is in them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from gnn_core.files import path_argument
from gnn_core.measure.records import read_records, require_writable
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.usage import UsageError, whole
from gnn_core.whole_file import write_whole

_BUSY_LOAD = 0.5  # processes that were running before the benchmark began
Result = TypeVar("Result")


@dataclass
class Variant(Generic[Result]):
    """One of the things that are compared, and what it measured in each round."""

    name: str
    run: Callable[[], Result]  # one round
    results: list[Result] = field(default_factory=list)


def take_turns(
    variants: Sequence[Variant[Result]],
    rounds: int,
    show: Callable[[Result], str] = lambda result: "done",
) -> None:
    """Run each variant once a round, so that whatever else the machine does meets all alike.

    Each round starts with another variant. `show` makes of a result what is printed on stderr.
    """
    width = max(len(variant.name) for variant in variants)
    for number in range(rounds):
        first = number % len(variants)
        for variant in [*variants[first:], *variants[:first]]:
            variant.results.append(variant.run())
            text = f"round {number + 1}/{rounds}  {variant.name:<{width}}"
            print(f"{text}  {show(variant.results[-1])}", file=sys.stderr, flush=True)


def add_rounds_flag(parser: argparse.ArgumentParser, default: int, help_text: str) -> None:
    """Add `--rounds`: how often each variant takes its turn."""
    text = f"{help_text} (default: %(default)s)"
    parser.add_argument("--rounds", type=whole(), default=default, metavar="N", help=text)


def add_json_flag(
    parser: argparse.ArgumentParser, read: Callable[[str], Path] = path_argument
) -> None:
    """Add `--json FILE`; `read` makes a path of what was typed."""
    text = "also write a record of all figures"
    parser.add_argument("--json", type=read, metavar="FILE", help=text)


def require_place(file: Path | None) -> None:
    """Raise UsageError unless the file of --json can be written; makes its folder."""
    if file is not None:
        require_writable(file.parent, "json")


def was_busy(hardware: Mapping[str, Any]) -> bool:
    """Whether other programs were running when the hardware was asked."""
    return bool((hardware["load_average"] or 0) > _BUSY_LOAD)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of two variants in each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """The median of a figure's rounds and their range, as in `1.05 (1.03 .. 1.11)`."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} .. {most:.{digits}f})"


def run_training(command: Sequence[str], name: str) -> RunRecord:
    """Run the command of a training run to its end; its record.

    Raises:
        UsageError: it failed; the message has its `name` and its reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "run.log")
        code = run_to_end([*command, "--records", folder], log)
        records, _ = read_records(folder)
        if code or not records:
            problem = reason(log, code) if code else "it left no record that can be used"
            raise UsageError(f"{name} failed: {problem}")
        return records[-1]


def columns_text(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Lines of cells in columns of these widths: the first to the left, the others to the right."""
    return "\n".join(
        f"{line[0]:<{widths[0]}}"
        + "".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def table_text(record: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The table of a record as text, and the notes below it."""
    # pandas takes a second to import, and a wrong flag should be reported at once
    from gnn_core.report.tables.benches import Bench, bench_table

    table = bench_table(Bench(**{one.name: record[one.name] for one in fields(Bench)}))
    return table.text(), table.notes


def write_bench(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record as JSON, whole or not at all. Raises UsageError."""
    write_whole(path, json.dumps(record, indent=1) + "\n")
