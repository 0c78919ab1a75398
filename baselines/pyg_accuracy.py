"""Compare the test accuracy of a run with defaults with PyTorch Geometric's GraphSAGE, full batch.

    python baselines/pyg_accuracy.py cora_ml twitch
    python baselines/pyg_accuracy.py ./my-graph --seeds 0-4 --json results/accuracy.json

Both train two layers of 128 hidden features on the same split of each graph (a folder, or the name
of an imported graph). Ringsage gets the recipe of the graph, as `python baselines/single.py
--dataset NAME` does; of PyG the best of a few usual settings is taken, by validation accuracy.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch", "torch_geometric")

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv

from baselines.heuristics import seed_list
from gnn_core.bench.frame import (
    add_json_flag,
    columns_text,
    require_place,
    run_training,
    write_bench,
)
from gnn_core.data import datasets
from gnn_core.measure import machine
from gnn_core.usage import Parser, whole
from horovod_gnn.pyg import to_pyg

_HIDDEN = 128
_DENSE = 0.2  # share of numbers that are not 0, above which a dense product is faster
_SINGLE = Path(__file__).with_name("single.py")


@dataclass(frozen=True)
class Setting:
    """What PyG's model is trained with, by Adam."""

    lr: float
    dropout: float
    weight_decay: float

    def __str__(self) -> str:
        return f"lr {self.lr:g}, dropout {self.dropout:g}, weight decay {self.weight_decay:g}"


SETTINGS = (Setting(0.01, 0.5, 5e-4), Setting(0.01, 0.5, 0.0), Setting(0.003, 0.5, 5e-4))


class PygSage(nn.Module):
    """Two layers of `SAGEConv`, ReLU and dropout between them.

    Nothing is dropped of the features, so that the mean over neighbours in layer 1 is made once.
    """

    def __init__(self, data: Data, num_classes: int, dropout: float):
        super().__init__()
        self.first: Any = SAGEConv(data.num_features, _HIDDEN)
        self.second: Any = SAGEConv(_HIDDEN, num_classes)
        self.dropout = dropout
        mean = self.first.propagate(data.edge_index, x=(data.x, data.x), size=None)
        self.mean, self.own = _Factor(mean), _Factor(data.x)

    def forward(self, edge_index: Tensor) -> Tensor:
        """Logits `[N, classes]`."""
        of_neighbours, own = self.first.lin_l, self.first.lin_r
        hidden = self.mean.times(of_neighbours.weight) + of_neighbours.bias
        hidden = functional.relu(hidden + self.own.times(own.weight))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        logits: Tensor = self.second(hidden, edge_index)
        return logits


class _Factor:
    """A constant matrix to multiply weights with, sparse where that is faster."""

    def __init__(self, matrix: Tensor):
        is_dense = matrix.count_nonzero() > _DENSE * matrix.numel()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse .* is in beta")
            self.matrix = matrix if is_dense else matrix.to_sparse_csr()
            self.transposed = None if is_dense else matrix.t().to_sparse_csr()

    def times(self, weight: Tensor) -> Tensor:
        """`matrix @ weight.T`."""
        if self.transposed is None:
            return self.matrix @ weight.t()
        product: Tensor = _SparseProduct.apply(self.matrix, self.transposed, weight)
        return product


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, weight: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ weight.t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, (ctx.transposed @ grad.contiguous()).t()


def train_pyg(
    data: Data, num_classes: int, setting: Setting, seed: int, epochs: int, patience: int
) -> tuple[float, float]:
    """Validation and test accuracy of the epoch with the best validation accuracy."""
    torch.manual_seed(seed)
    model = PygSage(data, num_classes, setting.dropout)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay
    )
    best, kept, since = -1.0, copy.deepcopy(model.state_dict()), 0
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        logits = model(data.edge_index)
        functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        valid = _accuracy(model, data, data.val_mask)
        since += 1
        if valid > best:
            best, kept, since = valid, copy.deepcopy(model.state_dict()), 0
        if since == patience:
            break
    model.load_state_dict(kept)
    return best, _accuracy(model, data, data.test_mask)


@torch.no_grad()
def _accuracy(model: PygSage, data: Data, mask: Tensor) -> float:
    model.eval()
    right = model(data.edge_index)[mask].argmax(1) == data.y[mask]
    return float(right.double().mean())


def compared(name: str, options: argparse.Namespace) -> list[Any]:
    """The row of one graph."""
    graph = datasets.load(name, options.data_root, options.cache_dir)
    data = to_pyg(graph)
    found: dict[Setting, tuple[list[float], list[float]]] = {}
    for setting in SETTINGS:
        runs = [
            train_pyg(data, graph.num_classes, setting, seed, options.epochs, options.patience)
            for seed in options.seeds
        ]
        valid, test = zip(*runs, strict=True)
        found[setting] = list(valid), list(test)
        _tell(f"{name}  PyG, {setting}: {_percent(valid)} valid, {_percent(test)} test")
    best = max(SETTINGS, key=lambda setting: statistics.mean(found[setting][0]))
    ours = []
    for seed in options.seeds:
        record = run_training(_command(name, seed, options), f"{name}, seed {seed}")
        ours.append(float(record.final["test_accuracy"] or 0.0))
    theirs = found[best][1]
    _tell(f"{name}  Ringsage: {_percent(ours)} test")
    difference = 100 * (statistics.mean(ours) - statistics.mean(theirs))
    sizes = [graph.num_nodes, graph.split_size("train"), graph.num_classes]
    return [graph.name, *sizes, _percent(ours), _percent(theirs), f"{difference:+.2f}", str(best)]


def _command(name: str, seed: int, options: argparse.Namespace) -> list[str]:
    if Path(name).is_dir():  # a run starts in the folder of the repository
        name = str(Path(name).resolve())
    command = [sys.executable, str(_SINGLE), "--dataset", name, "--seed", str(seed)]
    command += ["--threads", str(options.threads), "--progress", "off"]
    for flag in ("data_root", "cache_dir"):
        if value := getattr(options, flag):
            command += [f"--{flag.replace('_', '-')}", value]
    return command


def _percent(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        usage="pyg_accuracy.py NAME [NAME ...] [--flag value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="imported graphs, or folders")
    add("--data-root", metavar="DIR", help="as in training")
    add("--cache-dir", metavar="DIR", help="as in training")
    add("--seeds", type=seed_list, default=[0, 1, 2], metavar="LIST", help="such as 3 or 0-2 (0-2)")
    add("--epochs", type=whole(), default=1000, metavar="N", help="of PyG, at most (1000)")
    add("--patience", type=whole(), default=100, metavar="N", help="of PyG, in epochs (100)")
    add("--threads", type=whole(), default=1, metavar="N", help="of both (1)")
    add_json_flag(parser)
    return parser.parse_args(argv)


def main() -> int:
    """Train both on each graph, print and keep the figures; the exit code."""
    options = _parse(sys.argv[1:])
    require_place(options.json)
    hardware = machine.hardware()
    torch.set_num_threads(options.threads)
    columns = ["graph", "nodes", "training nodes", "classes", "Ringsage", "PyG", "difference"]
    record = {
        "benchmark": "test accuracy beside PyG",
        **machine.origin(hardware),
        "settings": {"seeds": len(options.seeds), "hidden": _HIDDEN, "layers": 2},
        "columns": [*columns, "setting of PyG"],
        "rows": [compared(name, options) for name in options.names],
        "notes": [
            "test accuracy in percent: mean ± standard deviation over seeds; difference: of means",
            "Ringsage: the recipe of the graph, as without flags; PyG: SAGEConv on the whole graph "
            f"with Adam, the best of {len(SETTINGS)} settings by mean validation accuracy",
        ],
    }
    print(columns_text([record["columns"], *_texts(record["rows"])], [20, *[16] * 6, 44]))
    if options.json:
        write_bench(options.json, record)
    return 0


def _texts(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[f"{value:,}" if isinstance(value, int) else value for value in row] for row in rows]


if __name__ == "__main__":
    sys.exit(guarded(main))
