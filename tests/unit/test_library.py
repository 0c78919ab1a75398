"""`import ringsage`: the same graph, batches, training and records as the programs have."""

# ruff: noqa: E402
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ringsage
from gnn_core.data.graph import Graph, write_graph
from ringsage import reference

pytestmark = pytest.mark.needs_torch
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tiny_graph: Graph, tmp_path: Path) -> str:
    write_graph(tiny_graph, tmp_path / "graph")
    return str(tmp_path / "graph")


def test_a_graph_is_opened_by_its_folder(folder: str, tiny_graph: Graph) -> None:
    assert ringsage.open_graph(folder).fingerprint == tiny_graph.fingerprint
    with pytest.raises(ringsage.UsageError, match="got nothing there"):
        ringsage.open_graph(folder + "-none/")


def test_the_shares_of_two_ranks_are_the_batch_of_one(tiny_graph: Graph) -> None:
    class Two:
        world_size = 2

        def __init__(self, rank: int):
            self.rank = rank

    alone = ringsage.make_loader(tiny_graph, fanouts=(3, 2), global_batch_size=20, seed=4)
    shares = [
        ringsage.make_loader(tiny_graph, fanouts=(3, 2), global_batch_size=20, seed=4, world=Two(r))
        for r in (0, 1)
    ]
    for batch in alone.batches(0):
        parts = [one.batch(0, batch.step) for one in shares]
        both = np.concatenate([part.targets[: part.num_real] for part in parts])
        assert both.tolist() == batch.targets.tolist()
        assert {part.num_global_real for part in parts} == {batch.num_global_real}


def test_a_split_that_is_evaluated_comes_in_order(tiny_graph: Graph) -> None:
    loader = ringsage.make_loader(tiny_graph, split="valid", global_batch_size=1000)
    assert loader.batch(0, 0).targets.tolist() == sorted(tiny_graph.split("valid").tolist())


def test_it_trains_and_leaves_a_record(folder: str, tmp_path: Path) -> None:
    settings = {"epochs": 2, "hidden": 8, "fanouts": (3, 2), "global_batch_size": 21}
    settings |= {"device": "cpu", "seed": 5, "quiet": True, "records": str(tmp_path / "records")}
    record = ringsage.train(dataset=folder, **settings)
    assert (record.status, len(record.epochs)) == ("ok", 2)
    assert 0 <= record.final["test_accuracy"] <= 1
    (kept,), problems = ringsage.read_records(tmp_path / "records")
    assert (kept.run_id, kept.step_losses, problems) == (record.run_id, record.step_losses, [])
    saved = str(tmp_path / "saved")
    again = ringsage.train(dataset=folder, checkpoint_dir=saved, **settings)
    assert again.step_losses == record.step_losses, "of the seed alone"
    graph = ringsage.open_graph(folder)
    nodes = graph.split("test")[::-1]
    right = ringsage.predict(saved, graph, nodes=nodes).argmax(1) == graph.labels[nodes]
    assert right.mean() == pytest.approx(again.final["test_accuracy"])
    assert ringsage.predict(saved, graph).shape == (graph.num_nodes, graph.num_classes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ringsage.train(dataset="no-such-thing"), "no-such-thing"),
        (lambda: ringsage.train(epochs=0), "--epochs: expected"),
        (lambda: ringsage.train("parallel"), "expected single, horovod or ddp, got 'parallel'"),
    ],
)
def test_a_mistake_is_one_line(call: object, message: str) -> None:
    with pytest.raises(ringsage.UsageError) as caught:
        call()  # type: ignore[operator]
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_importing_it_imports_no_framework() -> None:
    check = (
        "import sys, ringsage; strangers = {'torch', 'tensorflow', 'horovod', 'keras', 'pandas'};"
        "sys.exit(', '.join(strangers & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == reference.reference(), (
        "run `python -m ringsage.reference docs/api.md`"
    )
    for name in ringsage.__all__:
        assert (getattr(ringsage, name).__doc__ or "").strip(), name


def test_the_notebook_runs(run_cli: Callable, tmp_path: Path) -> None:
    """Its cells, one after the other, as one program."""
    cells = json.loads((ROOT / "examples" / "cora.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = "import os\nos.environ['DATASET'] = 'synthetic:papers=1000'"
    (tmp_path / "program.py").write_text("\n".join([first, *code, "print(record.status)"]))
    done = run_cli(["python", "program.py"], env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
