"""Predict efficiency and speed-up of a strategy on more ranks than are here, 8 to 512.

    python -m gnn_core.report.scaling results/runs --probe       # measures an allreduce first
    python -m gnn_core.report.scaling results/runs --probe-file one.json two.json --figures figures
    python -m gnn_core.report.scaling results/compare --dataset synthetic --probe --weak

Every number in a row of `PREDICTED` is computed, none was measured: the step of the 1-rank run, cut
into n parts, and an allreduce over n ranks, by a formula whose constants fit the probe. What cannot
be told from the records and the probe is named below the table. Exit code 0, 2 for a mistake
reported in one line.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("pandas")

from gnn_core.files import path_argument
from gnn_core.measure.records import read_records
from gnn_core.report.prediction.outlook import fit_probes, outlook, scaling_table
from gnn_core.report.prediction.probe_files import read_probes
from gnn_core.report.prediction.work import work_in
from gnn_core.strategies import STRATEGIES
from gnn_core.usage import Parser, UsageError, whole

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.scaling")
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        type=path_argument,
        metavar="RECORDS",
        help="folders and files of run records",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--probe", action="store_true", help="measure an allreduce here, on 1 rank and on several"
    )
    source.add_argument(
        "--probe-file",
        type=path_argument,
        nargs="+",
        metavar="FILE",
        help="what the strategy's probe wrote with --json; best of 1 rank and of several",
    )
    add(
        "--probe-ranks", type=whole(2, 1024), default=2, metavar="N", help="of --probe (default: 2)"
    )
    add(
        "--strategy",
        choices=[name for name, one in STRATEGIES.items() if one.probe],
        default="horovod",
        help="(default: horovod)",
    )
    add("--dataset", metavar="NAME", help="where the records are of several")
    add("--figures", type=path_argument, metavar="DIR", help="also draw scaling-<data set>.png")
    add("--force", action="store_true", help="take a probe of another machine all the same")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--strong", action="store_true", help="one global batch (the default)")
    way.add_argument("--weak", action="store_true", help="a global batch for each rank")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    records, problems = read_records(*options.paths)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    work = work_in(records, options.strategy, options.dataset)
    if options.probe:
        with tempfile.TemporaryDirectory() as folder:
            files = [
                _start_probe(options.strategy, ranks, Path(folder, f"{ranks}.json"))
                for ranks in (1, options.probe_ranks)
            ]
            probes = read_probes(files, options.strategy)
    else:
        probes = read_probes(options.probe_file, options.strategy)
    for file in probes:
        if file.machine != work.machine and not options.force:
            raise UsageError(
                f"expected a probe of the records' machine ({work.machine}), got one of "
                f"{file.machine} in {file.path}: measure it there, or add --force"
            )
    view = outlook(work, fit_probes(probes), weak=options.weak)
    table = scaling_table(view, probes)
    kind = "weak" if options.weak else "strong"
    print(f"PREDICTION of {kind} scaling: {work.strategy} on {work.dataset}", end="\n\n")
    print("\n".join([table.text(), "", *table.notes]))
    if options.figures is not None:
        # matplotlib takes most of a second to import, and only this needs it
        from gnn_core.report.prediction.figure import draw_scaling

        print(f"drew {draw_scaling(view, options.figures)}", file=sys.stderr)
    return 0


def _start_probe(strategy: str, ranks: int, file: Path) -> Path:
    """Run the strategy's probe here; the file it wrote. Raises UsageError with its complaint."""
    words = [*STRATEGIES[strategy].probe_words(ranks), "--json", str(file)]
    print(f"measuring  {' '.join(words[:-2])}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True)
    except OSError as problem:
        raise UsageError(f"--probe: {words[0]}: {problem.strerror}: `make install`") from None
    if done.returncode or not file.exists():
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise UsageError(
            f"--probe: {words[0]} ended with {done.returncode}: {' '.join(lines[:1]) or 'no word'}"
        )
    return file


if __name__ == "__main__":
    raise SystemExit(main())
