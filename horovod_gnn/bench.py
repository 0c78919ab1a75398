"""Step benchmark: `python -m horovod_gnn.bench` times a training step beside other ways to do it.

Implementations take turns in one process, round by round, so that whatever else the machine does
falls on all of them alike. One of them is the step's matrix products alone, its floor: the share of
a step that they make up tells what is left to gain. Batches are drawn beforehand, as the prefetch
thread does it in training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch")

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    require_place,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.batch import Batch
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.measure import machine
from gnn_core.training.allocator import keep_freed_memory
from gnn_core.training.tasks import feature_store
from gnn_core.usage import Parser, finite, whole, wholes
from horovod_gnn import step_figures
from horovod_gnn.arithmetic import native_bf16_product
from horovod_gnn.exchange import to_pyg
from horovod_gnn.inputs import Inputs, StoredTable, torch_table
from horovod_gnn.model import GraphSAGE
from horovod_gnn.optimizer import Adam
from horovod_gnn.products import Products
from horovod_gnn.reference import ReferenceSAGE
from horovod_gnn.update import GradientBucket

_FP16 = "fp16 table"
_VARIANTS = {
    "fused fp32": "the model as it trains",
    f"fused fp32, {_FP16}": "the same with --table-dtype fp16",
    "fused bf16": "the model with --precision bf16",
    "reference": "plain PyTorch: index_select, index_add_, two Linear a layer, nn.Dropout",
    "reference, fast mask": "the same with a dropout mask drawn 16 bits a feature",
    "plain fp32": "the model without its kernels: embedding_bag and keyed dropout in torch",
}
Step = Callable[[Batch], None]
_AGREEMENT = {_FP16: 1e-3, "bf16": 5e-2}  # of the largest logit; else 1e-4


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the steps of one round."""

    elapsed: list[float]
    processor: list[float]  # of all threads of the process


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a usage error."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    torch.set_num_threads(options.threads)
    kept = options.allocator == "keep" and keep_freed_memory()
    hardware = machine.hardware()  # before the benchmark is a load of its own
    print(_opening(options, hardware, kept), flush=True)
    graph = datasets.load(
        options.dataset,
        options.data_root,
        options.cache_dir,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if isinstance(graph.features, SparseFeatures):
        options.only = [name for name in options.only if not name.endswith(_FP16)]
        print(f"sparse features: left out is what has an {_FP16}", flush=True)
    batches, steps, products = _prepare(options, graph)
    for step in steps.values():  # compiles kernels, fetches pages
        _timed(step, batches[:2])
    variants = [Variant(name, partial(_timed, step, batches)) for name, step in steps.items()]
    take_turns(variants, options.rounds, lambda times: f"{1000 * median(times.elapsed):.1f} ms")
    record = _record(options, graph, variants, products, batches, hardware, kept)
    print(step_figures.report(record))
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    recipe = RunConfig(dataset="synthetic-arxiv")
    parser = Parser.of(__doc__, prog="python -m horovod_gnn.bench")
    add = parser.add_argument
    add("--dataset", default=recipe.dataset, help="as in training (default: %(default)s)")
    add("--data-root", help="as in training")
    add("--cache-dir", help="as in training")
    add("--fanouts", type=wholes, default=recipe.fanouts, help="one per layer")
    add("--global-batch-size", type=whole(), default=recipe.global_batch_size)
    add("--hidden", type=whole(1, 1 << 20), default=recipe.hidden)
    add("--dropout", type=finite(0, 0.999), default=recipe.dropout)
    add("--threads", type=whole(1, 1024), default=1)
    add_rounds_flag(parser, 5, "how often each implementation takes its turn")
    add("--steps", type=whole(), default=6, help="training steps per turn, each on its own batch")
    add(
        "--only",
        nargs="+",
        choices=[*_VARIANTS],
        default=[*_VARIANTS],
        metavar="NAME",
        help=f"of {', '.join(map(repr, _VARIANTS))} (default: all)",
    )
    add(
        "--allocator",
        choices=("keep", "default"),
        default="keep",
        help="keep freed memory, as training does, or leave the C library's allocator alone",
    )
    add_json_flag(parser)
    return parser.parse_args(argv)


def _opening(options: argparse.Namespace, hardware: Mapping[str, Any], kept: bool) -> str:
    flags = ", ".join(hardware["cpu_flags"]) or "none of note"
    lines = [
        f"{hardware['cpu_model']} ({flags}), cores: {hardware['cores_available']}, load "
        f"{hardware['load_average']}, torch {torch.__version__}, {options.threads} thread(s), "
        f"freed memory {'kept' if kept else 'handed back'}"
    ]
    lines += [f"  {name}: {_VARIANTS[name]}" for name in options.only]
    return "\n".join([*lines, *_warnings(options, hardware)])


def _warnings(options: argparse.Namespace, hardware: Mapping[str, Any]) -> list[str]:
    """What keeps the figures from meaning what they seem to mean."""
    lines = []
    if not native_bf16_product() and any(name.endswith("bf16") for name in options.only):
        lines.append(
            "bf16 is emulated, since this CPU has no bfloat16 product (AVX-512 BF16 or AMX):\n"
            "its time says nothing about bf16 on a CPU that has one, and no claim is made"
        )
    if was_busy(hardware):
        lines.append("other programs are running: trust ratios more than milliseconds")
    return lines


def _prepare(
    options: argparse.Namespace, graph: Graph
) -> tuple[list[Batch], dict[str, Step], dict[str, Products]]:
    """The batches, the step of each implementation by name, and the matrix products alone.

    The products are among the steps. Implementations whose logits differ raise RuntimeError.
    """
    store = feature_store(graph)
    table = torch_table(store)
    assert table is not None
    features = StoredTable(table, store)
    loader = Loader(graph, "train", options.fanouts, options.global_batch_size, seed=0, prefetch=0)
    if loader.num_steps < options.steps:
        raise UsageError(
            f"--steps: {graph.name} has {loader.num_steps} global batches, expected at least "
            f"{options.steps}; lower --steps or --global-batch-size"
        )
    drawn = loader.batches(0)
    batches = [next(drawn) for _ in range(options.steps)]
    hidden = [options.hidden] * (len(options.fanouts) - 1)
    widths = [graph.num_features, *hidden, graph.num_classes]
    products = {}
    for precision, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        if precision == "fp32" or native_bf16_product():
            products[f"products {precision}"] = Products(batches, widths, dtype)
    steps: dict[str, Step] = {name: one.step for name, one in products.items()}
    with torch.no_grad():
        agreed = _logits(_model("reference", widths, 0.0), features, batches[0])
    for name in options.only:
        model = _model(name, widths, options.dropout)
        inputs = features
        if name.endswith(_FP16):
            assert isinstance(table, Tensor)
            inputs = StoredTable(table.half(), store)
        with torch.no_grad():
            logits = _logits(model.eval(), inputs, batches[0])
        tolerance = next((t for end, t in _AGREEMENT.items() if name.endswith(end)), 1e-4)
        if (logits - agreed).abs().max() > tolerance * agreed.abs().max():
            raise RuntimeError(f"{name} computes other logits than the reference")
        steps[name] = _step(model.train(), inputs)
    return batches, steps, products


def _timed(step: Step, batches: Sequence[Batch]) -> StepTimes:
    """One round: a step on each batch."""
    times = StepTimes([], [])
    for batch in batches:
        start, processor_start = time.perf_counter(), time.process_time()
        step(batch)
        times.processor.append(time.process_time() - processor_start)
        times.elapsed.append(time.perf_counter() - start)
    return times


def _model(name: str, widths: Sequence[int], dropout: float) -> nn.Module:
    """An implementation, with the weights that all of them begin with."""
    model = GraphSAGE(
        widths[0],
        widths[1],
        widths[-1],
        layers=len(widths) - 1,
        dropout=dropout,
        precision="bf16" if name == "fused bf16" else "fp32",
    )
    model.fused = name.startswith("fused")
    if not name.startswith("reference"):
        return model
    reference = ReferenceSAGE(widths, dropout, fast_mask=name.endswith("fast mask"))
    reference.load_state_dict(to_pyg(model, "layers."))
    return reference


def _logits(model: nn.Module, inputs: Inputs, batch: Batch) -> Tensor:
    keyed = (batch.key,) if isinstance(model, GraphSAGE) else ()
    return model(inputs, batch.input_nodes, batch.blocks, *keyed)


def _step(model: nn.Module, inputs: Inputs) -> Step:
    """Forward, backward and Adam, as `learner` does it on one rank."""
    bucket = GradientBucket(model)
    optimizer = Adam(model.parameters(), lr=0.003)

    def step(batch: Batch) -> None:
        bucket.clear()
        labels = torch.from_numpy(batch.labels).long()
        loss = functional.cross_entropy(_logits(model, inputs, batch), labels, reduction="sum")
        (loss / batch.num_global_real).backward()
        optimizer.step()

    return step


def _record(
    options: argparse.Namespace,
    graph: Graph,
    variants: Sequence[Variant[StepTimes]],
    products: Mapping[str, Products],
    batches: Sequence[Batch],
    hardware: Mapping[str, Any],
    kept: bool,
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it."""
    named = ("fanouts", "global_batch_size", "hidden", "dropout", "threads", "rounds", "steps")
    implementations = step_figures.figures(
        {
            one.name: (
                [times.elapsed for times in one.results],
                [times.processor for times in one.results],
            )
            for one in variants
        }
    )
    columns, rows = step_figures.table(implementations)
    meanings = [f"{name}: {_VARIANTS[name]}" for name in options.only]
    return {
        "benchmark": "training step",
        **machine.origin(hardware),
        "graph": {"name": graph.name, "nodes": graph.num_nodes, "edges": graph.num_edges},
        "settings": {"dataset": graph.name, **{name: getattr(options, name) for name in named}},
        "freed_memory_kept": kept,
        "bf16_is_native": native_bf16_product(),
        "rows_per_layer": [[block.num_dst for block in batch.blocks] for batch in batches],
        "edges_per_step": [batch.num_edges for batch in batches],
        "products": {name: one.best_rates() for name, one in products.items()},
        "implementations": implementations,
        "columns": columns,
        "rows": rows,
        "notes": [step_figures.MEANING, *meanings, *_warnings(options, hardware)],
    }


if __name__ == "__main__":
    sys.exit(main())
