"""Link prediction: curve, weights and ranks do not depend on the number of ranks."""

# ruff: noqa: E402
from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


from gnn_core.data.graph import Graph
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import Trained, distance, run, trained, trained_once, trainer_of
from tests.parallel.test_stopping import stop_in_step
from tests.unit.made_links import linked_graph
from tests.unit.second_implementations import assigns_of

pytestmark = pytest.mark.needs_torch
ROUNDING = 1e-10
# The last batch of an epoch has fewer edges than there may be ranks.
SETTINGS: dict[str, Any] = {
    "task": "link",
    "epochs": 2,
    "eval_every": 1,
    "global_batch_size": 101,
    "hide_targets": True,
    "negatives": 2,
    "candidates": 20,
    "eval_edges": 15,
    "lr": 0.01,
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The same on every rank, prepared by each for itself."""
    return linked_graph(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def nobody_is_asked_to_stop_afterwards(parallel: SingleProcess) -> Iterator[None]:
    yield
    parallel.stop_signal = None


def assert_same_links(ours: Trained, theirs: Trained) -> None:
    """Both trained alike: each step's loss, the weights, all that is evaluated."""
    assert len(ours.losses) == len(theirs.losses) > 0
    assert distance(ours.losses, theirs.losses) < ROUNDING
    for name, tensor in theirs.weights.items():
        assert distance(ours.weights[name], tensor) < ROUNDING, name
    for mine, other in zip(ours.record.epochs, theirs.record.epochs, strict=True):
        assert mine.valid_mrr == pytest.approx(other.valid_mrr, rel=ROUNDING)
        assert mine.train_accuracy == other.train_accuracy
        assert mine.num_targets == other.num_targets
    assert ours.record.final.keys() == theirs.record.final.keys()
    for name, value in theirs.record.final.items():
        assert ours.record.final[name] == pytest.approx(value, rel=ROUNDING), name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="hidden targets, two negatives, dropout"),
        pytest.param(
            {"shared_negatives": True, "hide_targets": False, "edges_per_epoch": 150},
            id="shared negatives, short epochs",
        ),
        pytest.param({"fanouts": (-1, -1), "predictor_layers": 1}, id="all neighbours"),
        pytest.param({"predictor": "ncn"}, id="embeddings of common neighbours"),
        pytest.param({"predictor": "mlp", "negatives_kind": "uniform"}, id="embeddings alone"),
    ],
)
def test_all_ranks_together_train_like_one_process(
    graph: Graph,
    parallel: SingleProcess,
    same_everywhere: Callable[[object], None],
    changes: dict[str, Any],
) -> None:
    settings = {**SETTINGS, **changes}
    alone = trained_once(graph, SingleProcess(), **settings)
    together = trained_once(graph, parallel, **settings)
    assert_same_links(together, alone)
    assert together.record.final["test_count"] == len(graph.test_edges)
    assert together.record.final["test_mrr"] is not None
    same_everywhere([tensor.tolist() for tensor in together.weights.values()])
    same_everywhere(together.record.final)


@pytest.mark.parametrize(
    ("assign", "dropout"),
    [("uneven", 0.0), ("uneven", 0.3), ("by owner", 0.3), ("by cluster", 0.3)],
)
def test_who_computes_which_edge_does_not_matter(
    graph: Graph, parallel: SingleProcess, dropout: float, assign: str
) -> None:
    settings = {**SETTINGS, "dropout": dropout}
    default = trained_once(graph, parallel, **settings)
    other = trained(graph, parallel, assigns_of(graph)[assign], **settings)
    assert distance(other.losses, default.losses) < 1e-12
    assert_same_links(other, default)


def test_features_on_disk_train_like_those_in_memory(graph: Graph, parallel: SingleProcess) -> None:
    plain = trained_once(graph, SingleProcess(), **SETTINGS)
    on_disk = trained(graph, parallel, feature_store="disk", disk_cache="2KiB", **SETTINGS)
    assert distance(on_disk.losses, plain.losses) < 1e-12
    assert_same_links(on_disk, plain)
    assert all(one.reads > 0 for one in on_disk.record.feature_reads)


def test_every_rank_makes_the_same_graph(
    graph: Graph, parallel: SingleProcess, tmp_path: Path
) -> None:
    """Also where its features are made of its edges."""
    bare = linked_graph(tmp_path, width=0)
    assert len({*parallel.gather(graph.fingerprint)}) == 1
    assert len({*parallel.gather(bare.fingerprint)}) == 1


@pytest.mark.parametrize("stop_at", [0, 4], ids="step {}".format)
def test_a_stopped_run_goes_on_to_the_same_curve(
    graph: Graph, parallel: SingleProcess, shared_path: Path, stop_at: int
) -> None:
    whole = trained_once(graph, parallel, **SETTINGS)
    folder = str(shared_path / "saved")
    trainer = trainer_of(graph, parallel, checkpoint_dir=folder, **SETTINGS)
    stop_in_step(trainer, parallel, stop_at)
    record = run(trainer)
    assert record.status == "interrupted" and "go on with --resume" in str(record.error)
    parallel.stop_signal = None
    rest = trained(graph, parallel, checkpoint_dir=folder, resume=True, **SETTINGS)
    losses = torch.tensor(trainer.history.step_losses, dtype=torch.float64)
    assert distance(torch.cat([losses, rest.losses]), whole.losses) < ROUNDING
    for name, value in whole.record.final.items():
        assert rest.record.final[name] == pytest.approx(value, rel=ROUNDING), name


def test_a_stop_during_the_evaluation_ends_all(
    graph: Graph, parallel: SingleProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(graph, parallel, **SETTINGS)
    evaluate = trainer.learner.evaluate

    def interrupted(*args: Any) -> Any:
        if parallel.rank == parallel.world_size - 1:
            parallel.stop_signal = signal.SIGTERM
        return evaluate(*args)

    monkeypatch.setattr(trainer.learner, "evaluate", interrupted)
    assert run(trainer).status == "interrupted"
