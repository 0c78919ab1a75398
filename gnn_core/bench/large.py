"""Graphs of up to 100 million nodes on one machine, stage by stage, under a limit of memory.

A synthetic graph of each size is prepared, cut into parts, trained on by some ranks for an epoch,
and a part of it evaluated. Each stage is a process of its own in a memory control group without
swap, and starts with none of the graph in the page cache. What was done stays done: the same
command goes on where it was stopped. A graph is removed once all its stages are done.

    python -m gnn_core.bench.large                         # 20 k to 100 M: about an hour, 45 GB
    python -m gnn_core.bench.large --papers 2e4,2e5 --memory 4
    python -m gnn_core.bench.large --papers 1e8 --folder /big/disk --json large.json
    python -m gnn_core.bench.large --papers 1e6 --stages prepare,train --train "--hidden 64"
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.bench.frame import add_json_flag, table_text, was_busy, write_bench
from gnn_core.bench.memory_group import forget_pages, run_measured
from gnn_core.data.meta import META, read_meta
from gnn_core.data.room import require_room
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.measure.records import read_records
from gnn_core.measure.timing import per_second
from gnn_core.sweep.launches import Launch
from gnn_core.usage import Parser, UsageError, finite, printable, whole

STAGES = ("prepare", "partition", "train", "evaluate")
_SIZES = (2e4, 2e5, 2e6, 2e7, 1e8)
_CITATIONS = 10  # per paper
_EVALUATED = 1024  # nodes of each split in the stage that trains
_FEATURES = 64
_TRAIN_SHARE = 0.63  # of the labelled papers
_MODEL = "--layers 3 --fanouts 15,10,5 --hidden 128 --global-batch-size 1024 --epochs 1"
_STORE = "--feature-store disk"
_DONE = "stages.json"
_GIB = 1 << 30
_SECONDS_BETWEEN_LINES = 30.0
_COLUMNS = [
    "papers",
    "stage",
    "seconds",
    "CPU seconds",
    "GiB of the largest process",
    "GiB beside page cache",
    "GiB with page cache",
    "GB read",
    "GB written",
    "M citations/s",
    "targets/s",
    "waiting %",
]
_NOTES = [
    "each stage began with none of the graph in the page cache; seconds are those of the whole "
    "program, targets/s those of the epoch, or of the evaluation, alone",
    "a process's memory includes pages that it shares; GiB beside and with page cache are of all "
    "processes of a stage together, the latter under the limit",
    "waiting: of an epoch, by the rank that took longest, until the next batch was there",
]

Stage = dict[str, Any]  # papers, stage, the fields of `Used`, and rates


@dataclass(frozen=True)
class Plan:
    """What is measured, alike for all sizes; None of it may change between stages."""

    ranks: int
    memory_gib: float
    targets: int
    train: str

    def dataset(self, papers: int) -> str:
        """The spec of the graph: as many of its papers are labelled as make the targets."""
        labelled = min(1.0, self.targets / (_TRAIN_SHARE * papers))
        spec = f"synthetic:papers={papers},citations_per_paper={_CITATIONS}"
        return f"{spec},num_features={_FEATURES},feature_dtype=float16,labelled={labelled:.6g}"

    def command(self, stage: str, papers: int, folder: Path) -> list[str]:
        """The command of a stage, which keeps all it makes in `folder`."""
        dataset, cache = self.dataset(papers), ["--cache-dir", str(folder / "cache")]
        if stage == "prepare":
            return [sys.executable, "-m", "gnn_core.data.datasets", "prepare", dataset, *cache]
        if stage == "partition":
            how = ["--parts", str(self.ranks), "--method", "refine"]
            program = [sys.executable, "-m", "gnn_core.data.partition", dataset, *how]
            return [*program, "--output", str(folder / "parts"), *cache]
        flags = ["--dataset", dataset, *cache, "--eval", "sampled", "--progress", "lines"]
        flags += ["--checkpoint-dir", str(folder / "checkpoints")]
        flags += ["--records", str(folder / "records" / stage)]
        flags += [*shlex.split(_MODEL), *shlex.split(self.train)]
        if stage == "evaluate":  # with nothing left to train, a resumed run is an evaluation
            flags += ["--resume"]
        else:  # its evaluation is another stage
            flags += ["--eval-nodes", str(_EVALUATED)]
        return Launch("horovod", self.ranks).command(flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    hardware = machine.hardware()  # before the benchmark is a load of its own
    plan = Plan(options.ranks, options.memory, options.targets, options.train)
    folder = options.folder.absolute()
    done = _done_before(folder, plan)
    for papers in options.papers:
        missing = [
            stage for stage in options.stages if not any(_is_of(one, papers, stage) for one in done)
        ]
        for stage in missing:
            _say(f"{papers:,} papers: {stage}")
            done.append(_measured(plan, stage, papers, folder / f"{papers}"))
            content = {"plan": dataclasses.asdict(plan), "stages": done}
            write_bench(folder / _DONE, content)
            _say(f"{papers:,} papers: {stage} took {done[-1]['seconds']:.1f} s")
        is_over = all(any(_is_of(one, papers, stage) for one in done) for stage in STAGES)
        if is_over and not options.keep:
            shutil.rmtree(folder / f"{papers}", ignore_errors=True)
    asked = [
        one
        for papers in options.papers
        for stage in options.stages
        for one in done
        if _is_of(one, papers, stage)
    ]
    record = _record(hardware, plan, asked)
    table, notes = table_text(record)
    print("\n".join([table, "", *notes]))
    if options.json is not None:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.bench.large")
    add = parser.add_argument
    sizes = ",".join(f"{size:g}" for size in _SIZES)
    add("--papers", type=_sizes, default=_sizes(sizes), metavar="N,N,...", help=f"sizes ({sizes})")
    add("--ranks", type=whole(), default=2, metavar="N", help="ranks, and parts (2)")
    add("--memory", type=finite(0), default=16.0, metavar="GIB", help="limit; 0 is none (16)")
    text = "training targets of an epoch, of which small graphs have fewer (50000)"
    add("--targets", type=whole(), default=50_000, metavar="N", help=text)
    add("--stages", type=_stages, default=STAGES, metavar="NAME,...", help=",".join(STAGES))
    text = f'further flags of training, in quotes ("{_STORE}")'
    add("--train", default=_STORE, metavar="FLAGS", help=text)
    default = Path("results/runs/large")
    add("--folder", type=path_argument, default=default, help=f"where to work ({default})")
    add("--keep", action="store_true", help="keep the graphs")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _sizes(text: str) -> tuple[int, ...]:
    size = finite(1000, 2e9)
    return tuple(int(size(part)) for part in text.split(","))


def _stages(text: str) -> tuple[str, ...]:
    stages = tuple(text.split(","))
    if unknown := [stage for stage in stages if stage not in STAGES]:
        known = ", ".join(STAGES)
        raise argparse.ArgumentTypeError(f"expected some of {known}, got {unknown[0]!r}")
    return tuple(stage for stage in STAGES if stage in stages)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_of(one: Stage, papers: int, stage: str) -> bool:
    return bool(one["papers"] == papers and one["stage"] == stage)


def _done_before(folder: Path, plan: Plan) -> list[Stage]:
    """The stages that are done already. UsageError where they were measured otherwise."""
    file = folder / _DONE
    if not file.exists():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        stages: list[Stage] = content["stages"]
        is_alike = content["plan"] == dataclasses.asdict(plan)
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"{file}: expected the stages of an earlier call, got others") from None
    if not is_alike:
        raise UsageError(
            f"{folder}: expected stages measured with these flags, got some with others "
            f"({content['plan']}); take another --folder or remove this one"
        )
    return stages


def _measured(plan: Plan, stage: str, papers: int, folder: Path) -> Stage:
    """Run one stage, and measure it."""
    log = folder / "logs" / f"{stage}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--folder: cannot make {log.parent}: {error.strerror}") from None
    if stage == "prepare":
        per_paper = 2 * 2 * _FEATURES + 4 * 4 * _CITATIONS + 32  # features twice: parts are a copy
        require_room(f"{papers:,} papers", folder, per_paper * papers)
    shutil.rmtree(folder / "records" / stage, ignore_errors=True)
    forget_pages(folder)
    try:
        command = plan.command(stage, papers, folder)
        with _followed(log):
            used = run_measured(command, log, int(plan.memory_gib * _GIB))
    except UsageError as error:
        raise UsageError(f"{papers:,} papers, {stage}: {error}") from None
    found = {"papers": papers, "stage": stage, **dataclasses.asdict(used)}
    if stage in ("prepare", "partition"):
        (graph,) = (file.parent for file in (folder / "cache" / "graphs").glob(f"*/{META}"))
        num_edges = read_meta(graph)["num_edges"]
        return {**found, "edges": num_edges, "citations_per_second": num_edges / 2 / used.seconds}
    return {**found, **_rates(stage, folder / "records" / stage)}


@contextlib.contextmanager
def _followed(log: Path) -> Iterator[None]:
    """Print the last line of a log from time to time, if there is another one."""
    over = threading.Event()

    def follow() -> None:
        told = ""
        while not over.wait(_SECONDS_BETWEEN_LINES):
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            last = (text.splitlines() or [""])[-1]
            if last and last != told:
                told = last
                _say(f"  {printable(told)}")

    thread = threading.Thread(target=follow, name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _rates(stage: str, folder: Path) -> Stage:
    """What the record of a training run says of its speed."""
    record = read_records(folder)[0][-1]
    if stage == "evaluate":
        count = sum(int(record.final[f"{split}_count"] or 0) for split in ("valid", "test"))
        rate = per_second(count, record.evaluation_seconds or 0)
        return {"targets": count, "targets_per_second": rate}
    epoch = record.epochs[-1]
    return {
        "targets": epoch.num_targets,
        "targets_per_second": per_second(epoch.num_targets, epoch.seconds),
        "waiting_share": epoch.sections.get("wait", 0.0) / epoch.seconds,
        "epoch_seconds": epoch.seconds,
        "sections": epoch.sections,
    }


def _record(hardware: Mapping[str, Any], plan: Plan, stages: Sequence[Stage]) -> dict[str, Any]:
    where = machine.origin(hardware)
    notes = ["other programs were running"] if was_busy(hardware) else []
    return {
        "benchmark": "large graphs",
        **where,
        "settings": {
            "memory": f"{plan.memory_gib:g} GiB" if plan.memory_gib else "unlimited",
            "ranks": plan.ranks,
            "citations": f"{_CITATIONS} per paper",
            "features": f"{_FEATURES} x float16",
            "targets": f"{plan.targets} an epoch, or all of a small graph",
            "training": " ".join([_MODEL, plan.train]).strip(),
        },
        "columns": _COLUMNS,
        "rows": [_row(stage) for stage in stages],
        "notes": [*_NOTES, *notes],
        "stages": list(stages),
    }


def _row(stage: Stage) -> list[Any]:
    def scaled(name: str, unit: float) -> float | None:
        value = stage.get(name)
        return None if value is None else value / unit

    return [
        stage["papers"],
        stage["stage"],
        stage["seconds"],
        stage["cpu_seconds"],
        scaled("rss_bytes", _GIB),
        scaled("anonymous_bytes", _GIB),
        scaled("group_peak_bytes", _GIB),
        scaled("read_bytes", 1e9),
        scaled("written_bytes", 1e9),
        scaled("citations_per_second", 1e6),
        scaled("targets_per_second", 1),
        scaled("waiting_share", 0.01),
    ]


if __name__ == "__main__":
    sys.exit(main())
