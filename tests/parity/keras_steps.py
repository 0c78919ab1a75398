"""Steps of the Keras learner, as arrays in files: for the tests to compare with PyTorch's.

TensorFlow's threads and devices are set once in a process, so each strategy is a process, forked
by `tests/e2e/keras_runs.py` as `keras_steps <strategy> <file of cases>`; it does all cases.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gnn_core.config import RunConfig
from gnn_core.data.batch import Batch
from gnn_core.data.feature_store import TableStore
from gnn_core.data.graph import Graph
from gnn_core.data.link_loader import LinkLoader
from gnn_core.data.loader import Assign, Loader, equal_slices
from gnn_core.training import tasks
from gnn_core.training.checkpoint import Checkpoints, state_of
from gnn_core.training.state import RunProgress
from tests.unit.second_implementations import RowStore, assigns_of
from tf_mirrored.strategy import Replicas, start

STEPS = 10


def main() -> int:
    """Do every case of the file; the process of rank 0 leaves an .npz and a checkpoint of each."""
    strategy, cases = sys.argv[1:]
    replicas = start(strategy, 2 if strategy == "mirrored" else None, device="cpu")
    for case in json.loads(Path(cases).read_text()):
        settings = {**case["settings"], "fanouts": tuple(case["settings"]["fanouts"])}
        config, graph = RunConfig(**settings), Graph.open(case["graph"])
        folder = Path(case["folder"]) / strategy
        tasks.TableStore = RowStore if case["gathers"] else TableStore
        assign = assigns_of(graph)[case["assign"]] if case["assign"] else equal_slices
        found = steps_of(config, graph, replicas, folder, case["begun"], assign)
        if replicas.rank == 0:
            np.savez(folder / "steps.npz", allow_pickle=False, **found)
    replicas.leave()
    return 0


def steps_of(
    config: RunConfig,
    graph: Graph,
    replicas: Replicas,
    folder: Path,
    begun: str | None,
    assign: Assign,
) -> dict[str, Any]:
    """Train for whole epochs, at least `STEPS` steps."""
    from tf_mirrored.learner import KerasLearner

    seen = seen_sums(replicas)
    learner = KerasLearner.of(config, graph, replicas)
    learner.loaders = [
        tasks.train_loader(config, graph, replica, replicas.num_replicas, 0, assign)
        for replica in replicas.local_replicas
    ]
    progress = RunProgress()
    if begun:  # by another framework
        state = state_of(Path(begun).read_bytes())
        learner.load_weights(state.weights)
        learner.load_optimizer_state(state.optimizer)
        progress = state.progress
    found = {f"initial.{name}": array for name, array in learner.weights().items()}
    found["num_parameters"] = learner.num_parameters
    found["logits"] = learner.layers.logits_of(a_batch(config, graph))
    learner.warm_up()
    for name, array in learner.weights().items():
        assert array.tobytes() == found[f"initial.{name}"].tobytes(), f"warm-up changed {name}"
    seen.clear()
    losses: list[float] = []
    while len(losses) < STEPS:
        learner.train_epoch(progress, losses.append)
        progress = RunProgress(progress.epoch + 1)
    found["losses"] = np.array(losses)
    # The sums of a step are seen once on each replica of this process; the last 4 are statistics.
    sums = np.array(seen).reshape(len(losses), len(replicas.local_replicas), -1)
    assert (sums == sums[:, :1]).all(), "replicas disagree about a sum"
    found["gradients"] = sums[:, 0, :-4]
    found |= {f"final.{name}": array for name, array in learner.weights().items()}
    found |= {f"optimizer.{name}": array for name, array in learner.optimizer_state().items()}
    for split, tally in learner.evaluate(("valid", "test")).items():
        found[f"tally.{split}"] = np.array(tally.to_vector())
    found["traces"] = learner.step.traced.experimental_get_tracing_count()
    if replicas.rank == 0:
        checkpoints = Checkpoints(str(folder), config, graph.fingerprint, 1, "keras")
        checkpoints.save_last(learner.weights(), learner.optimizer_state(), progress, {})
    return found


def a_batch(config: RunConfig, graph: Graph) -> Batch:
    """A few targets, or pairs, for both frameworks to look at."""
    if config.task == "link":
        return LinkLoader(graph, config.fanouts, 8, seed=1).batch(0, 0)
    return Loader(graph, "valid", config.fanouts, 8, seed=1, shuffle=False).batch(0, 0)


def seen_sums(replicas: Replicas) -> list[np.ndarray]:
    """A list to which every sum over the replicas will be added, in the order of steps."""
    import tensorflow as tf

    seen: list[np.ndarray] = []
    add_up = type(replicas).add_up

    def added_up(vector: tf.Tensor) -> tf.Tensor:
        total = add_up(replicas, vector)
        if total.dtype.is_floating:  # not of a message between processes
            look = tf.numpy_function(lambda values: seen.append(values.copy()), [total], [])
            with tf.control_dependencies([look]):
                total = tf.identity(total)
        return total

    replicas.add_up = added_up
    return seen
