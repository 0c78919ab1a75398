"""What was tried: `python -m tf_mirrored.bench` times the step against other ways to write it.

All of them train the same model on the same batches, taking turns in one process; torch's step,
from `python -m horovod_gnn.bench`, takes its turn in a process of its own. What is done beforehand,
in the thread that draws the batches, is timed too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnn_core.bench.bench_file import origin, spread_text, write_bench
from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.batch import Batch
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.schedule import Schedule
from gnn_core.training.allocator import keep_freed_memory
from gnn_core.usage import Parser, whole

_WAYS = {
    "as it trains": "segment operations out of the table, their gradient along reversed edges, "
    "keyed masks drawn beforehand",
    "own gradient": "the same with the gradient that TensorFlow has for them",
    "gathered": "each edge's row gathered, then added up by destination, TensorFlow's gradient",
    "own dropout": "as it trains, but with tf.nn.dropout, whose masks differ between replicas",
}
_TORCH = "torch"
_TORCH_STEP = "fused fp32"  # by the name that `horovod_gnn.bench` gives it
_STRATEGY = "one"


@dataclass
class Way:
    """One way to write the step, and its seconds by round."""

    name: str
    prepare: Callable[[Batch], Any]
    step: Callable[[Any], Any]
    beforehand: list[list[float]] = field(default_factory=list)
    steps: list[list[float]] = field(default_factory=list)

    def run(self, batches: Sequence[Batch]) -> None:
        """One round: a step on each batch."""
        beforehand, steps = [], []
        for batch in batches:
            start = time.perf_counter()
            made = self.prepare(batch)
            between = time.perf_counter()
            self.step(made)
            beforehand.append(between - start)
            steps.append(time.perf_counter() - between)
        self.beforehand.append(beforehand)
        self.steps.append(steps)

    def medians(self) -> list[float]:
        """Seconds of a step with what is done beforehand, by round."""
        rounds = zip(self.beforehand, self.steps, strict=True)
        return [statistics.median(map(sum, zip(*both, strict=True))) for both in rounds]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a usage error."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    hardware = machine.hardware()  # before the benchmark is a load of its own
    config = RunConfig(dataset=options.dataset, data_root=options.data_root)
    graph = datasets.load(config.dataset, config.data_root, None, progress=print)
    loader = Loader(graph, "train", config.fanouts, config.global_batch_size, seed=0, prefetch=0)
    batches = [loader.batch(0, step) for step in range(min(options.steps, loader.num_steps))]
    ways = _ways(config, graph, options.threads)
    for way in ways:
        way.run(batches[:2])
        way.beforehand.clear()
        way.steps.clear()
    torch_seconds: list[float] = []
    for number in range(options.rounds):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            way.run(batches)
        torch_seconds.append(_torch_seconds(options, len(batches)))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    record = _record(options, config, ways, torch_seconds, hardware)
    _print(record)
    if options.json:
        write_bench(Path(options.json), record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m tf_mirrored.bench")
    add = parser.add_argument
    add("--dataset", default="synthetic-arxiv", help="as in training (default: %(default)s)")
    add("--data-root", help="as in training")
    add("--threads", type=whole(1, 1024), default=1)
    add("--rounds", type=whole(), default=5, help="how often each way takes its turn")
    add("--steps", type=whole(), default=6, help="steps per turn, each on its own batch")
    add("--json", type=path_argument, metavar="FILE", help="also write a record of all figures")
    return parser.parse_args(argv)


def _ways(config: RunConfig, graph: Graph, threads: int) -> list[Way]:
    from tf_mirrored.strategy import start

    replicas = start(_STRATEGY, threads=threads)
    import tensorflow as tf

    from gnn_core.measure.timing import Stopwatch
    from gnn_core.training.tasks import feature_store
    from tf_mirrored.input import Feed, feature_table
    from tf_mirrored.loop import Training
    from tf_mirrored.model import GraphSAGE, trainable
    from tf_mirrored.objective import node_objective
    from tf_mirrored.optimizer import make_optimizer

    class WithOwnDropout(GraphSAGE):
        def layer(self, depth: int, h: tf.Tensor, block: Any) -> tf.Tensor:
            out = super().layer(depth, h, block)
            return out if depth == len(self.widths) - 1 else tf.nn.dropout(out, config.dropout)

    def gathered_mean(h: tf.Tensor, block: Any) -> tf.Tensor:
        rows = tf.gather(h, block.columns)
        return tf.math.unsorted_segment_mean(rows, block.segments, block.num_dst)

    store = feature_store(graph)

    def made(name: str) -> Way:
        cls = WithOwnDropout if name == "own dropout" else GraphSAGE
        model = cls(graph.num_features, config.hidden, graph.num_classes, layers=config.layers)
        if name == "gathered":
            model.aggregate = gathered_mean
        optimizer = make_optimizer("adam", config.lr, 0.0)
        optimizer.build(trainable(model))
        undropped = dataclasses.replace(config, dropout=0.0)
        feed = Feed(
            undropped if name == "own dropout" else config,
            store,
            training=True,
            reverses=name in ("as it trains", "own dropout"),
        )
        training = Training(
            model=model,
            objective=node_objective,
            optimizer=optimizer,
            loaders=[None],
            feed=feed,
            table=feature_table(store),
            schedule=Schedule.of(config, 1),
            replicas=replicas,
            watch=Stopwatch(),
            prefetch=0,
        )
        extra = [tf.zeros([2], feed.real)]
        return Way(
            name, feed.step, lambda step: training.step(training.table, [step], extra)[0].numpy()
        )

    return [made(name) for name in _WAYS]


def _torch_seconds(options: argparse.Namespace, steps: int) -> float:
    """Median seconds of torch's step on the same batches. Raises UsageError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torch.json"
        command = [
            sys.executable,
            "-m",
            "horovod_gnn.bench",
            "--only",
            _TORCH_STEP,
            "--rounds",
            "1",
            "--steps",
            str(steps),
            "--threads",
            str(options.threads),
            "--dataset",
            options.dataset,
            "--json",
            str(file),
        ]
        if options.data_root:
            command += ["--data-root", options.data_root]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise UsageError(f"{' '.join(command[1:])} failed: {done.stderr.strip()[-300:]}")
        record = json.loads(file.read_text("utf-8"))
    return record["implementations"][_TORCH_STEP]["elapsed"]["median_ms"] / 1000


def _ratios(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times the seconds of the others, by round: median (least .. most)."""
    return spread_text([one / other for one, other in zip(mine, theirs, strict=True)])


def _record(
    options: argparse.Namespace,
    config: RunConfig,
    ways: Sequence[Way],
    torch_seconds: Sequence[float],
    hardware: dict[str, Any],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    named = ("fanouts", "global_batch_size", "hidden", "dropout")
    base = ways[0].medians()
    rows = [
        [
            way.name,
            1000 * statistics.median(s for one in way.steps for s in one),
            1000 * statistics.median(s for one in way.beforehand for s in one),
            _ratios(way.medians(), base),
        ]
        for way in ways
    ]
    torch_ms = 1000 * statistics.median(torch_seconds)
    rows.append([_TORCH, torch_ms, 0.0, _ratios(torch_seconds, base)])
    steps = [statistics.median(one) for one in ways[0].steps]
    notes = [
        "ms: medians over the steps of all rounds; beforehand: what the thread that draws the "
        "batches does; x the time: both together, by round, median (least .. most)",
        *(f"{name}: {meaning}" for name, meaning in _WAYS.items()),
        f"{_TORCH}: the step of horovod_gnn on the same batches, in a process of its own",
        f"a Keras step as it trains takes {_ratios(steps, torch_seconds)} times as long as torch's",
    ]
    if (hardware["load_average"] or 0) > 0.5:
        notes.append("other programs are running: trust ratios more than milliseconds")
    return {
        "benchmark": "Keras step",
        **origin(hardware),
        "settings": {
            "dataset": config.dataset,
            **{name: getattr(config, name) for name in named},
            **{name: getattr(options, name) for name in ("threads", "rounds", "steps")},
        },
        "columns": ["way", "step ms", "beforehand ms", "x the time"],
        "rows": rows,
        "notes": notes,
    }


def _print(record: dict[str, Any]) -> None:
    print(f"{'':<16}{'step ms':>10}{'beforehand ms':>16}{'x the time':>24}")
    for name, step, beforehand, ratio in record["rows"]:
        print(f"{name:<16}{step:>10.1f}{beforehand:>16.1f}{ratio:>24}")
    print("\n".join(record["notes"]))


if __name__ == "__main__":
    sys.exit(main())
