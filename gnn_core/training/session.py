"""The state of one run and its epochs: train, evaluate, keep the best, save, stop when told."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gnn_core.config import RunConfig, UsageError
from gnn_core.measure import machine
from gnn_core.measure.console import Console
from gnn_core.measure.metrics import AnyTally, split_fields
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import (
    EpochRecord,
    ProcessMemory,
    RunRecord,
    WorldRecord,
    count_ranks,
)
from gnn_core.measure.strict_json import build
from gnn_core.measure.tensorboard import TensorBoard
from gnn_core.measure.timing import lap_to_vector, slowest_lap, training_seconds
from gnn_core.schedule import Schedule
from gnn_core.training import describe
from gnn_core.training.checkpoint import Checkpoints, has_checksum, state_of
from gnn_core.training.elastic_state import ElasticState, shared
from gnn_core.training.learner import Diverged, Learner, RunProgress, State, Weights
from gnn_core.training.world import Stopped, World, WorldChanged

_LONG_SECONDS = 3.0  # a rehearsal that took longer has compiled something


class Session:
    """Everything between the first and the last step of a run.

    Args:
        config: what to do.
        learner: what trains.
        world: the other ranks.
        console: where progress is told.
        fingerprint: of the graph.
        kept: what this process has of the run, a `RunHistory` at least.

    Raises:
        UsageError: a checkpoint that does not fit, or one that would be overwritten.
    """

    def __init__(
        self,
        config: RunConfig,
        learner: Learner,
        world: World,
        console: Console,
        fingerprint: str,
        kept: ElasticState,
    ):
        self.learner = learner
        self._config = config
        self._world = world
        self._console = console
        self._kept = kept
        self._progress = RunProgress()
        self._best: Weights = {}
        self._final: dict[str, Any] = {}
        assert kept.history is not None
        taken = shared(kept, world) if world.elastic else None
        self.history = kept.history if taken is None else taken[1]
        self._checkpoints = Checkpoints(
            config.checkpoint_dir, config, fingerprint, world.num_replicas, self.history.run_id
        )
        if taken is not None:
            self._load(state_of(taken[0]))
        else:
            self._resume()

    def train(self, curves: TensorBoard) -> None:
        """All epochs, then the test split with the weights that did best on the validation split.

        Raises:
            Stopped: a signal ended the run; the last checkpoint is where it stands.
            WorldChanged: the ranks are others from now on; `ElasticState` is where it stands.
            Diverged: the loss is not a number.
            UsageError: a checkpoint could not be written.
        """
        start = time.perf_counter()
        self.learner.warm_up()
        seconds = time.perf_counter() - start
        if seconds > _LONG_SECONDS:
            self._console.tell(f"compiled   in {seconds:.0f} s")
        self._enter_world()
        self._kept.sampler.start()
        self.learner.watch.restart()
        self._world.can_save = True
        goes_on = False
        try:
            self._train(curves)
        except Stopped:
            raise self._stopped() from None
        except WorldChanged:
            if self._world.stop_signal is not None:  # it is this rank that goes
                raise self._stopped() from None
            self._keep()
            goes_on = True
            raise
        finally:
            if not goes_on:
                self._kept.sampler.stop()

    def _train(self, curves: TensorBoard) -> None:
        while not self._is_over():
            self._one_epoch(curves)
        if self._best:
            self.learner.load_weights(self._best)
        tallies = self._evaluate(("valid", "test"), whole=True)
        for split, tally in tallies.items():
            self._final |= split_fields(split, tally)
        self._final["best_epoch"] = self._progress.best_epoch

    def complete(self, record: RunRecord, status: str, error: str | None) -> RunRecord:
        """The record of this run; all ranks must call it if it ended well. Raises WorldChanged."""
        history = self.history
        seen = self._kept.sampler.summary()
        mine = asdict(machine.process_memory()), None if seen is None else asdict(seen)
        try:
            everyone = self._world.gather(mine) if status == "ok" else [mine]
        except WorldChanged:
            self._keep()
            raise
        held, used = zip(*everyone, strict=True)
        return record.finished(
            status,
            error,
            run_id=history.run_id,
            started_at=history.started_at,
            epochs=history.epochs,
            step_losses=history.step_losses,
            memory=[ProcessMemory(**values) for values in held],
            resources=[one and build(ProcessResources, one) for one in used] if any(used) else [],
            final=self._final,
            training_seconds=sum(epoch.seconds for epoch in history.epochs),
            evaluation_seconds=history.evaluation_seconds,
            resumed_from=history.resumed_from,
            worlds=history.worlds,
            num_parameters=self.learner.num_parameters,
            allreduce_bytes_per_step=self.learner.allreduce_bytes_per_step,
            bf16_products=self.learner.bf16_products,
            notes=describe.notes(record, self.learner) + self._end_notes(status),
        )

    def _end_notes(self, status: str) -> list[str]:
        """What the end of the run has to say to the reader of its numbers."""
        is_last = self._final.get("best_epoch") == self._config.epochs - 1
        notes = {describe.BEST_IS_LAST: is_last, describe.NOTHING_LEFT: not self.history.epochs}
        return [note for note, holds in notes.items() if holds and status == "ok"]

    def _resume(self) -> None:
        """Read a checkpoint on rank 0 and give every rank its weights and optimizer state."""
        data, problem = b"", None
        if self._world.rank == 0:
            try:
                if not self._config.resume:
                    self._checkpoints.require_free()
                data = self._checkpoints.read_last(self.learner)
            except UsageError as error:
                problem = str(error)
        self._world.require_agreement(self._world.gather(problem)[0])
        data = self._world.broadcast_bytes(data)
        if not data:
            return
        if not has_checksum(data):
            self._console.tell("resuming   from a checkpoint of an older version: no checksum")
        state = state_of(data)
        self._load(state)
        self.history.resumed_from = {"run_id": state.run_id, "epoch": state.progress.epoch}

    def _load(self, state: State) -> None:
        self.learner.load_weights(state.weights)
        self.learner.load_optimizer_state(state.optimizer)
        self._best, self._progress = state.best, state.progress

    def _enter_world(self) -> None:
        """Note who goes on together, where ranks may change."""
        world, kept = self._world, self._kept
        if not world.elastic:
            return
        since = None if kept.parted_at is None else time.monotonic() - kept.parted_at
        waited = [seconds for seconds in world.gather(since) if seconds is not None]
        hosts, ranks_per_host = count_ranks(world.rank_hosts)
        world = WorldRecord(
            epoch=self._progress.epoch,
            step=self._progress.step,
            hosts=hosts,
            ranks_per_host=ranks_per_host,
            seconds_between=max(waited, default=None),
        )
        self.history.worlds.append(world)
        if waited:
            self._console.tell(describe.new_world(world, self.history.worlds[-2]))

    def _keep(self) -> None:
        """Keep where this rank stands: after its last whole step, whatever it was doing then."""
        kept = self._kept
        kept.parted_at = time.monotonic()
        self.history.epoch_seconds += training_seconds(self.learner.watch.lap())
        kept.state, kept.history = self._checkpoints.pack(*self._state()), self.history
        kept.place = (self._progress.epoch, self._progress.step)
        self._save()  # if another rank goes while they meet anew, Horovod's Gloo aborts all of them

    def _one_epoch(self, curves: TensorBoard) -> None:
        learner, progress = self.learner, self._progress
        title = f"epoch {progress.epoch + 1}/{self._config.epochs}"
        with self._console.steps(title, progress.step, learner.num_steps) as steps:

            def after_step(loss: float) -> None:
                self.history.step_losses.append(loss)
                steps.advance(loss)
                every = self._config.checkpoint_every_steps
                if every and progress.step % every == 0:
                    self._save()

            tally = learner.train_epoch(progress, after_step)
        if learner.interrupted:
            self._world.raise_if_interrupted()
        warm_up, own = learner.watch.warm_up, learner.watch.lap()
        earlier = self.history.epoch_seconds
        self.history.epoch_seconds += training_seconds(own)
        lap = slowest_lap(self._world.gather(lap_to_vector(own).tolist()))
        lap["other"] += earlier  # in other worlds, as no section of this one
        lap["total"] += earlier
        evaluated: dict[str, float | None] = {}
        self._save()  # an evaluation may be long: what was trained is safe before it
        if (progress.epoch + 1) % self._config.eval_every == 0 or self._is_last_epoch():
            valid = self._evaluate(("valid",), whole=False)["valid"]
            evaluated[f"valid_{valid.score_name}"] = valid.score
            evaluated["valid_loss"] = valid.loss
            self._keep_best(valid.score)
        epoch = EpochRecord.of(
            progress.epoch,
            tally,
            lap,
            lr=self._last_rate(),
            warm_up=warm_up,
            num_sampled_edges=progress.num_sampled_edges,
            **evaluated,
        )
        self.history.epochs.append(epoch)
        self.history.epoch_seconds = 0.0
        targets = "citations" if self._config.task == "link" else "targets"
        epochs, is_last = self._config.epochs, self._is_last_epoch() or self._has_stalled()
        line = describe.epoch(epoch, epochs, targets)
        self._console.tell_epoch(line, progress.epoch + 1, epochs, is_last)
        describe.add_to_curves(curves, epoch)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.tally, progress.num_sampled_edges = [0.0, 0.0, 0.0], 0
        self._save()
        learner.watch.restart()

    def _last_rate(self) -> float:
        """The learning rate of the epoch's last step, even if that was made before a resume."""
        steps = self.learner.num_steps
        schedule = Schedule.of(self._config, self._world.num_replicas)
        return schedule.rate(self._progress.epoch, steps - 1, steps)

    def _evaluate(self, splits: tuple[str, ...], whole: bool) -> Mapping[str, AnyTally]:
        start = time.perf_counter()
        with self.learner.watch.section("evaluate"):
            tallies = self.learner.evaluate(splits, whole)
        self.history.evaluation_seconds += time.perf_counter() - start
        for split, tally in tallies.items():
            if not math.isfinite(tally.loss_sum):
                raise Diverged(f"the loss on the {split} split is {tally.loss_sum}: lower --lr")
        return tallies

    def _keep_best(self, score: float | None) -> None:
        progress = self._progress
        progress.evaluations_without_gain += 1
        if score is not None and score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch
            progress.evaluations_without_gain = 0
            self._best = self.learner.weights()
            if self._world.rank == 0:
                self._checkpoints.save_best(self._best, progress)

    def _is_over(self) -> bool:
        return self._progress.epoch >= self._config.epochs or self._has_stalled()

    def _has_stalled(self) -> bool:
        patience = self._config.patience
        return 0 < patience <= self._progress.evaluations_without_gain

    def _is_last_epoch(self) -> bool:
        return self._progress.epoch + 1 == self._config.epochs

    def _save(self) -> None:
        if self._world.rank == 0 and self._checkpoints.folder:
            with self.learner.watch.section("checkpoint"):
                self._checkpoints.save_last(*self._state())

    def _state(self) -> tuple[Weights, Weights, RunProgress, Weights]:
        learner = self.learner
        return learner.weights(), learner.optimizer_state(), self._progress, self._best

    def _stopped(self) -> Stopped:
        """Save where the run stands, and the exception that ends it."""
        self._save()
        folder = self._checkpoints.folder
        kept = f"go on with --resume from {folder}" if folder else "no --checkpoint-dir, none kept"
        where = f"epoch {self._progress.epoch + 1}, step {self._progress.step}"
        return Stopped(f"stopped at {where}; {kept}")
