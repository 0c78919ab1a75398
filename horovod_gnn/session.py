"""The state of one run and its epochs: train, evaluate, keep the best, save, stop when told."""

from __future__ import annotations

import io
import math
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.data.loader import Loader
from gnn_core.report import machine
from gnn_core.report.curves import Curves
from gnn_core.report.metrics import Tally, split_fields
from gnn_core.report.narrate import Narrator
from gnn_core.report.schema import EpochRecord, RankMemory, RunRecord
from gnn_core.report.timing import Stopwatch, lap_to_vector, slowest_lap
from gnn_core.schedule import Schedule
from horovod_gnn import describe
from horovod_gnn.checkpoint import Checkpoints, Progress
from horovod_gnn.evaluate import ExactEvaluator, SampledEvaluator
from horovod_gnn.loop import Diverged, GradientBucket, Training, train_epoch
from horovod_gnn.model import GraphSAGE
from horovod_gnn.parallel import OneProcess, Stopped
from horovod_gnn.setup import feature_table

_LONG_SECONDS = 3.0  # a rehearsal that took longer has compiled something

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class Session:
    """Everything between the first and the last step of a run.

    Args:
        config: what to do.
        graph: the opened data set.
        parallel: the fellow ranks.
        narrator: where progress is told.
        device: of this rank.
        run_id: of the record.

    Raises:
        UsageError: a checkpoint that does not fit, or one that would be overwritten.
    """

    def __init__(
        self,
        config: RunConfig,
        graph: Graph,
        parallel: OneProcess,
        narrator: Narrator,
        device: torch.device,
        run_id: str,
    ):
        self._config = config
        self._parallel = parallel
        self._narrator = narrator
        table = feature_table(graph)
        model = GraphSAGE(
            graph.num_features, config.hidden, graph.num_classes,
            layers=config.layers, aggregator=config.aggregator, dropout=config.dropout,
            input_dropout=config.input_dropout, precision=config.precision, seed=config.seed,
        ).to(device)  # fmt: skip
        optimizer = OPTIMIZERS[config.optimizer](
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.training = Training(
            model=model,
            optimizer=optimizer,
            bucket=GradientBucket(model),
            loader=self._loader(graph, "train", config.fanouts, shuffle=True),
            table=table,
            schedule=Schedule.of(config, parallel.world_size),
            parallel=parallel,
            watch=Stopwatch(),
        )
        self._evaluator: ExactEvaluator | SampledEvaluator
        if config.eval == "exact":
            self._evaluator = ExactEvaluator(graph, table, parallel)
        else:
            fanouts = config.eval_fanouts or config.fanouts
            loaders = {s: self._loader(graph, s, fanouts, shuffle=False) for s in ("valid", "test")}
            self._evaluator = SampledEvaluator(loaders, table, parallel)
        self._checkpoints = Checkpoints(
            config.checkpoint_dir, config, graph.fingerprint, parallel.world_size, run_id
        )
        self._progress = Progress()
        self._best: dict[str, Tensor] = {}
        self._epochs: list[EpochRecord] = []
        self._step_losses: list[float | None] = []
        self._evaluation_seconds = 0.0
        self._final: dict[str, Any] = {}
        self._resumed_from: dict[str, Any] | None = None
        self._start_equal()

    def train(self, curves: Curves) -> None:
        """All epochs, then the test split with the weights that did best on the validation split.

        Raises:
            Stopped: a signal ended the run; `last.pt` is where it stands.
            Diverged: the loss is not a number.
            UsageError: a checkpoint could not be written.
        """
        self._rehearse()
        self.training.watch.restart()
        try:
            while self._progress.epoch < self._config.epochs and not self._has_stalled():
                self._one_epoch(curves)
        except Stopped:
            raise self._stopped() from None
        if self._best:
            self.training.model.load_state_dict(self._best)
        tallies = self._evaluate(("valid", "test"))
        for split, tally in tallies.items():
            self._final |= split_fields(split, tally)
        self._final["best_epoch"] = self._progress.best_epoch

    def complete(self, record: RunRecord, status: str, error: str | None) -> RunRecord:
        """The record of this run; every rank must call it, unless it was stopped."""
        memory = [asdict(machine.rank_memory())]
        if status == "ok":
            memory = self._parallel.gather(memory[0])
        return record.finished(
            status,
            error,
            epochs=self._epochs,
            step_losses=self._step_losses,
            memory=[RankMemory(**values) for values in memory],
            final=self._final,
            training_seconds=sum(epoch.seconds for epoch in self._epochs),
            evaluation_seconds=self._evaluation_seconds,
            resumed_from=self._resumed_from,
            num_parameters=sum(p.numel() for p in self.training.model.parameters()),
            allreduce_bytes_per_step=self.training.bucket.num_bytes,
            notes=describe.notes(record, self.training.model),
        )

    def _loader(
        self, graph: Graph, split: str, fanouts: tuple[int, ...], shuffle: bool
    ) -> Loader:
        return Loader(
            graph, split, fanouts, self._config.global_batch_size,
            seed=self._config.seed, rank=self._parallel.rank,
            world_size=self._parallel.world_size, shuffle=shuffle, prefetch=self._config.prefetch,
        )  # fmt: skip

    def _start_equal(self) -> None:
        """Load a checkpoint on rank 0 and give every rank the same weights and optimizer state."""
        parallel, training = self._parallel, self.training
        content, problem = None, None
        if parallel.rank == 0:
            try:
                if not self._config.resume:
                    self._checkpoints.require_free()
                content = self._checkpoints.load_last()
            except UsageError as error:
                problem = str(error)
        parallel.require_agreement(parallel.gather(problem)[0])
        content = _broadcast(content, parallel)
        if content is None:
            for tensor in training.model.state_dict().values():
                parallel.broadcast_(tensor)
            return
        training.model.load_state_dict(content["model"])
        training.optimizer.load_state_dict(content["optimizer"])
        self._best = content["best"]
        self._progress = Progress(**content["progress"])
        self._resumed_from = {"run_id": content["run_id"], "epoch": self._progress.epoch}

    def _rehearse(self) -> None:
        """Take a step that changes nothing, so that no epoch is timed while kernels compile.

        One rank of a host goes first: it compiles, and the others find its results on disk.
        """
        training, parallel = self.training, self._parallel
        start = time.perf_counter()
        for leads in (True, False):
            if leads == (parallel.local_rank == 0):
                batch = training.loader.batch(0, 0)
                training.model.train()
                logits = training.model(
                    training.table, batch.input_nodes, batch.blocks, batch.key
                )
                logits.sum().backward()
            parallel.barrier()
        seconds = time.perf_counter() - start
        if seconds > _LONG_SECONDS:
            self._narrator.say(f"compiled   kernels, kept for the next run ({seconds:.0f} s)")

    def _one_epoch(self, curves: Curves) -> None:
        training, progress = self.training, self._progress
        title = f"epoch {progress.epoch + 1}/{self._config.epochs}"
        with self._narrator.steps(title, progress.step, training.loader.num_steps) as steps:

            def after_step(loss: float) -> bool:
                self._step_losses.append(loss)
                steps.advance(loss)
                every = self._config.checkpoint_every_steps
                if every and progress.step % every == 0:
                    self._save()
                return True

            tally = train_epoch(training, progress, after_step)
        rate = training.optimizer.param_groups[0]["lr"]
        warm_up = training.watch.warm_up
        lap = slowest_lap(
            self._parallel.gather(lap_to_vector(training.watch.lap()).tolist())
        )
        if training.stopping:
            raise Stopped
        valid = None
        self._save()  # an evaluation may be long: what was trained is safe before it
        if (progress.epoch + 1) % self._config.eval_every == 0 or self._is_last_epoch():
            valid = self._evaluate(("valid",))["valid"].accuracy
            self._keep_best(valid)
        epoch = EpochRecord.of(
            progress.epoch, tally, lap, lr=rate, warm_up=warm_up,
            num_sampled_edges=progress.num_sampled_edges, valid_accuracy=valid,
        )  # fmt: skip
        self._epochs.append(epoch)
        self._narrator.say(describe.epoch(epoch, self._config.epochs))
        describe.add_to_curves(curves, epoch)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.tally, progress.num_sampled_edges = [0.0, 0.0, 0.0], 0
        self._save()
        training.watch.restart()

    def _evaluate(self, splits: tuple[str, ...]) -> dict[str, Tally]:
        start = time.perf_counter()
        tallies = self._evaluator.tallies(self.training.model, splits)
        self._evaluation_seconds += time.perf_counter() - start
        for split, tally in tallies.items():
            if not math.isfinite(tally.loss_sum):
                raise Diverged(f"the loss on the {split} split is {tally.loss_sum}: lower --lr")
        return tallies

    def _keep_best(self, accuracy: float | None) -> None:
        progress = self._progress
        progress.evaluations_without_gain += 1
        if accuracy is not None and accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = accuracy, progress.epoch
            progress.evaluations_without_gain = 0
            state = self.training.model.state_dict()
            self._best = {name: tensor.clone() for name, tensor in state.items()}
            if self._parallel.rank == 0:
                self._checkpoints.save_best(self._best, progress)

    def _has_stalled(self) -> bool:
        patience = self._config.patience
        return 0 < patience <= self._progress.evaluations_without_gain

    def _is_last_epoch(self) -> bool:
        return self._progress.epoch + 1 == self._config.epochs

    def _save(self) -> None:
        if self._parallel.rank == 0:
            with self.training.watch.section("checkpoint"):
                self._checkpoints.save_last(
                    self.training.model, self.training.optimizer, self._progress, self._best
                )

    def _stopped(self) -> Stopped:
        """Save where the run stands, and the exception that ends it."""
        self._save()
        folder = self._checkpoints.folder
        kept = f"go on with --resume from {folder}" if folder else "no --checkpoint-dir, none kept"
        where = f"epoch {self._progress.epoch + 1}, step {self._progress.step}"
        return Stopped(f"stopped at {where}; {kept}")


def _broadcast(content: dict[str, Any] | None, parallel: OneProcess) -> dict[str, Any] | None:
    """A checkpoint's content, from rank 0 to all: tensors and plain values only."""
    stream = io.BytesIO()
    if parallel.rank == 0 and content is not None:
        torch.save(content, stream)
    data = bytearray(stream.getvalue())
    size = parallel.gather(len(data))[0]
    if size == 0:
        return None
    buffer = torch.zeros(size, dtype=torch.uint8)
    if parallel.rank == 0:
        buffer = torch.frombuffer(data, dtype=torch.uint8)
    parallel.broadcast_(buffer)
    return torch.load(io.BytesIO(buffer.numpy().tobytes()), weights_only=True)
