"""Predictions are the same on any ranks, on a host that they share or on several."""

# ruff: noqa: E402
from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.inference import citations, output
from gnn_core.inference.job import Graphs, predict
from gnn_core.inference.request import Plan, read_request
from gnn_core.training import evaluate
from gnn_core.training.evaluate import LayerwiseModel
from gnn_core.training.tasks import feature_store
from gnn_core.training.world import Stopped
from horovod_gnn.evaluate import Layers, LinkLayers
from horovod_gnn.link import LinkModel
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import SingleProcess
from tests.unit.made_links import citing

pytestmark = pytest.mark.needs_torch


@pytest.fixture(params=["parallel", "process_group"], ids=["one host", "several hosts"])
def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SingleProcess]:
    """Give all ranks; those of torch.distributed as if on hosts that share no files."""
    world: SingleProcess = request.getfixturevalue(request.param)
    if request.param == "process_group":
        monkeypatch.setattr(type(world), "single_host", False)
    monkeypatch.setattr(evaluate, "CHUNK_NODES", 7)  # so that a share is more than one part
    monkeypatch.setattr(output, "_BLOCK_BYTES", 200)
    monkeypatch.setattr(citations, "CHUNK_PAIRS", 40)
    yield world
    world.stop_signal = None


def made_model(graph: Graph, task: str) -> LayerwiseModel:
    width = 9 if task == "link" else graph.num_classes
    model = GraphSAGE(graph.num_features, 9, width, layers=2, seed=2)
    if task == "link":
        return LinkLayers(LinkModel(model, 2, 0), feature_store(graph))
    return Layers(model, feature_store(graph))


def run(graph: Graph, world: SingleProcess, file: Path, words: list[str], plan: Plan) -> None:
    flags = ["--checkpoint-dir", "saved", "--output", str(file), *words]
    predict(
        read_request("", flags),
        plan,
        Graphs(graph, graph),
        world,
        made_model(graph, plan.config.task),
    )


def plan_of(what: str, depth: int = 1, top_k: int = 1) -> Plan:
    task = "link" if what == "citations" else "node"
    return Plan(RunConfig(task=task, quiet=True), what, depth, top_k)


def both(
    graph: Graph, world: SingleProcess, folder: Path, name: str, words: list[str], plan: Plan
) -> tuple[Path, Path]:
    """Predict alone and together; the files."""
    alone, together = folder / f"alone-{name}", folder / f"together-{name}"
    if world.rank == 0:
        run(graph, SingleProcess(), alone, words, plan)
    run(graph, world, together, words, plan)
    world.barrier()
    return alone, together


@pytest.mark.parametrize("which", ["all", "test"])
@pytest.mark.parametrize(
    ("what", "depth"), [("logits", 1), ("embeddings", 0), ("embeddings", 1)], ids=str
)
def test_rows_of_numbers(
    tiny_graph: Graph, world: SingleProcess, shared_path: Path, what: str, depth: int, which: str
) -> None:
    plan = plan_of(what, depth)
    files = both(tiny_graph, world, shared_path, "rows.npy", ["--nodes", which], plan)
    alone, together = (np.load(file) for file in files)
    nodes = np.arange(120) if which == "all" else tiny_graph.split(which)
    assert together.shape == (len(nodes), 9 if depth == 0 else 4)
    assert np.abs(together - alone).max() <= 1e-6 * max(1, np.abs(alone).max())
    assert (np.load(files[1].with_suffix(".ids.npy")) == nodes).all()
    world.barrier()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_classes(tiny_graph: Graph, world: SingleProcess, shared_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    files = both(tiny_graph, world, shared_path, f"c.{suffix}", [], plan_of("classes", top_k=3))
    alone, together = (read(file) for file in files)
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        assert np.allclose(together[name], values, rtol=0, atol=1e-6), name
    assert (together["node"] == np.arange(120)).all()
    world.barrier()


def test_missing_citations(world: SingleProcess, shared_path: Path) -> None:
    words = ["--papers", "3,9,10,40,149", "--candidates", ",".join(map(str, range(0, 150, 2)))]
    plan = plan_of("citations", top_k=4)
    alone, together = map(read, both(citing(), world, shared_path, "m.csv", words, plan))
    assert len(alone["paper"]) == 20
    for name in ("paper", "rank", "candidate"):
        assert (together[name] == alone[name]).all()
    assert np.allclose(together["score"], alone["score"], rtol=0, atol=1e-6)
    world.barrier()


def test_what_cannot_be_written_is_told_on_every_rank(
    tiny_graph: Graph, world: SingleProcess, shared_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shared_path))
    with pytest.raises(UsageError, match="cannot write .*; give another one with --output"):
        run(tiny_graph, world, shared_path / "none" / "c.csv", [], plan_of("classes"))
    with pytest.raises(UsageError, match="expected ids of its 120 nodes"):
        run(tiny_graph, world, shared_path / "c.csv", ["--nodes", "5,120"], plan_of("classes"))
    world.barrier()
    assert list(shared_path.iterdir()) == []
    world.barrier()


def test_a_signal_to_one_rank_ends_it_on_all_and_leaves_nothing(
    tiny_graph: Graph, world: SingleProcess, shared_path: Path
) -> None:
    if world.rank == world.world_size - 1:
        world.stop_signal = signal.SIGTERM
    with pytest.raises(Stopped):
        run(tiny_graph, world, shared_path / "c.csv", [], plan_of("classes"))
    world.stop_signal = None
    world.barrier()
    assert list(shared_path.iterdir()) == []
    world.barrier()


def read(file: Path) -> dict[str, Any]:
    """Columns by name."""
    if file.suffix == ".parquet":
        from pyarrow import parquet

        return {n: c.to_numpy() for n, c in zip(*_columns(parquet.read_table(file)), strict=True)}
    rows = np.genfromtxt(file, delimiter=",", names=True)
    return {name: np.atleast_1d(rows[name]) for name in rows.dtype.names}


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns
