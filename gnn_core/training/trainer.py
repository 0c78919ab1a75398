"""The trainer: all epochs of a run, the same in every framework.

`Trainer.run` is the whole of it. What happens before (joining the ranks) and after (writing the
record) is in `job`; a training step is in the framework's learner.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.data.ids import class_names
from gnn_core.measure import machine
from gnn_core.measure.console import Console
from gnn_core.measure.feature_reads import FeatureReads
from gnn_core.measure.json_lines import name_run
from gnn_core.measure.metrics import AnyTally, Tally, split_fields
from gnn_core.measure.records import begin_run
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import (
    DatasetInfo,
    EpochRecord,
    ExchangeRecord,
    ProcessMemory,
    RunRecord,
    WorldRecord,
    count_ranks,
)
from gnn_core.measure.strict_json import build
from gnn_core.measure.timing import lap_to_vector, slowest_lap, training_seconds
from gnn_core.schedule import Schedule
from gnn_core.training import describe
from gnn_core.training.checkpoint import UNFINISHED, Checkpoints, has_checksum, state_of
from gnn_core.training.claim import claimed
from gnn_core.training.elastic_state import ElasticState, RunHistory, shared
from gnn_core.training.learner import Learner
from gnn_core.training.observers import Observer, observers_of, observers_of_rank
from gnn_core.training.saver import Saver
from gnn_core.training.state import Diverged, RunProgress, State, Weights, Work
from gnn_core.training.tasks import assigned_by, split_sizes, targets_per_epoch
from gnn_core.training.world import Lost, Stopped, World, WorldChanged
from gnn_core.usage import SharedUsageError, one_line

_LONG_SECONDS = 3.0  # a warm-up that took longer has compiled something
_NO_MEMORY = re.compile(r"allocate memory|out of memory|OOM when allocating", re.IGNORECASE)


class Trainer:
    """Trains, evaluates, keeps the best weights, saves checkpoints, and stops when told to.

    Args:
        strategy: its name; see `gnn_core.strategies`.
        config: what to do.
        graph: what to train on.
        world: the other ranks.
        learner: model, batches and update of this rank.
    """

    def __init__(
        self, strategy: str, config: RunConfig, graph: Graph, world: World, learner: Learner
    ):
        self.strategy, self.config, self.graph = strategy, config, graph
        self.world, self.learner = world, learner
        self.console = Console.of(config, world.rank)
        self.progress = RunProgress()
        self.record: RunRecord | None = None  # None until `run` has begun
        self._best: Weights = {}
        self._final: dict[str, float | int | None] = {}

    def run(self, state: ElasticState) -> RunRecord:
        """Train to the end of the run; its record, whatever has ended it.

        Args:
            state: carried from one world to the next, where ranks may go and join.

        Raises:
            UsageError: before the first step: a checkpoint that does not fit, or one that would be
                overwritten.
            WorldChanged: the ranks are others from now on; `state` is where the run stands.
        """
        error: Exception | None = None
        with self._begun(state):
            try:
                self._warm_up()
                with self._saved_when_interrupted():
                    while not self._is_over():
                        with self._shown_steps() as after_step:
                            tally = self.learner.train_epoch(self.progress, after_step)
                        self._end_epoch(tally)
                    self._saver.wait()
                    self._evaluate_best()
            except WorldChanged:
                raise
            except Exception as problem:
                error = problem
            return self._ended(error)

    # --- beginning ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _begun(self, state: ElasticState) -> Iterator[None]:
        """Begin the record, take over where the run stands, and say what is about to run."""
        config, world = self.config, self.world
        record = begin_run(
            strategy=self.strategy,
            config=config.to_dict(),
            config_digest=config.digest(),
            dataset=DatasetInfo.of(self.graph, split_sizes(self.graph, config.task)),
            rank_hosts=world.replica_hosts,
            controller=world.controller,
        )
        run_id, started_at = world.gather([record.run_id, record.started_at])[0]
        state.history = state.history or RunHistory(run_id, started_at)
        self._state = state
        taken = shared(state, world) if world.elastic else None
        self.history = state.history if taken is None else taken[1]
        with contextlib.ExitStack() as held:
            with world.errors_on_all_ranks():
                if world.rank == 0 and config.checkpoint_dir:
                    folder, run_id = Path(config.checkpoint_dir), self.history.run_id
                    held.enter_context(claimed(folder, run_id, f".*{UNFINISHED}"))
            self._take_over(None if taken is None else taken[0])
            self._saver = Saver(self._checkpoints)
            held.callback(self._saver.close)
            run_id, started_at = self.history.run_id, self.history.started_at
            self.record = dataclasses.replace(record, run_id=run_id, started_at=started_at)
            name_run(run_id)
            with world.errors_on_all_ranks():
                targets = targets_per_epoch(config, self.graph)
                self._observers: list[Observer] = [
                    *observers_of(config, self.record, world.rank),
                    *observers_of_rank(config, self.record, world, self.learner, targets),
                ]
            for observer in self._observers:
                held.callback(observer.close)
            if not self.history.worlds:
                opening = describe.opening(self.record, config, self.graph, self.learner)
                self.console.progress(opening)
            yield

    def _take_over(self, packed: bytes | None) -> None:
        """Go on where another world of this run, which has left `packed`, or a checkpoint ended."""
        config, world = self.config, self.world
        self._checkpoints = Checkpoints(
            config.checkpoint_dir,
            config,
            self.graph.fingerprint,
            world.num_replicas,
            self.history.run_id,
            class_names(self.graph) if config.task == "node" else None,
        )
        if packed is not None:
            self._load(state_of(packed))
        else:
            self._resume()

    def _resume(self) -> None:
        """Read a checkpoint on rank 0 and give every rank its weights and optimizer state."""
        data, problem = b"", None
        if self.world.rank == 0:
            try:
                if not self.config.resume:
                    self._checkpoints.require_free()
                data = self._checkpoints.read_last(self.learner)
            except UsageError as error:
                problem = str(error)
        self.world.require_agreement(self.world.gather(problem)[0])
        data = self.world.broadcast_bytes(data)
        if not data:
            return
        if (damage := self._checkpoints.damage) is not None:
            self.console.progress(f"resuming   from the checkpoint before, since {damage}")
        if not has_checksum(data):
            self.console.progress("resuming   from a checkpoint of an older version: no checksum")
        state = state_of(data)
        self._load(state)
        self.history.resumed_from = {"run_id": state.run_id, "epoch": state.progress.epoch}

    def _load(self, state: State) -> None:
        self.learner.load_weights(state.weights)
        self.learner.load_optimizer_state(state.optimizer)
        self._best, self.progress = state.best, state.progress

    def _warm_up(self) -> None:
        """Compile what is to be compiled, so that no epoch is timed while that goes on."""
        start = time.perf_counter()
        with self.console.telling(
            lambda: f"warming up  {time.perf_counter() - start:.0f} s so far"
        ):
            self.learner.warm_up()
        seconds = time.perf_counter() - start
        if seconds > _LONG_SECONDS:
            self.console.progress(f"compiled   in {seconds:.0f} s")
        if self.world.elastic:
            self._note_world()
        self._state.sampler.start()
        self.learner.watch.restart()
        self.world.can_save = True

    def _note_world(self) -> None:
        """Note in the history who trains together from now on."""
        parted_at = self._state.parted_at
        since = None if parted_at is None else time.monotonic() - parted_at
        waited = [seconds for seconds in self.world.gather(since) if seconds is not None]
        hosts, ranks_per_host = count_ranks(self.world.rank_hosts)
        entry = WorldRecord(
            epoch=self.progress.epoch,
            step=self.progress.step,
            hosts=hosts,
            ranks_per_host=ranks_per_host,
            seconds_between=max(waited, default=None),
        )
        self.history.worlds.append(entry)
        if waited:
            self.console.progress(describe.new_world(entry, self.history.worlds[-2]))

    # --- epochs ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _shown_steps(self) -> Iterator[Callable[[float], None]]:
        """Show the steps of an epoch; gives what is to be called with the loss of each."""
        progress, every = self.progress, self.config.checkpoint_every_steps
        title = f"epoch {progress.epoch + 1}/{self.config.epochs}"
        with self.console.steps(title, progress.step, self.learner.num_steps) as steps:

            def after_step(loss: float) -> None:
                self.history.step_losses.append(loss)
                steps.advance(loss)
                for observer in self._observers:
                    observer.step(progress.epoch, progress.step - 1, loss)
                if every and progress.step % every == 0:
                    self._save()

            yield after_step

    def _end_epoch(self, tally: Tally) -> None:
        """Evaluate if it is time to, keep the best weights, print and save."""
        learner, progress, history = self.learner, self.progress, self.history
        if learner.interrupted:
            self.world.raise_if_interrupted()
        warm_up, own = learner.watch.warm_up, learner.watch.lap()
        earlier = history.epoch_seconds
        history.epoch_seconds += training_seconds(own)
        work = [asdict(one) for one in learner.work]
        laps, works = zip(*self.world.gather([lap_to_vector(own).tolist(), work]), strict=True)
        learner.work = [Work() for _ in learner.work]
        lap = slowest_lap(laps)
        lap["other"] += earlier  # in other worlds, as no section of this one
        lap["total"] += earlier
        evaluated: dict[str, float | None] = {}
        self._save()  # an evaluation may be long: what was trained is safe before it
        if (progress.epoch + 1) % self.config.eval_every == 0 or self._is_last_epoch():
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
            rank_rows=[one["rows"] for rank in works for one in rank],
            rank_edges=[one["edges"] for rank in works for one in rank],
            **evaluated,
        )
        history.epochs.append(epoch)
        history.epoch_seconds = 0.0
        self._tell_epoch(epoch)
        progress.begin_next_epoch()
        self._save()
        learner.watch.restart()

    def _tell_epoch(self, epoch: EpochRecord) -> None:
        targets = "citations" if self.config.task == "link" else "targets"
        is_last = self._is_last_epoch() or self._has_stalled()
        line = describe.epoch(epoch, self.config.epochs, targets)
        self.console.epoch(line, epoch.epoch + 1, self.config.epochs, is_last)
        for observer in self._observers:
            observer.epoch(epoch)

    def _last_rate(self) -> float:
        """The learning rate of the epoch's last step, even if that was made before a resume."""
        steps = self.learner.num_steps
        schedule = Schedule.of(self.config, self.world.num_replicas)
        return schedule.rate(self.progress.epoch, steps - 1, steps)

    def _evaluate(self, splits: tuple[str, ...], whole: bool) -> Mapping[str, AnyTally]:
        """The tally of each split; raises Diverged where its loss is not a number."""
        start = time.perf_counter()
        with self.learner.watch.section("evaluate"):
            tallies = self.learner.evaluate(splits, whole)
        self.history.evaluation_seconds += time.perf_counter() - start
        for split, tally in tallies.items():
            if not math.isfinite(tally.loss_sum):
                raise Diverged(f"the loss on the {split} split is {tally.loss_sum}: lower --lr")
        return tallies

    def _evaluate_best(self) -> None:
        """Evaluate the weights that did best on the validation split on the test split."""
        if self._best:
            self.learner.load_weights(self._best)
        for split, tally in self._evaluate(("valid", "test"), whole=True).items():
            self._final |= split_fields(split, tally)
        self._final["best_epoch"] = self.progress.best_epoch

    def _keep_best(self, score: float | None) -> None:
        progress = self.progress
        progress.evaluations_without_gain += 1
        if score is not None and score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch
            progress.evaluations_without_gain = 0
            self._best = self.learner.weights()
            if self.world.rank == 0:
                self._saver.save_best(self._best, progress)

    def _is_over(self) -> bool:
        return self.progress.epoch >= self.config.epochs or self._has_stalled()

    def _has_stalled(self) -> bool:
        return 0 < self.config.patience <= self.progress.evaluations_without_gain

    def _is_last_epoch(self) -> bool:
        return self.progress.epoch + 1 == self.config.epochs

    # --- ending ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _saved_when_interrupted(self) -> Iterator[None]:
        """Save where the run stands when a signal stops it, or other ranks are to go on."""
        try:
            yield
        except Stopped:
            raise self._stopped() from None
        except WorldChanged:
            if self.world.stop_signal is not None:  # it is this rank that goes
                raise self._stopped() from None
            self._keep_state()
            raise

    def _stopped(self) -> Stopped | Lost:
        """Save where the run stands, and the exception that ends it."""
        self._save()
        self._saver.wait()
        folder = self._checkpoints.folder
        saved = f"go on with --resume from {folder}" if folder else "no --checkpoint-dir, none kept"
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
        monitor = self.world.monitor
        if monitor is not None and monitor.failure:  # its launcher then stops the others
            return Lost(f"{monitor.failure}; stopped at {where}; {saved}")
        return Stopped(f"stopped at {where}; {saved}")

    def _keep_state(self) -> None:
        """Keep where this rank stands: after its last whole step, whatever it was doing then."""
        state = self._state
        state.parted_at = time.monotonic()
        self.history.epoch_seconds += training_seconds(self.learner.watch.lap())
        state.state, state.history = self._checkpoints.pack(*self._position()), self.history
        state.place = (self.progress.epoch, self.progress.step)
        self._save()  # if another rank goes while they meet anew, Horovod's Gloo aborts all of them
        self._saver.wait()

    def _save(self) -> None:
        if self.world.rank == 0 and self._checkpoints.folder:
            with self.learner.watch.section("checkpoint"):
                self._saver.save_last(*self._position())

    def _position(self) -> tuple[Weights, Weights, RunProgress, Weights]:
        learner = self.learner
        return learner.weights(), learner.optimizer_state(), self.progress, self._best

    def _ended(self, error: Exception | None) -> RunRecord:
        """The record of the run that has ended, by `error` or well."""
        self._state.sampler.stop()
        status, reason = _outcome(error)
        if reason is not None and not isinstance(error, Stopped | Diverged | SharedUsageError):
            self._tell(reason, isinstance(error, Lost))
        record = self.complete(status, reason)
        for observer in self._observers:
            observer.finished(record)
        return record

    def _tell(self, reason: str, is_of_others: bool) -> None:
        """Say why this rank ends: the record tells of rank 0 alone, the launcher an exit code."""
        if self.world.rank != 0:
            describe.print_failed(self.world.rank, reason)
        if not is_of_others and self.world.monitor is not None:
            self.world.monitor.tell_failure(reason)

    def complete(self, status: str, error: str | None) -> RunRecord:
        """The record of this run; all ranks must call it if it ended well. Raises WorldChanged."""
        history, learner, record = self.history, self.learner, self.record
        assert record is not None
        seen = self._state.sampler.summary()
        exchanged = learner.store.exchanged()
        reads = learner.store.reads()
        mine = (
            asdict(machine.process_memory()),
            None if seen is None else asdict(seen),
            None if reads is None else asdict(reads),
            exchanged,
        )
        try:
            everyone = self.world.gather(mine) if status == "ok" else [mine]
        except WorldChanged:
            self._keep_state()
            raise
        held, used, read, fetched = zip(*everyone, strict=True)
        return record.finished(
            status,
            error,
            epochs=history.epochs,
            step_losses=history.step_losses,
            memory=[ProcessMemory(**values) for values in held],
            resources=[one and build(ProcessResources, one) for one in used] if any(used) else [],
            final=self._final,
            training_seconds=sum(epoch.seconds for epoch in history.epochs),
            evaluation_seconds=history.evaluation_seconds,
            resumed_from=history.resumed_from,
            worlds=history.worlds,
            assigned_by=assigned_by(self.graph, self.config),
            num_parameters=learner.num_parameters,
            allreduce_bytes_per_step=learner.allreduce_bytes_per_step,
            bf16_products=learner.bf16_products,
            parameter_server=learner.parameter_server,
            feature_reads=[FeatureReads(**values) for values in read if values],
            exchange=None if exchanged is None else ExchangeRecord.of(fetched),
            notes=describe.notes(record, learner) + self._end_notes(status),
        )

    def _end_notes(self, status: str) -> list[str]:
        """What the end of the run has to say to the reader of its numbers."""
        is_last = self._final.get("best_epoch") == self.config.epochs - 1
        notes = {describe.BEST_IS_LAST: is_last, describe.NOTHING_LEFT: not self.history.epochs}
        return [note for note, holds in notes.items() if holds and status == "ok"]


def _outcome(error: Exception | None) -> tuple[str, str | None]:
    """The status of a run, and in one line what went wrong, if anything did."""
    if error is None:
        return "ok", None
    if isinstance(error, Stopped):
        return "interrupted", str(error)
    if isinstance(error, Lost | Diverged | UsageError):
        return "failed", str(error)
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):  # as frameworks say it
        return "failed", (
            f"not enough memory ({one_line(error)[:200]}): lower --global-batch-size, --hidden or "
            "--fanouts, or start fewer ranks on a host; --dry-run bounds what a run takes"
        )
    # Not the user's mistake: the record is written, the traceback printed, and the rank leaves.
    sys.excepthook(type(error), error, error.__traceback__)
    return "failed", f"{type(error).__name__}: {error}"
