"""The models without message passing: what they look at, what they learn, what they leave."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.cora.papers import Papers
from baselines.cora.settings import MODELS, RECIPES, CoraSettings, filled
from gnn_core.data.graph import Graph, write_graph
from gnn_core.measure.records import read_records
from gnn_core.report.tables.speed import speed_table
from gnn_core.training.state import Diverged

pytestmark = [pytest.mark.tf, pytest.mark.needs_tensorflow]
TINY = {
    "pretrain_epochs": 20,
    "pretrain_batch": 60,
    "negatives": 64,
    "width": 8,
    "hidden_units": 16,
    "word_dropout": 0.2,
    "restart": 0.3,
    "temperature": 0.5,
    "head_dropout": 0.2,
    "head_lr": 0.02,
    "tuning_lr": 0.01,
    "decay": 0.0,
}


@pytest.fixture(scope="module")
def alone() -> Any:
    """One replica, whatever devices TensorFlow was given before."""
    tf = pytest.importorskip("tensorflow")
    from tf_mirrored.strategy import Replicas

    return Replicas("one", tf.distribute.get_strategy(), ["CPU:0"], None)


@pytest.fixture
def papers(tiny_graph: Graph) -> Papers:
    """The tiny graph; a word is a feature above the mean."""
    papers = Papers.of(tiny_graph)
    words = (np.asarray(tiny_graph.features) > 0.5).astype(np.float32)
    return dataclasses.replace(papers, words=words)


def tiny(model: str, **more: Any) -> CoraSettings:
    chosen = {name: value for name, value in TINY.items() if name in RECIPES[model]} | more
    return filled(CoraSettings(model=model, **({"epochs": 20} | chosen)))


def _weights(trained: Any) -> list[np.ndarray]:
    classifier = trained.classifier
    variables = [*classifier.encoder.variables, *classifier.head.trainable_variables]
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("model", MODELS)
def test_no_label_but_those_of_training_papers_is_used(
    model: str, papers: Papers, alone: Any
) -> None:
    from baselines.cora.run import learn

    labels = (papers.labels + 1) % papers.num_classes
    labels[papers.nodes["train"]] = papers.labels[papers.nodes["train"]]
    poisoned = dataclasses.replace(papers, labels=labels)
    honest, other = (learn(tiny(model), each, 1, alone) for each in (papers, poisoned))
    for ours, theirs in zip(_weights(honest), _weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert honest.course.scores["valid"].correct != other.course.scores["valid"].correct


@pytest.mark.parametrize("model", [pytest.param("graph", marks=pytest.mark.long), "graph+words"])
def test_pretraining_reads_no_label_at_all(model: str, papers: Papers, alone: Any) -> None:
    from baselines.cora.draws import Draw
    from baselines.cora.networks import Encoder
    from baselines.cora.stages import pretrain

    found = []
    unlabelled = dataclasses.replace(papers, labels=np.full_like(papers.labels, -1))
    for each in (papers, unlabelled):
        encoder = Encoder(tiny(model), each.num_papers, each.words.shape[1], seed=0)
        losses: list[float] = []
        pretrain(encoder, Draw(each, tiny(model), 0), alone, losses.append)
        assert losses[-1] < losses[0]
        found.append([variable.numpy() for variable in encoder.variables])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("model", MODELS)
def test_each_model_learns(model: str, papers: Papers, alone: Any) -> None:
    from baselines.cora.run import learn

    course = learn(tiny(model, epochs=40), papers, 0, alone).course
    assert course.tallies[-1].loss < course.tallies[0].loss
    assert course.scores["test"].accuracy > 0.35  # chance is 0.25
    assert course.valid[course.best_epoch] == max(course.valid)
    assert course.valid.index(max(course.valid)) == course.best_epoch


def test_words_are_not_read_by_the_graph_model(papers: Papers, alone: Any) -> None:
    from baselines.cora.run import learn

    wordless = dataclasses.replace(papers, words=np.zeros_like(papers.words))
    one, other = (learn(tiny("graph"), each, 0, alone) for each in (papers, wordless))
    for ours, theirs in zip(_weights(one), _weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_leaves_a_record_that_the_analysis_takes(
    tiny_graph: Graph, tmp_path: Path, alone: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from baselines.cora.run import run_all

    folder = write_graph(tiny_graph, tmp_path / "graph").folder
    settings = tiny(
        "graph+words", dataset=str(folder), seeds="0-1", epochs=3, records=str(tmp_path / "records")
    )
    assert run_all(settings, alone) == 0
    records, problems = read_records(tmp_path / "records")
    assert (len(records), problems) == (2, [])
    assert [record.config["seed"] for record in records] == [0, 1]
    first = records[0]
    assert (first.status, first.strategy, first.world_size) == ("ok", "one", 1)
    assert first.config["model"] == "graph+words"
    assert len(first.epochs) == len(first.step_losses or []) == 3
    assert first.final["test_count"] == len(tiny_graph.split("test"))
    assert "pre-training, 20 epochs" in first.notes[0]
    assert speed_table(records).cells[0][:3] == ("tiny", "one", "1")
    assert "2 seeds   test accuracy" in capsys.readouterr().out


def test_a_loss_that_is_no_number_ends_the_run(papers: Papers, alone: Any) -> None:
    from baselines.cora.run import learn

    settings = tiny("words", tuning_lr=1e30, head_lr=1e30, decay=1e30)
    with pytest.raises(Diverged, match="lower the learning rate"):
        learn(settings, papers, 0, alone)


def test_a_context_among_the_negatives_is_not_held_against_itself(alone: Any) -> None:
    import tensorflow as tf

    from baselines.cora.networks import contrastive_losses

    rows = tf.eye(3)

    def encoder(batch: Any, role: str) -> list[Any]:
        return [tf.gather(rows, batch[role])]

    batch = {"source": [0], "context": [0], "negative": [0, 1], "weights": tf.ones(1)}
    batch = {name: tf.convert_to_tensor(values) for name, values in batch.items()}
    (loss,) = contrastive_losses(encoder, batch, 0.5).numpy()  # type: ignore[arg-type]
    assert loss == pytest.approx(math.log(math.exp(2) + 1) - 2, abs=1e-6)
