"""The registry of models: a second one trains, evaluates, is saved and resumed by the same code."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.models import title
from gnn_core.training import memory_plan
from gnn_core.training.checkpoint import Checkpoints, state_of
from gnn_core.training.state import RunProgress
from horovod_gnn.model import GraphSAGE
from horovod_gnn.models import load_model, saved_widths
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import run, trained, trainer_of
from tests.parallel.test_stopping import stop_in_step
from tests.unit import made_mlp
from tests.unit.made_links import linked_graph
from tests.unit.test_learner import assert_equal, made_config, made_learner, train

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def mlp() -> Iterator[str]:
    with made_mlp.registered():
        yield "mlp"


def test_the_default_is_graphsage(tiny_graph: Graph) -> None:
    assert RunConfig().model == "sage"
    assert type(made_learner(tiny_graph).model) is GraphSAGE


def test_a_name_that_is_not_registered_is_refused() -> None:
    with pytest.raises(UsageError, match="--model: expected one of sage, gcn, gat, gin, got 'mlp'"):
        RunConfig(model="mlp")


def test_a_registered_name_is_a_choice(mlp: str) -> None:
    config = RunConfig(model=mlp)
    assert RunConfig.from_dict(config.to_dict()) == config
    with pytest.raises(UsageError, match="one of sage, .*, mlp, got 'mlb', did you mean mlp"):
        RunConfig(model="mlb")


def test_the_model_is_part_of_the_digest_unless_it_is_the_default(mlp: str) -> None:
    config = RunConfig(dataset="cora")
    assert "model" not in config.curve_settings()
    assert RunConfig(dataset="cora", model=mlp).curve_settings()["model"] == "mlp"
    assert RunConfig(dataset="cora", model=mlp).digest() != config.digest()


@pytest.mark.parametrize("evaluation", ["exact", "sampled"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_it_trains_and_is_evaluated(
    tiny_graph: Graph, mlp: str, precision: str, evaluation: str
) -> None:
    """Both evaluations are the plain forward pass here, since no neighbour is looked at."""
    learner = made_learner(tiny_graph, model=mlp, precision=precision, eval=evaluation)
    losses = [train(learner, epoch) for epoch in range(30)]
    assert np.mean(losses[-1]) < 0.9 * np.mean(losses[0])
    model = learner.model
    nodes = tiny_graph.split("valid")
    labels = torch.from_numpy(tiny_graph.labels[nodes]).long()
    h = torch.from_numpy(tiny_graph.features[nodes]).to(model.arithmetic.accumulator)
    with torch.no_grad():
        logits = model.dense[1](model.dense[0](h).relu())
    tally = learner.evaluate(("valid",))["valid"]
    assert (tally.count, tally.correct) == (len(nodes), int((logits.argmax(1) == labels).sum()))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert tally.loss == pytest.approx(float(expected), rel=1e-5)


def test_a_checkpoint_brings_it_back(tiny_graph: Graph, mlp: str, tmp_path: Path) -> None:
    whole = made_learner(tiny_graph, model=mlp)
    train(whole, 0)
    checkpoints = Checkpoints(str(tmp_path), made_config(model=mlp), "f" * 64, 1, "run")
    checkpoints.save_last(whole.weights(), whole.optimizer_state(), RunProgress(1), {})
    state = state_of(checkpoints.read_last())
    assert {*state.weights} == {f"dense.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    rest = made_learner(tiny_graph, model=mlp)
    rest.load_weights(state.weights)
    rest.load_optimizer_state(state.optimizer)
    assert train(rest, 1) == train(whole, 1)
    assert_equal(rest.weights(), whole.weights())


def test_a_stopped_run_goes_on(tiny_graph: Graph, mlp: str, tmp_path: Path) -> None:
    alone = SingleProcess()
    whole = trained(tiny_graph, alone, model=mlp)
    trainer = trainer_of(tiny_graph, alone, model=mlp, checkpoint_dir=str(tmp_path))
    stop_in_step(trainer, alone, 2)
    record = run(trainer)
    assert record.status == "interrupted" and "go on with --resume" in str(record.error)
    alone.stop_signal = None
    rest = trained(tiny_graph, alone, model=mlp, checkpoint_dir=str(tmp_path), resume=True)
    assert trainer.history.step_losses + rest.losses.tolist() == whole.losses.tolist()
    assert rest.record.final == whole.record.final


def test_a_checkpoint_of_another_model_is_refused(
    tiny_graph: Graph, mlp: str, tmp_path: Path
) -> None:
    learner = made_learner(tiny_graph, model=mlp)
    saved = Checkpoints(str(tmp_path), made_config(model=mlp), "f" * 64, 1, "run")
    saved.save_last(learner.weights(), learner.optimizer_state(), RunProgress(), {})
    with pytest.raises(UsageError, match="it is of another run"):
        Checkpoints(str(tmp_path), made_config(), "f" * 64, 1, "run").read_last()


def test_it_embeds_for_link_prediction(mlp: str, tmp_path: Path) -> None:
    settings = {"task": "link", "candidates": 20, "eval_edges": 15, "global_batch_size": 101}
    learner = made_learner(linked_graph(tmp_path), model=mlp, **settings)
    assert all(np.isfinite(train(learner, 0)))
    tally = learner.evaluate(("valid",), whole=True)["valid"]
    assert tally.count > 0 and tally.score > 0


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("model", ["sage", "mlp"])
def test_widths_are_read_off_the_weights(
    tiny_graph: Graph, mlp: str, model: str, layers: int
) -> None:
    learner = made_learner(tiny_graph, model=model, layers=layers, fanouts=(3,) * layers)
    config = made_config(model=model, layers=layers, fanouts=(3,) * layers)
    weights = learner.weights()
    assert saved_widths(config, weights) == (8, 4)
    loaded = load_model(config, weights, SingleProcess())
    assert_equal({n: t.numpy() for n, t in loaded.state_dict().items()}, weights)


def test_weights_of_another_kind_are_refused(tiny_graph: Graph, mlp: str) -> None:
    weights = made_learner(tiny_graph, model=mlp).weights()
    with pytest.raises(UsageError, match=r"--model sage\), got others \(layers.0.weight: expected"):
        saved_widths(made_config(), weights)
    deeper = made_learner(tiny_graph, layers=3, fanouts=(3, 3, 3)).weights()
    with pytest.raises(UsageError, match="got others"):
        load_model(made_config(), deeper, SingleProcess())


BUILT_IN = [
    {"model": "gcn"},
    {"model": "gat"},
    {"model": "gin"},
    {"norm": "batch", "residual": True, "jumping_knowledge": "max"},
]


@pytest.mark.parametrize("changes", BUILT_IN, ids=str)
def test_a_built_in_model_learns_and_its_weights_are_counted(
    tiny_graph: Graph, changes: dict[str, Any]
) -> None:
    learner = made_learner(tiny_graph, dropout=0.0, input_dropout=0.0, **changes)
    losses = [np.mean(train(learner, epoch)[:3]) for epoch in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert memory_plan.num_weights(made_config(**changes), tiny_graph) == learner.num_parameters
    plain = "layers without the fused kernels"
    assert any(plain in note for note in learner.notes()) == ("norm" in changes)


@pytest.mark.parametrize("changes", BUILT_IN, ids=str)
def test_a_stopped_run_of_a_built_in_model_goes_on(
    tiny_graph: Graph, changes: dict[str, Any], tmp_path: Path
) -> None:
    """With the moving averages of a batch norm."""
    alone = SingleProcess()
    whole = trained(tiny_graph, alone, **changes)
    trainer = trainer_of(tiny_graph, alone, checkpoint_dir=str(tmp_path), **changes)
    stop_in_step(trainer, alone, 2)
    assert run(trainer).status == "interrupted"
    alone.stop_signal = None
    rest = trained(tiny_graph, alone, checkpoint_dir=str(tmp_path), resume=True, **changes)
    assert trainer.history.step_losses + rest.losses.tolist() == whole.losses.tolist()
    assert rest.record.final == whole.record.final


@pytest.mark.parametrize("model", ["gcn", "gat", "gin"])
def test_a_built_in_model_embeds_for_link_prediction(model: str, tmp_path: Path) -> None:
    settings = {"task": "link", "candidates": 20, "eval_edges": 15, "global_batch_size": 101}
    graph = linked_graph(tmp_path)
    learner = made_learner(graph, model=model, norm="layer", **settings)
    assert all(np.isfinite(train(learner, 0)))
    tally = learner.evaluate(("valid",), whole=True)["valid"]
    assert tally.count > 0 and tally.score > 0
    config = made_config(model=model, norm="layer", **settings)
    assert memory_plan.num_weights(config, graph) == learner.num_parameters


def test_labels_are_smoothed_in_training_alone(tiny_graph: Graph) -> None:
    plain, smooth = made_learner(tiny_graph), made_learner(tiny_graph, label_smoothing=0.2)
    batch = plain.feed.arrived(plain.feed.prepare(plain.loader.batch(0, 0)))
    logits = plain.model(batch[0], batch[1].input_nodes, batch[1].blocks, batch[1].key)
    labels = torch.from_numpy(batch[1].labels).long()
    expected = torch.nn.functional.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=0.2
    )
    found = smooth.objective(smooth.model, *batch)[0]
    assert found.item() == pytest.approx(expected.item())
    assert plain.evaluate(("valid",)) == smooth.evaluate(("valid",))


def test_the_opening_line_and_the_memory_know_the_model(tiny_graph: Graph) -> None:
    def told(**changes: Any) -> str:
        return title(made_config(**changes).to_dict())

    assert told() == "GraphSAGE (mean)"
    assert told(model="gat", heads=2) == "GAT (2 heads)"
    assert told(model="gcn") == "GCN"
    assert told(model="gin", norm="layer") == "GIN (layer norm)"
    jumps = told(residual=True, jumping_knowledge="cat")
    assert jumps == "GraphSAGE (mean, residual, jumping knowledge cat)"

    def step(**changes: Any) -> int:
        return memory_plan.rank_bytes(made_config(**changes), tiny_graph, 1)["one training step"]

    assert step() < step(model="gcn") < step(model="gat")
    assert step(model="gcn") <= step(jumping_knowledge="cat", norm="layer")


def test_settings_at_their_defaults_are_not_in_the_digest() -> None:
    newer = {"heads", "residual", "norm", "jumping_knowledge", "label_smoothing", "model_sha256"}
    assert not newer & RunConfig().curve_settings().keys()
    changes: dict[str, Any] = {"residual": True, "norm": "layer", "label_smoothing": 0.1}
    assert changes.items() <= RunConfig(**changes).curve_settings().items()
    assert RunConfig(model="gat", heads=2).digest() != RunConfig(model="gat").digest()
