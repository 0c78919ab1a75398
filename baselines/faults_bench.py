"""Kill and stop runs at random moments, go on with --resume, and compare the end.

    python -m baselines.faults_bench --runs 10                        # of each way to start ranks
    python -m baselines.faults_bench --only elastic ddp --runs 50 --json faults.json
    python -m baselines.faults_bench --json faults.json               # goes on where it was stopped

A run trains a small graph on two ranks. SIGKILL or SIGSTOP hits one of its ranks, or SIGKILL its
launcher: as it starts, while it prepares the graph, while it trains, while a checkpoint is written,
while it evaluates, or as it ends. All of it must then end, or go on without that rank, within
--bound seconds; nothing of it may be left. What has not reached the end is started once more with
--resume, and must end with the metrics and the losses of a run that nothing happened to.

Exit code 1 if any run did not. Runs follow one another; a run takes 10 to 30 seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines.fault_runs import (
    DATASET,
    EPOCHS,
    FLAGS,
    INTERVAL,
    MOMENTS,
    WAITS,
    WAYS,
    FaultRun,
    planned,
)
from gnn_core.bench.frame import (
    add_json_flag,
    columns_text,
    origin,
    require_place,
    run_training,
    write_bench,
)
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.run_record import RunRecord
from gnn_core.sweep.child import stoppable
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, UsageError, whole

_COLUMNS = (
    *("way", "hit", "runs", "were hit", "ended in time", "longest s", "named"),
    *("same end", "redone steps", "left over"),
)
_WIDTHS = (14, 20, 6, 10, 15, 11, 9, 10, 14, 11)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs and print what became of them; the exit code."""
    options = _parse(argv)
    require_place(options.json)
    settings = {"dataset": DATASET, "epochs": EPOCHS, "seed": options.seed, "bound": options.bound}
    hardware = machine.hardware()  # before the benchmark is a load of its own
    rows = _rows_of(options.json, settings)
    undisturbed: RunRecord | None = None
    with stoppable(), tempfile.TemporaryDirectory(prefix="ringsage-faults-") as folder:
        for way, number in _missing(options, rows):
            if undisturbed is None:
                _say("training   one process, without a fault")
                flags = [*FLAGS, "--cache-dir", f"{folder}/cache"]
                undisturbed = run_training(Launch("single", 1).command(flags), "single")
            fault = planned(way, number + 1, options.seed)[number]
            place = Path(folder, f"{way}-{number}")
            cache = Path(folder, "cache")
            run = FaultRun(way, fault, place, cache, options.bound, undisturbed)
            row = {"way": way, "number": number, **run.row()}
            rows.append(row)
            _say(_line(row, options.runs))
            if row["problems"] and options.keep:
                shutil.copytree(place, options.keep / place.name, dirs_exist_ok=True)
            shutil.rmtree(place)
            if options.json:
                write_bench(options.json, _record(settings, rows, hardware))
    record = _record(settings, rows, hardware)
    print("\n".join([columns_text(_cells(record), _WIDTHS), *record["notes"]]))
    return int(any(row["problems"] for row in rows))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m baselines.faults_bench", allow_abbrev=False)
    add = parser.add_argument
    add("--runs", type=whole(), default=50, metavar="N", help="of each way (default: 50)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of all faults (default: 0)")
    add(
        "--only",
        nargs="+",
        choices=[*WAYS],
        default=[*WAYS],
        metavar="NAME",
        help=f"of {', '.join(WAYS)} (default: all)",
    )
    add(
        "--bound",
        type=whole(10, 3600),
        default=60,
        metavar="SECONDS",
        help="in which a run must end, or reach its end without what was hit (default: 60)",
    )
    add(
        "--keep",
        type=path_argument,
        metavar="DIR",
        help="keep all files of the runs that did not do as they should",
    )
    add_json_flag(parser)
    return parser.parse_args(argv)


def _rows_of(file: Path | None, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs in a record of an earlier call, to which others are added. Raises UsageError."""
    if file is None or not file.exists():
        return []
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found, rows = record["settings"], list(record["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--json {file}: expected a record of this program, got another file; remove it"
        ) from None
    if found != settings:
        raise UsageError(
            f"--json {file}: expected runs of the settings {settings}, got {found}: give another "
            "file, or remove it"
        )
    return rows


def _missing(
    options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, int]]:
    """The runs that are to be made, by way and number; the ways take turns."""
    made = {(row["way"], row["number"]) for row in rows}
    wanted = [(way, number) for number in range(options.runs) for way in options.only]
    return [one for one in wanted if one not in made]


def _line(row: Mapping[str, Any], runs: int) -> str:
    what = f"{row['signal']} to {row['victim']}, {row['moment']}"
    came = "; ".join(row["problems"]) or f"ended after {row['seconds']:.1f} s"
    if row.get("resumed") and not row["problems"]:
        came += f", resumed, {row['redone']} steps again"
    if not row["was_hit"]:
        came += " (was over before)"
    if row.get("named") is False and row["was_hit"] and row["moment"] != "end":
        came += " (not named)"
    return f"{row['way']:<13} {row['number'] + 1}/{runs}  {what:<36} {came}"


def _record(
    settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that was found, as JSON can hold it."""
    hits = {(row["way"], f"{row['signal']} {row['victim']}") for row in rows}
    order = list(WAYS)
    return {
        "benchmark": "faults",
        **origin(hardware),
        "settings": dict(settings),
        "columns": list(_COLUMNS),
        "rows": [
            summary(*hit, [row for row in rows if hit == _hit_of(row)])
            for hit in sorted(hits, key=lambda hit: (order.index(hit[0]), hit[1]))
        ],
        "notes": [
            f"two ranks, {EPOCHS} epochs, a checkpoint every {INTERVAL} steps, "
            f"{' '.join(WAITS)}; moments: {', '.join(MOMENTS)}",
            "were hit: the others were over when their moment came; ended in time: all processes, "
            f"within {settings['bound']:g} s of the hit, or the run reached its end without the "
            "one that was hit; longest: of these",
            "named: the output says which rank it was; not counted at the end, when the others may "
            "be done with it, nor of a launcher",
            "same end: metrics, and losses of steps, of the run that went on with --resume (or "
            "reached its end) are those of a run without a fault",
            "redone steps: most of a run, by checkpoints and records; the steps after the last "
            f"checkpoint, at most {INTERVAL - 1}, come on top where rank 0 could not save",
            "left over: processes of the run after that time",
        ],
        "runs": list(rows),
    }


def _hit_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["way"], f"{row['signal']} {row['victim']}"


def summary(way: str, hit: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """One row of the table: of the runs of a way in which the same was hit."""
    hits = [row for row in rows if row["was_hit"]]
    told = [row["named"] for row in hits if "named" in row and row["moment"] != "end"]
    in_time = [row for row in rows if row.get("ended")]
    return [
        way,
        hit,
        len(rows),
        len(hits),
        f"{len(in_time)}/{len(rows)}",
        max((row["seconds"] for row in in_time if row["was_hit"]), default=None),
        f"{sum(told)}/{len(told)}" if told else None,
        f"{sum('redone' in row and not _differs(row) for row in rows)}/{len(rows)}",
        max((row["redone"] for row in rows if "redone" in row), default=None),
        sum(len(row.get("left", ())) for row in rows),
    ]


def _differs(row: Mapping[str, Any]) -> bool:
    return any("without a fault" in problem for problem in row["problems"])


def _cells(record: Mapping[str, Any]) -> list[list[str]]:
    lines = [record["columns"], *record["rows"]]
    return [["-" if cell is None else str(cell) for cell in line] for line in lines]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
