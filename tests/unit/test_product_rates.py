"""bf16 is multiplied in the way that was measured to be faster, and the run says so."""

# ruff: noqa: E402
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.graph import Graph
from horovod_gnn.product_rates import ProductRates, product_rates, rates_file, slowest
from tests.unit.test_learner import made_learner, train

pytestmark = pytest.mark.needs_torch
AMX, SLOW_BF16 = ProductRates(87e9, 210e9), ProductRates(87e9, 52e9)


def keep(rates: ProductRates, cache: Path) -> None:
    """As if these rates had been measured."""
    file = rates_file(cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(rates)))


@pytest.mark.parametrize(
    ("rates", "native"),
    [(AMX, True), (SLOW_BF16, False), (ProductRates(87e9, 2e9), False)],
    ids=["AMX", "AVX-512 BF16", "neither"],
)
def test_the_faster_way_is_taken(
    tiny_graph: Graph, tmp_path: Path, rates: ProductRates, native: bool
) -> None:
    keep(rates, tmp_path)
    learner = made_learner(tiny_graph, precision="bf16", cache_dir=str(tmp_path))
    assert learner.model.arithmetic.storage == (torch.bfloat16 if native else torch.float32)
    assert learner.bf16_products == {
        "multiplied_as": "bf16" if native else "fp32",
        "fp32_gflops": rates.fp32 / 1e9,
        "bf16_gflops": rates.bf16 / 1e9,
    }
    (note,) = learner.notes()
    assert f"multiplied as {'bf16' if native else 'fp32'}: measured" in note
    assert ("no faster than --precision fp32" in note) == (not native)
    assert all(0 < loss < 10 for loss in train(learner, 0))


def test_a_draw_goes_to_the_way_that_rounds_less() -> None:
    assert not ProductRates(100e9, 105e9).native_bf16


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_other_precisions_measure_nothing(
    tiny_graph: Graph, tmp_path: Path, precision: str
) -> None:
    learner = made_learner(tiny_graph, precision=precision, cache_dir=str(tmp_path))
    assert learner.bf16_products is None and learner.notes() == []
    assert not list(tmp_path.iterdir())


def test_ranks_that_wait_for_each_other_go_by_the_slowest() -> None:
    """With AMX on one host only, two thirds of its speed on the other are what counts."""
    assert slowest([AMX, ProductRates(60e9, 50e9)]) == ProductRates(60e9, 50e9)
    assert slowest([AMX, ProductRates(60e9, 90e9)]).native_bf16


def test_rates_are_measured_once(tmp_path: Path) -> None:
    first = product_rates(tmp_path)
    assert first.fp32 > 0 and first.bf16 > 0
    assert product_rates(tmp_path) == first
    assert [file.name for file in tmp_path.glob("*/*")] == [rates_file(tmp_path).name]


def test_another_number_of_threads_is_measured_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rates_file(tmp_path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    other = rates_file(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert len({one, other, rates_file(tmp_path)}) == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1.0, 2.0]",
        '{"fp32": 1e9}',
        '{"fp32": 1e9, "bf16": "fast"}',
        '{"fp32": 1e9, "bf16": -1.0}',
        '{"fp32": NaN, "bf16": 1e9}',
        "\xff",
    ],
)
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    file = rates_file(tmp_path)
    file.parent.mkdir()
    file.write_bytes(content.encode("latin-1"))
    rates = product_rates(tmp_path)
    assert ProductRates(**json.loads(file.read_text())) == rates


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert product_rates(tmp_path / "cache").fp32 > 0
