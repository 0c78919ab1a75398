"""The record of a training script of one's own, as the trainers write it.

`examples/digits_torch.py` and `examples/digits_keras.py` use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnn_core.measure.metrics import Tally
from gnn_core.measure.records import begin_run, keep_record
from gnn_core.measure.run_record import DatasetInfo, EpochRecord
from gnn_core.measure.timing import Stopwatch, lap_to_vector, slowest_lap
from gnn_core.training.world import World


class RunLog:
    """Times epochs over all ranks and writes the run's record.

    Args:
        strategy: one of `gnn_core.strategies.STRATEGIES`.
        world: the other ranks.
        dataset: what is trained on; the sizes of its splits are checked against the epochs.
        settings: text and numbers; runs with equal ones are repetitions of each other. Those that
            the trainers have too (`global_batch_size`, `lr`, `seed`, ...) keep their names.

    Attributes:
        watch: a stopwatch for `with log.watch.section("compute")`; what is in no section is
            `other`.
    """

    def __init__(
        self, strategy: str, world: World, dataset: DatasetInfo, settings: Mapping[str, Any]
    ):
        config = {"dataset": dataset.name, **settings}
        self._world = world
        self._record = begin_run(
            strategy=strategy,
            config=config,
            config_digest=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            dataset=dataset,
            rank_hosts=world.replica_hosts,
            controller=world.controller,
        )
        self._epochs: list[EpochRecord] = []
        self._losses: list[float | None] = []
        self._tally = Tally()
        self.watch = Stopwatch()

    def step(self, loss_sum: float, num_correct: float, count: int) -> None:
        """Count a step: its loss and its correct targets, summed over the `count` of all ranks."""
        self._tally += Tally(loss_sum, round(num_correct), count)
        self._losses.append(loss_sum / count)

    def epoch(self, lr: float) -> None:
        """End an epoch. Every rank calls it."""
        warm_up, own = self.watch.warm_up, self.watch.lap()
        lap = slowest_lap(self._world.gather(lap_to_vector(own).tolist()))
        number = len(self._epochs)
        self._epochs.append(
            EpochRecord.of(number, self._tally, lap, lr=lr, warm_up=warm_up, num_sampled_edges=0)
        )
        self._tally = Tally()
        self.watch.restart()

    def finish(self, final: Mapping[str, float], folder: str | Path) -> Path | None:
        """Write the record on rank 0; its file, None on other ranks. Raises UsageError.

        Args:
            final: results such as `test_accuracy`, a fraction; names begin with a split.
            folder: where records are kept.
        """
        if self._world.rank != 0:
            return None
        done = self._record.finished(
            "ok", epochs=self._epochs, step_losses=self._losses, final=dict(final)
        )
        return keep_record(done, folder)
