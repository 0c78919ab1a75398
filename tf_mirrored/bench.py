"""Step benchmark: `python -m tf_mirrored.bench` times a step beside other ways to write it.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    columns_text,
    median_and_range,
    ratios,
    require_place,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.batch import Batch
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.training.allocator import keep_freed_memory
from gnn_core.usage import Parser, whole

_VARIANTS = {
    "as it trains": "segment operations out of the table, their gradient along reversed edges, "
    "keyed masks drawn beforehand",
    "own gradient": "the same with the gradient that TensorFlow has for them",
    "gathered": "each edge's row gathered, then added up by destination, TensorFlow's gradient",
    "own dropout": "as it trains, but with tf.nn.dropout, whose masks differ between replicas",
}
_TORCH = "torch"
_TORCH_STEP = "fused fp32"  # by the name that `horovod_gnn.bench` gives it
_STRATEGY = "one"


@dataclass(frozen=True)
class PreparedStepTimes:
    """Seconds of the steps of one round, and of what is done before each."""

    beforehand: list[float]
    steps: list[float]

    @property
    def median(self) -> float:
        """Seconds of a step with what is done beforehand."""
        return statistics.median(map(sum, zip(self.beforehand, self.steps, strict=True)))


@dataclass(frozen=True)
class Implementation:
    """One way to write the step."""

    prepare: Callable[[Batch], Any]  # done beforehand, of a batch
    step: Callable[[Any], Any]  # of what `prepare` made

    def run(self, batches: Sequence[Batch]) -> PreparedStepTimes:
        """One round: a step on each batch."""
        times = PreparedStepTimes([], [])
        for batch in batches:
            start = time.perf_counter()
            made = self.prepare(batch)
            between = time.perf_counter()
            self.step(made)
            times.beforehand.append(between - start)
            times.steps.append(time.perf_counter() - between)
        return times


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a usage error."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    keep_freed_memory()
    hardware = machine.hardware()  # before the benchmark is a load of its own
    config = RunConfig(dataset=options.dataset, data_root=options.data_root)
    graph = datasets.load(config.dataset, config.data_root, None, progress=print)
    loader = Loader(graph, "train", config.fanouts, config.global_batch_size, seed=0, prefetch=0)
    batches = [loader.batch(0, step) for step in range(min(options.steps, loader.num_steps))]
    variants = []
    for name, one in _implementations(config, graph, options.threads).items():
        one.run(batches[:2])  # traces, fetches pages
        variants.append(Variant(name, partial(one.run, batches)))
    variants.append(Variant(_TORCH, partial(_torch_step, options, len(batches))))
    take_turns(variants, options.rounds, lambda times: f"{1000 * times.median:.1f} ms")
    record = _record(options, config, variants, hardware)
    _print(record)
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m tf_mirrored.bench")
    add = parser.add_argument
    add("--dataset", default="synthetic-arxiv", help="as in training (default: %(default)s)")
    add("--data-root", help="as in training")
    add("--threads", type=whole(1, 1024), default=1)
    add_rounds_flag(parser, 5, "how often each way takes its turn")
    add("--steps", type=whole(), default=6, help="steps per turn, each on its own batch")
    add_json_flag(parser)
    return parser.parse_args(argv)


def _implementations(config: RunConfig, graph: Graph, threads: int) -> dict[str, Implementation]:
    """Each way to write the step, by name."""
    from tf_mirrored.strategy import start

    replicas = start(_STRATEGY, threads=threads)
    import tensorflow as tf

    from gnn_core.training.tasks import feature_store
    from tf_mirrored.input import Feed, feature_table
    from tf_mirrored.model import GraphSAGE, trainable
    from tf_mirrored.objective import node_objective
    from tf_mirrored.optimizer import make_optimizer
    from tf_mirrored.step import TracedStep
    from tf_mirrored.update import Allreduce

    class WithOwnDropout(GraphSAGE):
        def layer(self, depth: int, h: tf.Tensor, block: Any) -> tf.Tensor:
            out = super().layer(depth, h, block)
            return out if depth == len(self.widths) - 1 else tf.nn.dropout(out, config.dropout)

    def gathered_mean(h: tf.Tensor, block: Any) -> tf.Tensor:
        rows = tf.gather(h, block.columns)
        return tf.math.unsorted_segment_mean(rows, block.segments, block.num_dst)

    store = feature_store(graph)

    def made(name: str) -> Implementation:
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
        update = Allreduce(trainable(model), optimizer, replicas)
        take = TracedStep(model, node_objective, update, feed, feature_table(store), replicas)
        extra = [tf.zeros([2], feed.real)]
        return Implementation(feed.step, lambda step: take([step], extra)[0].numpy())

    return {name: made(name) for name in _VARIANTS}


def _torch_step(options: argparse.Namespace, steps: int) -> PreparedStepTimes:
    """The median of torch's step on the same batches, as one step. Raises UsageError."""
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
    seconds = record["implementations"][_TORCH_STEP]["elapsed"]["median_ms"] / 1000
    return PreparedStepTimes([0.0], [seconds])


def _record(
    options: argparse.Namespace,
    config: RunConfig,
    variants: Sequence[Variant[PreparedStepTimes]],
    hardware: dict[str, Any],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    named = ("fanouts", "global_batch_size", "hidden", "dropout")
    base = [times.median for times in variants[0].results]
    rows = [
        [
            one.name,
            1000 * statistics.median(s for times in one.results for s in times.steps),
            1000 * statistics.median(s for times in one.results for s in times.beforehand),
            median_and_range(ratios([times.median for times in one.results], base)),
        ]
        for one in variants
    ]
    steps, torch_steps = (
        [statistics.median(times.steps) for times in one.results]
        for one in (variants[0], variants[-1])
    )
    notes = [
        "ms: medians over the steps of all rounds; beforehand: what the thread that draws the "
        "batches does; x the time: both together, by round, median (least .. most)",
        *(f"{name}: {meaning}" for name, meaning in _VARIANTS.items()),
        f"{_TORCH}: the step of horovod_gnn on the same batches, in a process of its own",
        f"a Keras step as it trains takes {median_and_range(ratios(steps, torch_steps))} times as "
        "long as torch's",
    ]
    if was_busy(hardware):
        notes.append("other programs are running: trust ratios more than milliseconds")
    return {
        "benchmark": "Keras step",
        **machine.origin(hardware),
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
    rows = [
        [name, f"{step:.1f}", f"{beforehand:.1f}", ratio]
        for name, step, beforehand, ratio in record["rows"]
    ]
    print(columns_text([["", *record["columns"][1:]], *rows], (16, 10, 16, 24)))
    print("\n".join(record["notes"]))


if __name__ == "__main__":
    sys.exit(main())
