"""All ranks multiply bfloat16 alike, whatever each of them measured."""

# ruff: noqa: E402
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.graph import Graph
from horovod_gnn.parallel import SingleProcess
from horovod_gnn.product_rates import ProductRates, rates_file
from tests.parallel.made_runs import trainer_of

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize("slow_rank", [0, -1])
def test_one_slow_rank_decides_for_all(
    tiny_graph: Graph, parallel: SingleProcess, tmp_path: Path, slow_rank: int
) -> None:
    is_slow = parallel.rank == slow_rank % parallel.world_size
    rates = ProductRates(90e9, 50e9 if is_slow else 200e9)
    cache = tmp_path / str(parallel.rank)
    file = rates_file(cache)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(rates)))
    trainer = trainer_of(tiny_graph, parallel, precision="bf16", cache_dir=str(cache))
    facts = trainer.learner.bf16_products
    assert facts == {"multiplied_as": "fp32", "fp32_gflops": 90.0, "bf16_gflops": 50.0}
    assert trainer.learner.model.arithmetic.storage == torch.float32
