"""The step benchmark: figures from made-up seconds, and one short run of the whole program."""

# ruff: noqa: E402
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data import datasets
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import write_graph
from gnn_core.report.tables.benches import bench_table, read_benches
from horovod_gnn import bench
from horovod_gnn.exchange import to_pyg
from horovod_gnn.products import Products, products_of
from horovod_gnn.reference import FastDropout, ReferenceSAGE
from horovod_gnn.step_figures import figures, report
from tests.unit.made_models import CLASSES, WIDTH, made_model, odd_graph, off_by, sampled, table_of

pytestmark = pytest.mark.needs_torch


def twice(rounds: list[list[float]]) -> tuple[list[list[float]], list[list[float]]]:
    return rounds, rounds


def test_ratios_are_made_within_a_round() -> None:
    made = figures(
        {
            "products fp32": twice([[0.1, 0.1], [0.2, 0.2]]),
            "fused fp32": twice([[0.2, 0.2], [0.4, 0.4]]),  # the machine slowed down for all alike
            "fused bf16": twice([[0.1, 0.1], [0.1, 0.1]]),
            "reference": twice([[0.5, 0.5], [1.2, 1.2]]),
        }
    )
    fused = made["fused fp32"]["elapsed"]
    assert fused["times_as_fast_as_reference"] == pytest.approx(
        {"median": 2.75, "min": 2.5, "max": 3.0}
    )
    assert fused["share_of_floor"] == pytest.approx({"median": 0.5, "min": 0.5, "max": 0.5})
    assert made["fused bf16"]["elapsed"]["share_of_floor"] is None  # its floor was not measured
    assert made["reference"]["processor"]["times_as_fast_as_reference"]["max"] == 1


def test_spread() -> None:
    one = figures({"fused fp32": twice([[0.001, 0.002, 0.003], [0.002, 0.010]])})["fused fp32"]
    assert one["elapsed"]["median_ms"] == pytest.approx(2)
    assert one["elapsed"]["mean_ms"] == pytest.approx(3.6)
    assert one["elapsed"]["slow_share"] == pytest.approx(0.4)
    assert one["elapsed"]["round_medians_ms"] == pytest.approx([2, 6])
    assert one["elapsed"]["times_as_fast_as_reference"] is None


def test_products_are_those_of_the_step() -> None:
    class Sizes:
        blocks = sampled(odd_graph(), (3, 2))[0]

    rows = [block.num_dst for block in Sizes.blocks]
    found = products_of(Sizes, (WIDTH, 9, CLASSES))
    assert [(p.rows, p.inner, p.columns) for p in found] == [
        (rows[0], 2 * WIDTH, 9),
        (9, rows[0], 2 * WIDTH),
        (rows[1], 18, CLASSES),
        (CLASSES, rows[1], 18),
        (rows[1], CLASSES, 18),
    ]
    products = Products([Sizes], (WIDTH, 9, CLASSES), torch.float32)
    products.step(Sizes)
    rates = products.best_rates()
    assert len(rates) == len(found)
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.parametrize("fast_mask", [True, False])
def test_the_reference_computes_what_the_model_computes(fast_mask: bool) -> None:
    graph = odd_graph()
    blocks, nodes = sampled(graph, (3, 2, 2))
    model = made_model("fp32", 3)
    reference = ReferenceSAGE([WIDTH, 9, 9, CLASSES], 0.5, fast_mask).eval()
    reference.load_state_dict(to_pyg(model, "layers."))
    expected = model.eval()(table_of(graph), nodes, blocks)
    assert off_by(reference(table_of(graph), nodes, blocks), expected) < 1e-6
    assert off_by(reference.train()(table_of(graph), nodes, blocks), expected) > 1e-2


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("width", [64, 37])
def test_the_fast_mask_is_dropout(width: int, p: float) -> None:
    torch.manual_seed(0)
    dropped = FastDropout(p)(torch.ones(4000, width))
    spread = 5 * (p / (1 - p) / dropped.numel()) ** 0.5
    assert dropped.mean().item() == pytest.approx(1, abs=spread + 1e-4)
    assert dropped.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)


@pytest.fixture
def short_run(tmp_path: Path) -> Iterator[list[str]]:
    """A command line that is done in a moment; the program's number of threads does not stay."""
    threads = torch.get_num_threads()
    yield [
        "--dataset",
        "synthetic:papers=600,num_features=16",
        "--cache-dir",
        str(tmp_path),
        "--fanouts",
        "3,2",
        "--hidden",
        "8",
        "--global-batch-size",
        "32",
        "--rounds",
        "2",
        "--steps",
        "2",
        "--allocator",
        "default",
        "--json",
        str(tmp_path / "steps.json"),
    ]
    torch.set_num_threads(threads)


def test_the_program(
    short_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(short_run) == 0
    record: dict[str, Any] = json.loads((tmp_path / "steps.json").read_text())
    out = capsys.readouterr().out
    for name in ("products fp32", *bench._VARIANTS):
        assert name in out
        assert len(record["implementations"][name]["elapsed"]["round_medians_ms"]) == 2
    assert report(record) in out
    assert record["settings"]["fanouts"] == [3, 2]
    assert record["freed_memory_kept"] is False
    assert str(tmp_path) not in json.dumps(record)
    assert not list(tmp_path.glob(".steps*"))


def test_its_record_can_stand_in_a_document(short_run: list[str], tmp_path: Path) -> None:
    assert bench.main([*short_run, "--only", "fused fp32", "reference"]) == 0
    (made,), problems = read_benches(tmp_path / "steps.json")
    assert (made.benchmark, problems) == ("training step", [])
    table = bench_table(made)
    fused = dict(zip(table.headings, table.cells[-2], strict=True))
    assert fused["implementation"] == "fused fp32"
    assert float(fused["ms"]) > 0 and float(fused["processor ms"]) > 0
    assert fused["x reference"].endswith(")") and fused["floor"].endswith("%)")
    assert "fused fp32: the model as it trains" in table.notes
    assert not any("plain fp32" in note for note in table.notes)  # it was not measured
    assert any("batch 32" in note for note in table.notes)


def test_sparse_features_have_no_row_of_another_dtype(
    short_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = datasets.load("synthetic:papers=600,num_features=16", None, str(tmp_path))
    words = np.zeros((600, 500), np.float32)
    words[np.arange(600), np.arange(600) % 500] = 1
    folder = tmp_path / "words"
    assert isinstance(
        write_graph(replace(graph, name="words", features=words), folder).features, SparseFeatures
    )
    only = ["--only", "fused fp32", "fused fp32, fp16 table", "reference"]
    assert bench.main([*short_run, "--dataset", str(folder), *only]) == 0
    record = json.loads((tmp_path / "steps.json").read_text())
    measured = [name for name in record["implementations"] if name != "products bf16"]  # by machine
    assert measured == ["products fp32", "fused fp32", "reference"]
    assert not any("fp16" in note for note in record["notes"])
    assert "sparse features: left out" in capsys.readouterr().out


def test_implementations_that_disagree_are_not_compared(
    short_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench,
        "to_pyg",
        lambda model, prefix: {name: 2 * tensor for name, tensor in to_pyg(model, prefix).items()},
    )
    with pytest.raises(RuntimeError, match="other logits"):
        bench.main(short_run)


@pytest.mark.parametrize(
    ("words", "reported"), [(["--steps", "9999"], "--steps"), (["--dataset", "nowhere"], "nowhere")]
)
def test_a_mistake_is_reported_in_one_line(
    short_run: list[str], words: list[str], reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*short_run, *words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert reported in errors[0]


def test_it_runs_as_a_module(run_cli: Callable[..., Any]) -> None:
    done = run_cli(["python", "-m", "horovod_gnn.bench", "--help"])
    assert done.returncode == 0, done.stderr
    assert "--allocator" in done.stdout
