"""Strategies that take turns on one graph, round by round, then the table that compares them.

`baselines/compare.py` is the command. A round runs each launch once; every comparison has a new
folder, with its records, the logs of runs that failed, the table and a picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gnn_core.config import RunConfig, parse_config
from gnn_core.data import datasets
from gnn_core.files import file_stem, path_argument
from gnn_core.launch import under_launcher
from gnn_core.measure.records import read_records, require_writable
from gnn_core.measure.run_record import RunRecord, epoch_seconds
from gnn_core.number_text import counted, three_digits
from gnn_core.strategies import STRATEGIES
from gnn_core.streams import optional_output
from gnn_core.sweep.allowed_settings import refusals
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.sweep.launches import Launch, chosen, seen_from_root
from gnn_core.usage import Parser, UsageError, shown, whole, wholes
from gnn_core.whole_file import write_whole

_OURS = "compare sets it for every run; give it before `--`"
_OWN = {
    **dict.fromkeys(("dataset", "epochs", "threads", "records"), _OURS),
    "eval_every": "every run evaluates at its end alone",
    **dict.fromkeys(("strategy", "replicas", "world_size"), "say it with --only and --ranks"),
}


def main(words: Sequence[str], help_text: str | None) -> int:
    """Read the command line, let the launches take turns, print the table; the exit code.

    Args:
        words: of the command line, without the program.
        help_text: what `--help` prints beside the flags.

    Raises:
        UsageError: wrong flags, an unknown data set, or a folder that cannot be written.
    """
    before, extra = _split(words)
    options = _parse(before, help_text)
    if under_launcher():
        raise UsageError(
            "expected to be started once, by `python baselines/compare.py`, and not by a "
            "launcher: it launches the ranks itself"
        )
    flags = ["--dataset", options.dataset, "--epochs", str(options.epochs)]
    flags += ["--threads", str(options.threads)]
    config = parse_config([*flags, *_allowed(extra)], "compare")
    launches = chosen(options.only, options.ranks)
    require_writable(options.records)
    # Prepared here, so that no launch does it in its turn.
    datasets.load(config.dataset, config.data_root, config.cache_dir, progress=print)
    folder = _fresh_folder(options.records, config)
    flags += ["--eval-every", str(options.epochs), "--progress", "off"]
    flags += ["--records", str(seen_from_root(folder)), *extra]
    turns = [launch.command(flags) for launch in launches]
    print(f"{options.rounds} x {counted(len(turns), 'run')}, records in {folder}", flush=True)
    with optional_output():  # whoever reads it may go: the table is kept in a file too
        try:
            code = _take_turns(launches, turns, options.rounds, folder)
        except KeyboardInterrupt:
            print("stopped; what there is:", flush=True)
            code = 130
        return max(code, _print_table(folder))


def _take_turns(
    launches: Sequence[Launch], commands: Sequence[Sequence[str]], rounds: int, folder: Path
) -> int:
    """Run each launch once a round; 1 when a run failed. Raises KeyboardInterrupt."""
    code = 0
    for number in range(1, rounds + 1):
        for launch, command in zip(launches, commands, strict=True):
            log = folder / f"round-{number}-{launch.name}.log"
            known = set(folder.glob("*.jsonl"))
            ended = run_to_end(command, log)
            record = _new_record(folder, known)
            line = f"round {number}/{rounds}  {launch.strategy:<12}"
            line += f"{counted(launch.ranks, 'rank'):<9}"
            if ended == 0 and record is not None:
                seconds = three_digits(epoch_seconds(record))
                print(f"{line}{seconds:>7} s/epoch", flush=True)
                log.unlink()  # the record says it all
            else:
                code = 1
                print(f"{line} failed: {reason(log, ended)}; see {log}", flush=True)
    return code


def _new_record(folder: Path, known: set[Path]) -> RunRecord | None:
    """The record of the run that has just ended well, if it left one."""
    files = set(folder.glob("*.jsonl")) - known
    records = read_records(*files)[0] if files else []
    return records[-1] if records and records[-1].status == "ok" else None


def _print_table(folder: Path) -> int:
    """Print the table, keep it beside the records and draw it; 1 when there is nothing to show."""
    # pandas and matplotlib take a second to import, and a wrong flag should be reported at once.
    from gnn_core.report.figures.bars import draw_bars
    from gnn_core.report.table import settings_beside_ranks
    from gnn_core.report.tables.side_by_side import side_by_side_table

    records, problems = read_records(folder)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    if not records:
        print(f"no run has left a record in {folder}", file=sys.stderr)
        return 1
    table = settings_beside_ranks(side_by_side_table(records))
    print("\n".join(["", table.text(), "", *table.notes]), flush=True)
    write_whole(folder / "table.md", table.with_notes() + "\n")
    for path in [folder / "table.md", *draw_bars(records, folder)]:
        print(f"wrote {path}")
    return 0


def _fresh_folder(parent: Path, config: RunConfig) -> Path:
    """A new folder, so that no comparison is mixed with another one or written over it."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    graph = file_stem(config.dataset.partition(":")[0])
    for number in range(1, 100):
        folder = parent / (f"{now}-{graph}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as problem:
            raise UsageError(f"--records: cannot make {folder}: {problem.strerror}") from None
        return folder
    raise UsageError(f"--records: {parent} is full of folders of this second, try again")


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the first `--`, and those after it."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _allowed(extra: Sequence[str]) -> Sequence[str]:
    """The flags after `--`, if every run may have them. Raises UsageError."""
    origins = parse_config(extra, "compare").origins
    given = [name for name, origin in origins.items() if origin in ("flag", "file")]
    for name, reason_not in refusals(given, _OWN).items():
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"{flag} after `--`: {reason_not}")
    return extra


def _parse(words: Sequence[str], help_text: str | None) -> argparse.Namespace:
    usage = "%(prog)s [--flag value ...] [-- FLAGS OF EVERY RUN]"
    parser = Parser.of(help_text, usage=usage, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", default="synthetic", metavar="NAME", help="data set (default: synthetic)")
    add(
        "--epochs",
        type=whole(2),
        default=4,
        metavar="N",
        help="epochs of a run, of which the first is not counted (default: 4)",
    )
    add(
        "--rounds",
        type=whole(1),
        default=3,
        metavar="N",
        help="how often each launch runs (default: 3)",
    )
    add(
        "--ranks",
        type=_ranks,
        default=(1, 2),
        metavar="N,N,...",
        help="ranks of those that can have several (default: 1,2)",
    )
    add("--threads", type=whole(1), default=1, metavar="N", help="of each rank (default: 1)")
    add("--only", nargs="+", metavar="NAME", help=f"some of: {' '.join(STRATEGIES)}")
    add(
        "--records",
        type=path_argument,
        default=Path("results/compare"),
        metavar="DIR",
        help="where each comparison makes its own folder (default: results/compare)",
    )
    return parser.parse_args(words)


def _ranks(text: str) -> tuple[int, ...]:
    if min(found := wholes(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,2, got {shown(text)}")
    return tuple(sorted(set(found)))
