"""Keras against PyTorch: the same weights, ten steps, gradients, losses, evaluation, checkpoints.

Every case runs under one replica, but for those that another one in fp64 implies. Those on which
the number of replicas has a bearing also run under two in one process, and those on which it has
one that they are processes, under two processes. The others do so in `make test-long`.
"""

# ruff: noqa: E402
from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig
from gnn_core.data import datasets
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.link_graph import LinkSplit, link_graph
from gnn_core.training.checkpoint import Checkpoints, state_of, weights_of
from gnn_core.training.state import RunProgress, Weights
from horovod_gnn.arithmetic import Arithmetic
from horovod_gnn.learner import TorchLearner
from horovod_gnn.parallel import SingleProcess
from tests.e2e.keras_runs import runs, two_workers
from tests.parity.keras_steps import a_batch
from tests.patience import patient
from tests.unit.made_models import ISOLATED, odd_graph

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tensorflow]
STRATEGIES = ("one", "mirrored", "multiworker")
DRIVER = "tests.parity.keras_steps"
STEPS = 10
ASSIGNS = ("uneven", "by owner", "by cluster")  # as in `assigns_of`
SETTINGS: dict[str, Any] = {
    "hidden": 8,
    "fanouts": (3, 2),
    "epochs": 100,
    "global_batch_size": 4,  # the last batch of an epoch of 15 targets holds 3
    "lr": 0.02,
    "dropout": 0.0,
    "input_dropout": 0.0,
    "weight_decay": 0.0,
    "precision": "fp32",
    "device": "cpu",
    "seed": 5,
}
DROPS = {"dropout": 0.4, "input_dropout": 0.2}
TINY = {"dataset": "tiny", "global_batch_size": 22}
CORA = {"dataset": "cora", "hidden": 16, "fanouts": (10, 5), "global_batch_size": 60}
FP64 = {"precision": "fp64"}
LINK = {
    "task": "link",
    "dataset": "links",
    "hold_out": "random",
    "candidates": 20,
    "eval_edges": 0,
    "global_batch_size": 22,
    "predictor_layers": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "adam": {**TINY},
    "adam, decay": {"weight_decay": 0.05},
    "sgd": {"optimizer": "sgd", "lr": 0.3},
    "sgd, decay, sum": {"optimizer": "sgd", "weight_decay": 0.05, "aggregator": "sum"},
    "dropout": {**DROPS, **TINY},
    "max, dropout": {**DROPS, "aggregator": "max"},
    "three layers": {"fanouts": (2, 3, -1)},
    "fp64, adam": {**FP64, **TINY},
    "fp64, sgd, decay": {**FP64, "optimizer": "sgd", "weight_decay": 0.05, "lr": 0.3},
    "fp64, decay, dropout": {**FP64, **DROPS, "weight_decay": 0.05},
    "fp64, sum, dropout": {**FP64, **DROPS, "aggregator": "sum", "optimizer": "sgd"},
    "fp64, max, dropout": {**FP64, **DROPS, "aggregator": "max"},
    "fp64, none, dropout": {**FP64, **DROPS, "aggregator": "none"},
    "fp64, one layer": {**FP64, "fanouts": (3,), "input_dropout": 0.2},
    "fp64, three layers": {**FP64, **DROPS, "fanouts": (2, 3, -1), "prefetch": 0},
    "float16 features": {**DROPS, "dataset": "odd float16"},
    "bfloat16 features": {"dataset": "odd bfloat16"},
    "fp64, gathered rows": {**FP64, "dataset": "odd float16"},
    "fp64, gathered rows, dropout": {**FP64, **DROPS},
    "fp64, on disk": {**FP64, **DROPS, **TINY, "feature_store": "disk", "disk_cache": "1KiB"},
    "fp64, uneven": {**FP64},
    "fp64, uneven, dropout": {**FP64, **DROPS, **TINY},
    "fp64, by owner, dropout": {**FP64, **DROPS, **TINY},
    "fp64, by cluster, dropout": {**FP64, **DROPS, **TINY},
    "bf16": {"precision": "bf16", **TINY},
    "bf16, dropout": {"precision": "bf16", **DROPS, "dataset": "odd bfloat16"},
    "cora": {**CORA},
    "cora, dropout": {**CORA, "dropout": 0.8, "input_dropout": 0.8, "weight_decay": 1e-3},
    "begun by torch": {**FP64, **DROPS},
    "fp64, link": {**FP64, **DROPS, **LINK, "hide_targets": True, "negatives": 3},
    "fp64, link, uneven": {**FP64, **DROPS, **LINK, "hide_targets": True, "negatives": 3},
    "fp64, link, by cluster": {**FP64, **DROPS, **LINK, "hide_targets": True, "negatives": 3},
    "fp64, link, shared": {**FP64, **LINK, "shared_negatives": True, "optimizer": "sgd", "lr": 0.3},
    "fp64, link, embeddings": {**FP64, **LINK, "predictor": "mlp", "link_loss": "bce"},
    "fp64, link, ncn": {**FP64, **DROPS, **LINK, "predictor": "ncn", "negatives": 3},
    "fp64, link, on disk": {**FP64, **DROPS, **LINK, "feature_store": "disk"},
    "link": {**LINK},
}
# Every sum over replicas, of equal and unequal shares, and what each of them reads its rows from.
SEVERAL = (
    "sgd, decay, sum",
    "dropout",
    "fp64, adam",
    "fp64, max, dropout",
    "fp64, gathered rows, dropout",
    "fp64, on disk",
    "fp64, uneven, dropout",
    "fp64, by cluster, dropout",
    "bf16, dropout",
    "begun by torch",
    "fp64, link, uneven",
    "fp64, link, shared",
)
# Of these, what is not the same in one process and in two.
IN_PROCESSES = (
    "sgd, decay, sum",
    "fp64, max, dropout",
    "fp64, on disk",
    "fp64, uneven, dropout",
    "bf16, dropout",
    "fp64, link, uneven",
)
# What a case in fp64, or one of the same kind with dropout, holds to more digits or in more places.
IMPLIED = (
    *("adam", "adam, decay", "sgd", "max, dropout", "three layers", "bf16"),
    *("fp64, uneven", "fp64, gathered rows", "fp64, by owner, dropout", "fp64, link, by cluster"),
)
# Relative to the largest value of an array. Sums in another order are rounded to another bf16 now
# and then, 1 / 256 apart, and ten steps of Adam make several such roundings of it.
TOLERANCE = {"fp32": 1e-4, "fp64": 1e-10, "bf16": 5e-2}


@dataclass(frozen=True)
class Place:
    """Where graphs and files of the cases lie."""

    folder: Path
    graphs: Mapping[str, Graph]

    def settings(self, case: str) -> dict[str, Any]:
        """All settings of a case."""
        return {**SETTINGS, "dataset": "odd", **CASES[case]}

    def graph(self, case: str) -> Graph:
        """The graph of a case; skips where it is not there."""
        name = self.settings(case)["dataset"]
        if name not in self.graphs:
            pytest.skip(f"{name} is not here: RINGSAGE_DATA names no folder of published graphs")
        return self.graphs[name]


def in_16_bits(graph: Graph, dtype: str) -> Graph:
    """The same graph with its features stored as `float16` or `bfloat16`."""
    features = torch.from_numpy(graph.features.copy()).to(getattr(torch, dtype))
    stored = features.view(torch.uint16) if dtype == "bfloat16" else features
    return Graph.from_arrays(
        f"odd {dtype}",
        graph.indptr,
        graph.indices,
        stored.numpy(),
        graph.labels,
        graph.splits,
        num_classes=graph.num_classes,
    )


def citation_graph(num_nodes: int = 60) -> Graph:
    """Papers that cite older ones, without features."""
    random = np.random.default_rng(1)
    citing = np.repeat(np.arange(num_nodes), 4)
    cited = (citing * random.random(len(citing))).astype(np.int64)
    alone = np.zeros(num_nodes + 1, np.int64)
    citations = np.stack([citing, cited], axis=1)
    return Graph.from_arrays("citing", alone, [], citations=citations)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_graph: Graph) -> Place:
    """Write the graphs, so that both read memory maps; isolated nodes are among the targets."""
    folder = tmp_path_factory.mktemp("keras")
    odd = odd_graph()
    assert set(ISOLATED) & set(odd.split("train"))
    assert set(ISOLATED) & {*odd.split("valid"), *odd.split("test")}
    made = {"odd": odd, "tiny": tiny_graph}
    made |= {f"odd {dtype}": in_16_bits(odd, dtype) for dtype in ("float16", "bfloat16")}
    graphs = {}
    for name, graph in made.items():
        write_graph(graph, folder / name)
        graphs[name] = Graph.open(folder / name)
    split = LinkSplit("random", share=0.1, seed=3, svd_width=6)
    graphs["links"] = link_graph(citation_graph(), split, folder / "cache")
    root = Path(
        os.environ.get("RINGSAGE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
    )
    if root.is_dir():
        graphs["cora"] = datasets.load("cora", root, folder / "cache")
    return Place(folder, graphs)


@pytest.fixture(scope="module")
def begun(place: Place) -> Path:
    """The checkpoint that the torch learner leaves after an epoch and two steps."""
    settings = place.settings("begun by torch")
    config, graph = RunConfig(**settings), place.graphs["odd"]
    learner, progress = TorchLearner.of(config, graph, SingleProcess()), RunProgress()
    learner.train_epoch(progress, lambda loss: None)
    folder = place.folder / "begun"
    checkpoints = Checkpoints(str(folder), config, graph.fingerprint, 1, "torch")
    checkpoints.save_last(learner.weights(), learner.optimizer_state(), RunProgress(1), {})
    return folder / "last.safetensors"


@pytest.fixture(scope="module")
def keras(request: pytest.FixtureRequest, place: Place, begun: Path) -> Callable[[str], None]:
    """Give `keras(strategy)`: do the cases that are asked for, in one start of TensorFlow."""
    here = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.params["found"] for item in here if isinstance(item, pytest.Function)}

    @functools.cache
    def do(strategy: str) -> None:
        cases = [case for case in CASES if (strategy, case) in asked]
        by_keras(strategy, cases, place, begun)

    return do


def by_keras(name: str, names: Sequence[str], place: Place, begun: Path) -> None:
    """Do these cases under a strategy; each leaves its arrays and a checkpoint in its folder."""
    cases = []
    for case in names:
        settings = place.settings(case)
        if settings["dataset"] not in place.graphs:
            continue
        folder = place.folder / case
        (folder / name).mkdir(parents=True, exist_ok=True)
        graph = place.graphs[settings["dataset"]]
        cases.append(
            {
                "settings": settings,
                "graph": str(graph.folder),
                "folder": str(folder),
                "begun": str(begun) if case == "begun by torch" else None,
                "gathers": "gathered" in case,
                "assign": next((name for name in ASSIGNS if name in case), None),
            }
        )
    list_of_cases = place.folder / f"{name}.json"
    list_of_cases.write_text(json.dumps(cases))
    environments = two_workers() if name == "multiworker" else [{}]
    words = [name, list_of_cases]
    started = [runs().start(words, program=DRIVER, **env) for env in environments]
    for end in [run.end(patient(120)) for run in started]:
        assert end.code == 0, end.err


@dataclass(frozen=True)
class Found:
    """What a case came to, by PyTorch and by Keras."""

    torch: Mapping[str, npt.NDArray[Any]]
    keras: Mapping[str, npt.NDArray[Any]]
    tolerance: float
    checkpoint: Path  # that Keras left

    def assert_near(self, name: str) -> None:
        """The arrays of that name are equal, but for rounding."""
        ours, theirs = self.keras[name], self.torch[name]
        assert ours.shape == theirs.shape, name
        scale = np.abs(theirs).max() or 1.0
        assert np.isfinite(ours).all(), name
        assert np.abs(ours - theirs).max() / scale < self.tolerance, name

    def names(self, part: str) -> list[str]:
        """What there is of a part, in order."""
        names = sorted(name for name in self.torch if name.startswith(f"{part}."))
        assert names == sorted(name for name in self.keras if name.startswith(f"{part}."))
        return names


def by_default(strategy: str) -> Sequence[str]:
    """The cases that are not left to `make test-long`."""
    if strategy == "one":
        return [case for case in CASES if case not in IMPLIED]
    return SEVERAL if strategy == "mirrored" else IN_PROCESSES


@pytest.fixture(
    params=[
        pytest.param(
            (strategy, case),
            id=f"{strategy}-{case}",
            marks=[] if case in by_default(strategy) else [pytest.mark.long],
        )
        for strategy in STRATEGIES
        for case in CASES
    ]
)
def found(
    request: pytest.FixtureRequest, place: Place, keras: Callable[[str], None], begun: Path
) -> Found:
    """A case under a strategy."""
    strategy, case = request.param
    settings, graph = place.settings(case), place.graph(case)
    keras(strategy)
    ours = by_torch(
        tuple(settings.items()), graph.folder, begun if case == "begun by torch" else None
    )
    folder = place.folder / case / strategy
    with np.load(folder / "steps.npz", allow_pickle=False) as arrays:
        theirs = dict(arrays)
    tolerance = TOLERANCE[settings["precision"]]
    return Found(ours, theirs, tolerance, folder / "last.safetensors")


@functools.cache
def by_torch(
    settings: tuple[tuple[str, Any], ...], folder: Path, begun: Path | None
) -> dict[str, npt.NDArray[Any]]:
    """What the torch learner comes to in the same steps."""
    config, graph = RunConfig(**dict(settings)), Graph.open(folder)
    learner, progress = TorchLearner.of(config, graph, SingleProcess()), RunProgress()
    model = learner.model
    if config.precision == "bf16":  # as Keras does it: what it multiplies is rounded, sums are not
        model.arithmetic = Arithmetic("bf16", native_bf16=False)
    if begun:
        state = state_of(begun.read_bytes())
        learner.load_weights(state.weights)
        learner.load_optimizer_state(state.optimizer)
        progress = state.progress
    found: dict[str, Any] = {f"initial.{n}": array for n, array in learner.weights().items()}
    found["num_parameters"] = learner.num_parameters
    found["logits"] = logits_of(learner, config, graph)
    losses: list[float] = []
    gradients: list[npt.NDArray[Any]] = []

    def after_step(loss: float) -> None:
        losses.append(loss)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy().copy())

    while len(losses) < STEPS:
        learner.train_epoch(progress, after_step)
        progress = RunProgress(progress.epoch + 1)
    found |= {"losses": np.array(losses), "gradients": np.array(gradients)}
    found |= {f"final.{name}": array for name, array in learner.weights().items()}
    found |= {f"optimizer.{name}": array for name, array in learner.optimizer_state().items()}
    for split, tally in learner.evaluate(("valid", "test")).items():
        found[f"tally.{split}"] = np.array(tally.to_vector())
    return found


def logits_of(learner: TorchLearner, config: RunConfig, graph: Graph) -> npt.NDArray[Any]:
    """Logits of a few nodes, nothing dropped."""
    model = learner.model
    batch = a_batch(config, graph)
    model.eval()
    with torch.no_grad():
        inputs = learner.feed.inputs(batch.input_nodes)
        logits = model(inputs, batch.input_nodes, batch.blocks, batch.key)
    return logits[: batch.num_real].numpy()


def test_weights_begin_alike_to_the_last_bit(found: Found) -> None:
    for name in found.names("initial"):
        ours, theirs = found.keras[name], found.torch[name]
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        assert ours.tobytes() == theirs.tobytes(), name
    assert found.keras["num_parameters"] == found.torch["num_parameters"]


def test_ten_steps_come_to_the_same(found: Found) -> None:
    assert len(found.torch["losses"]) >= STEPS
    assert found.torch["gradients"].any(axis=1).all()
    for name in ("logits", "losses", "gradients", *found.names("final")):
        found.assert_near(name)


def test_the_optimizer_remembers_the_same(found: Found) -> None:
    for name in found.names("optimizer"):
        found.assert_near(name)


def test_all_neighbours_of_all_targets_are_evaluated_alike(found: Found) -> None:
    for name in found.names("tally"):
        ours, theirs = found.keras[name], found.torch[name]
        assert ours[-1] == theirs[-1]  # targets
        assert ours[0] == pytest.approx(theirs[0], rel=found.tolerance)
        if found.tolerance < TOLERANCE["bf16"]:
            np.testing.assert_allclose(ours[1:], theirs[1:], rtol=1e-12)  # counts, or sums of ranks


def test_the_step_is_traced_once(found: Found) -> None:
    """Batches of all lengths, the last of each epoch shorter, and a warm-up."""
    assert found.keras["traces"] == 1


def test_a_checkpoint_of_keras_is_one_of_torch(found: Found, place: Place) -> None:
    weights = weights_of(found.checkpoint)
    graph = place.graphs["odd"]
    names = found.names("final")
    assert [f"final.{name}" for name in sorted(weights)] == sorted(names)
    for name, array in weights.items():
        assert array.tobytes() == found.keras[f"final.{name}"].tobytes()
    if "layers.0.weight" not in weights:  # of link prediction
        return
    widths = weights["layers.0.weight"].shape
    if widths[1] != 2 * graph.num_features or found.tolerance != TOLERANCE["fp64"]:
        return
    settings = {**place.settings("begun by torch"), "fanouts": (3,) * (len(weights) // 2)}
    learner = TorchLearner.of(RunConfig(**settings), graph, SingleProcess())
    learner.load_weights(weights)  # strict about names and shapes
    state: Weights = state_of(found.checkpoint.read_bytes()).optimizer
    learner.load_optimizer_state(state)
    for name, array in learner.weights().items():
        assert array.tobytes() == weights[name].tobytes()
    for name, array in learner.optimizer_state().items():
        assert array.tobytes() == state[name].tobytes()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
