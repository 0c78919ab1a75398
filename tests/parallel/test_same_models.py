"""Every model, and every option of its layers, trains on any number of ranks as in one process."""

# ruff: noqa: E402
from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.graph import Graph
from horovod_gnn.norm import LEAST_TARGETS, BatchNorm
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import assert_same, run, trained, trained_once, trainer_of
from tests.parallel.test_same_curve import ROUNDING
from tests.unit.second_implementations import uneven
from tests.unit.test_own_model import GOOD

pytestmark = pytest.mark.needs_torch
THREE_LAYERS = {"layers": 3, "fanouts": (2, 3, -1)}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gcn"},
        {"model": "gat"},
        {"model": "gin"},
        {"model": "gat", "precision": "fp32"},
        {"model": "gat", "heads": 2, "eval": "sampled"},
        {"residual": True},
        {"norm": "layer", "aggregator": "max"},
        {"norm": "batch"},
        {"norm": "batch", "model": "gcn", **THREE_LAYERS},
        {"jumping_knowledge": "cat", "model": "gin", **THREE_LAYERS},
        {"jumping_knowledge": "max", "norm": "batch", "residual": True, "model": "gat"},
        {"label_smoothing": 0.1},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_all_ranks_together_train_like_one_process(
    tiny_graph: Graph,
    parallel: SingleProcess,
    same_everywhere: Callable[[object], None],
    changes: dict[str, Any],
) -> None:
    """With dropout; weights, averages of a batch norm and the exact evaluation are the same too."""
    alone = trained_once(tiny_graph, SingleProcess(), **changes)
    together = trained(tiny_graph, parallel, **changes)
    assert_same(together, alone, ROUNDING[changes.get("precision", "fp64")])
    same_everywhere([tensor.tolist() for tensor in together.weights.values()])


@pytest.mark.parametrize("changes", [{"model": "gat"}, {"norm": "batch"}], ids=str)
def test_who_computes_which_target_does_not_matter(
    tiny_graph: Graph, parallel: SingleProcess, changes: dict[str, Any]
) -> None:
    """Some ranks get most of a batch's targets, and others none."""
    alone = trained_once(tiny_graph, SingleProcess(), **changes)
    assert_same(trained(tiny_graph, parallel, uneven, **changes), alone, 1e-10)


def test_a_model_in_a_file_trains_alike(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path
) -> None:
    file = shared_path / "mine.py"
    if parallel.rank == 0:
        file.write_text(textwrap.dedent(GOOD))
    parallel.barrier()
    alone = trained(tiny_graph, SingleProcess(), model=f"{file}:Mine")
    together = trained(tiny_graph, parallel, model=f"{file}:Mine")
    assert_same(together, alone, ROUNDING["fp64"])


def test_a_batch_norm_sees_each_target_once(tiny_graph: Graph, parallel: SingleProcess) -> None:
    """Its averages move by the statistics of the targets of all ranks, and of nobody else."""
    settings = {"norm": "batch", "dropout": 0.0, "input_dropout": 0.0, "epochs": 1}
    settings |= {"global_batch_size": 64, "lr": 1e-12}
    alone = trainer_of(tiny_graph, SingleProcess(), **settings).learner
    batch, inputs = alone.loader.batch(0, 0), torch.from_numpy(tiny_graph.features)
    assert batch.num_real == 64 >= LEAST_TARGETS
    seen = []
    batch_norm(alone).register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    alone.model.eval()(inputs, batch.input_nodes, batch.blocks)
    rows = seen[0][: batch.num_real]
    trainer = trainer_of(tiny_graph, parallel, **settings)
    assert run(trainer).status == "ok"
    norm = batch_norm(trainer.learner)
    torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))


def batch_norm(learner: Any) -> BatchNorm:
    (found,) = (one for one in learner.model.modules() if isinstance(one, BatchNorm))
    return found
