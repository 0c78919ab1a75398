"""What a framework has to bring: a learner that trains and evaluates on this process.

`horovod_gnn.learner` and `tf_mirrored.learner` are the two there are; `Trainer` calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from gnn_core.data.feature_store import FeatureStore
from gnn_core.measure.metrics import AnyTally, Tally
from gnn_core.measure.run_record import ParameterServerRecord
from gnn_core.measure.timing import Stopwatch
from gnn_core.training.evaluate import Evaluator
from gnn_core.training.state import RunProgress, Weights, Work


def require_alike(expected: Mapping[str, npt.NDArray[Any]], found: Mapping[str, Any]) -> None:
    """Raise ValueError unless both have arrays of the same names, dtypes and shapes.

    Kernels write through the pointers of what is loaded, as far as the weights reach.
    """
    for name in sorted({*expected, *found}):
        sides = [_described(arrays.get(name)) for arrays in (expected, found)]
        if sides[0] != sides[1]:
            raise ValueError(f"{name}: expected {sides[0]}, got {sides[1]}")


def _described(array: Any) -> str:
    return "no such array" if array is None else f"{array.dtype} {list(array.shape)}"


class Learner(Protocol):
    """Model, optimizer and batches of this process: all that knows the framework."""

    evaluator: Evaluator  # of the model
    store: FeatureStore  # of the input features
    watch: Stopwatch
    interrupted: bool  # training ended early: some rank knew a reason to, and all know it
    work: list[Work]  # of each replica of this process; the trainer begins it anew
    num_steps: int  # of one epoch
    num_parameters: int
    allreduce_bytes_per_step: int
    device: str  # where the model is, as it is printed
    untrained: frozenset[str]  # names of weights without a gradient, such as moving averages
    bf16_products: dict[str, Any] | None  # of --precision bf16 on a CPU: see RunRecord

    @property
    def parameter_server(self) -> ParameterServerRecord | None:
        """What servers and workers did, where there are any."""

    def notes(self) -> list[str]:
        """What a reader of this run's numbers has to know of the way they were made."""

    def warm_up(self) -> None:
        """Take a step that changes nothing, so that no epoch is timed while code compiles."""

    def train_epoch(self, progress: RunProgress, after_step: Callable[[float], None]) -> Tally:
        """Train from `progress`, which moves along, to the end of its epoch or a stop.

        Returns the tally of the whole epoch over all ranks; `after_step` gets each step's mean
        loss. Raises Diverged, on all ranks alike, when that is not a number.
        """

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> Mapping[str, AnyTally]:
        """What `evaluator` finds: see there."""

    def weights(self) -> Weights:
        """A copy of the weights."""

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over weights of the same names and shapes."""

    def optimizer_state(self) -> Weights:
        """A copy of what the optimizer remembers.

        SGD: nothing. Adam: `step` int64 `[]`, and for each weight `exp_avg.<name>` and
        `exp_avg_sq.<name>`, the running means of its gradient and of the square of that.
        """

    def load_optimizer_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `optimizer_state` gave, in whichever framework.

        Raises ValueError for arrays of other names, dtypes or shapes.
        """
