"""Whether the state in a checkpoint is one that this run can have been in: checked before its use.

A file may be whole and still hold other arrays than the model has, or say that it is in epoch NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gnn_core.config import RunConfig, UsageError
from gnn_core.training.learner import Learner, require_alike
from gnn_core.training.state import RunProgress, State, Weights

_EXACT_STEPS = 2**24  # float32, in which torch counts them, knows no more


def require_fit(path: Path, state: State, learner: Learner, config: RunConfig) -> None:
    """Raise UsageError unless a run of `config` with this learner can go on from `state`.

    Names, dtypes and shapes of all arrays are compared with the model's, and progress with the
    length of an epoch and of the run. `path` is named in the message.
    """
    progress = state.progress
    try:
        for problem in _problems(progress, learner.num_steps, config.global_batch_size):
            raise ValueError(problem)
        _require_arrays(state, learner, config)
    except ValueError as error:
        raise UsageError(
            f"{path}: expected a state that this run can go on from, got one with {error}: "
            "remove it, or give another --checkpoint-dir"
        ) from None
    begun = progress.epoch + (progress.step > 0)
    if begun > config.epochs:
        raise UsageError(
            f"--epochs {config.epochs}: expected at least the {begun} epochs that {path} has "
            f"begun, got fewer; give --epochs {begun} or more, or another --checkpoint-dir"
        )


def _problems(progress: RunProgress, num_steps: int, batch_size: int) -> Iterator[str]:
    """What cannot be true of where a run is."""
    epoch, step = progress.epoch, progress.step
    if epoch < 0 or not 0 <= step <= num_steps:
        yield f"epoch {epoch}, step {step}, where an epoch has {num_steps} steps"
    numbers = [*progress.tally, progress.best_score]
    if not all(map(math.isfinite, numbers)) or len(progress.tally) != 3:
        yield f"progress of {numbers}, which are not four numbers"
    loss, correct, count = progress.tally
    fits = (step - 1) * batch_size < count <= step * batch_size or step == count == 0
    if loss < 0 or not 0 <= correct <= count or not fits:
        yield f"a tally of {progress.tally} at step {step}, where a step has {batch_size} targets"
    if progress.num_sampled_edges < 0:
        yield f"{progress.num_sampled_edges} sampled edges"
    has_best = progress.best_epoch >= 0
    if not -1 <= progress.best_epoch < epoch + (step > 0) or has_best != (
        0 <= progress.best_score <= 1
    ):
        yield f"a best score of {progress.best_score:g} in epoch {progress.best_epoch} of {epoch}"
    if not 0 <= progress.evaluations_without_gain <= epoch + 1:
        yield f"{progress.evaluations_without_gain} evaluations without gain in {epoch} epochs"


def _require_arrays(state: State, learner: Learner, config: RunConfig) -> None:
    """Raise ValueError for an array that is not the run's, or is missing."""
    progress, weights = state.progress, learner.weights()
    require_alike(_named("model", weights), _named("model", state.weights))
    best = weights if progress.best_epoch >= 0 else {}
    require_alike(_named("best", best), _named("best", state.best))
    num_steps = progress.epoch * learner.num_steps + progress.step
    if config.optimizer != "adam" or not (num_steps or state.optimizer):
        expected: Weights = {}
    else:
        moments = ("exp_avg", "exp_avg_sq")
        trained = {name: w for name, w in weights.items() if name not in learner.untrained}
        expected = {f"{kind}.{name}": w for kind in moments for name, w in trained.items()}
        expected["step"] = np.array(0, np.int64)
    if config.compress != "none" and num_steps:  # what workers have not sent yet
        expected |= {f"residual.{name}": w for name, w in weights.items()}
    require_alike(_named("optimizer", expected), _named("optimizer", state.optimizer))
    saved_steps = int(state.optimizer["step"]) if "step" in expected else num_steps
    # Asynchronous servers make a step of the optimizer for each push.
    fits = saved_steps == num_steps or (config.staleness != "0" and saved_steps > num_steps)
    if not fits and num_steps < _EXACT_STEPS:
        raise ValueError(
            f"an optimizer that has made {saved_steps} steps, where it has made {num_steps}"
        )


def _named(part: str, arrays: Weights) -> Weights:
    return {f"{part}.{name}": array for name, array in arrays.items()}
