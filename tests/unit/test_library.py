"""`import ringsage`: the same graph, batches, training and records as the programs have."""

# ruff: noqa: E402
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ringsage
from gnn_core.data.graph import Graph, write_graph
from gnn_core.inference.job import names_of_classes
from gnn_core.training.checkpoint import model_of, read_model
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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fanouts": (0,)}, "--fanouts"),
        ({"fanouts": (2.5,)}, "--fanouts"),
        ({"fanouts": 5}, "--fanouts"),
        ({"global_batch_size": 0}, "--global-batch-size: expected a whole number"),
        ({"seed": -1}, "--seed: expected a whole number"),
        ({"prefetch": -1}, "--prefetch: expected a whole number"),
    ],
)
def test_a_loader_refuses_what_the_programs_refuse(
    tiny_graph: Graph, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ringsage.UsageError, match=words):
        ringsage.make_loader(tiny_graph, **settings)


def test_an_unknown_setting_is_told_with_a_hint() -> None:
    with pytest.raises(ringsage.UsageError, match="unknown setting 'datset', did you mean dataset"):
        ringsage.train(datset="cora")


def test_paths_and_numbers_of_numpy_are_settings(folder: str, tmp_path: Path) -> None:
    settings = {"hidden": 8, "fanouts": np.array([3, 2]).tolist(), "epochs": np.int64(1)}
    place = {"records": tmp_path / "records", "checkpoint_dir": tmp_path / "saved"}
    record = ringsage.train(dataset=Path(folder), device="cpu", quiet=True, **settings, **place)
    assert record.status == "ok"
    graph = ringsage.open_graph(Path(folder))
    logits = ringsage.predict(tmp_path / "saved", graph)
    some = [7, 2, 7]
    assert ringsage.predict(tmp_path / "saved", graph, nodes=some) == pytest.approx(logits[some])
    none = np.empty(0, np.int64)
    assert len(ringsage.predict(tmp_path / "saved", graph, nodes=none)) == 0
    for nodes in ([-1], [graph.num_nodes], [1.5], [[1, 2]], ["a"], graph.labels == 0):
        with pytest.raises(ringsage.UsageError, match="nodes: expected a list of whole numbers"):
            ringsage.predict(tmp_path / "saved", graph, nodes=nodes)


def test_classes_keep_the_names_of_the_training(tiny_graph: Graph, tmp_path: Path) -> None:
    def named(names: list[str] | None) -> Graph:
        provenance = {} if names is None else {"class_names": names}
        graph = replace(tiny_graph, meta={**tiny_graph.meta, "provenance": provenance})
        return write_graph(graph, tmp_path / "named")

    names = [f"class {at}" for at in range(tiny_graph.num_classes)]
    where = {"dataset": named(names).folder, "checkpoint_dir": tmp_path / "saved"}
    ringsage.train(**where, epochs=1, device="cpu", quiet=True, records=tmp_path / "records")
    saved = model_of(read_model(tmp_path / "saved", "best.safetensors"))
    assert names_of_classes(saved, named(names)) == names
    assert names_of_classes(saved, named(None)) == names
    assert names_of_classes(replace(saved, class_names=None), named(names)) == names
    graph = named(names[::-1])
    with pytest.raises(ringsage.UsageError, match="class 0 is 'class .', and was 'class 0'"):
        ringsage.predict(tmp_path / "saved", graph)


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
