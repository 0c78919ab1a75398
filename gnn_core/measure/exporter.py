"""Metrics of a run for Prometheus, over HTTP and as a file for node_exporter. An observer.

Every rank has its own. A step adds to a few numbers; the text is made when somebody asks for it, by
another thread. What fails after the beginning is said once on stderr, and the run goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_core.files import reason
from gnn_core.measure.run_record import EpochRecord, ParameterServerRecord, RunRecord
from gnn_core.measure.timing import SECTIONS, Stopwatch
from gnn_core.packages import require
from gnn_core.usage import UsageError, one_line

_FILE_SECONDS = 15.0  # from one writing of the file to the next
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What an exporter reads of a run.

    Attributes:
        record: as the run has begun it.
        rank: of this process.
        targets: of an epoch, over all ranks.
        watch: of this rank's seconds.
        bytes_per_step: of the allreduce.
        exchanged: counts of the rows that came from other ranks; None where none do.
        served: what servers and workers did; None where there are none.
    """

    record: RunRecord
    rank: int
    targets: int
    watch: Stopwatch
    bytes_per_step: int
    exchanged: Callable[[], Mapping[str, Any] | None]
    served: Callable[[], ParameterServerRecord | None]


class Exporter:
    """Serves the metrics of a rank, writes them to a file, or both.

    Args:
        watched: the run.
        port: to listen at; 0 does not.
        textfile: to write; None writes none.

    Attributes:
        threads: the kernel's numbers of those that write, whatever the run does.

    Raises:
        UsageError: a port or a file that cannot be used, or prometheus-client is not installed.
    """

    def __init__(self, watched: Watched, port: int, textfile: Path | None):
        require("prometheus_client")
        self._watched = watched
        self.threads: list[int] = []
        self._failed = False
        self._stepped: float | None = None  # when the last step of this epoch ended
        self._spent = dict.fromkeys(SECTIONS, 0.0)  # of the present lap, as last seen
        self._told: dict[str, float] = {}  # counts of others, as last seen
        self._make_metrics()
        self._held = contextlib.ExitStack()
        if port:
            self._serve(port)
        if textfile is not None:
            self._begin_file(textfile)

    def _make_metrics(self) -> None:
        import prometheus_client as prometheus

        self._registry = prometheus.CollectorRegistry()
        record, rank = self._watched.record, str(self._watched.rank)
        own = {"run_id": record.run_id, "rank": rank}

        def made(kind: Any, name: str, help: str, *labels: str, **more: Any) -> Any:
            metric = kind(
                f"ringsage_{name}", help, (*own, *labels), registry=self._registry, **more
            )
            return metric if labels else metric.labels(**own)

        counter, gauge = prometheus.Counter, prometheus.Gauge
        facts = {"strategy": record.strategy, "dataset": record.dataset.name}
        made(gauge, "run", "1 for a run.", *facts).labels(**own, **facts).set(1)
        made(gauge, "world_size", "Ranks of the run.").set(record.world_size)
        made(gauge, "epochs", "Epochs that the run has at most.").set(record.config["epochs"])
        made(gauge, "memory_bytes", "Resident memory of the rank.").set_function(_memory)
        self._running = made(gauge, "running", "1 until the run has ended.")
        self._running.set(1)
        self._epoch = made(gauge, "epoch", "Epoch that is being trained, from 1.")
        self._loss = made(gauge, "loss", "Mean loss of the last step, over all ranks.")
        self._score = made(gauge, "valid_score", "Score on the validation split.", "name")
        self._lr = made(gauge, "learning_rate", "Learning rate of the last epoch's last step.")
        self._at = made(gauge, "last_step_timestamp_seconds", "When the last step ended.")
        self._steps = made(counter, "steps_total", "Steps made since the process began.")
        self._targets = made(counter, "targets_total", "Training targets, over all ranks.")
        self._seconds = made(
            prometheus.Histogram, "step_seconds", "From step to step.", buckets=_BUCKETS
        )
        self._sections = made(
            counter, "section_seconds_total", "Seconds of the rank's training loop.", "section"
        )
        self._bytes = made(counter, "bytes_total", "Bytes sent to other ranks.", "what")
        told = "Slices begun while so many older steps were unfinished."
        self._slices = made(counter, "slices_total", told, "unfinished_steps")
        self._own = own

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Count a step."""
        with self._surviving():
            now, watched = time.perf_counter(), self._watched
            if self._stepped is not None:
                self._seconds.observe(now - self._stepped)
            self._stepped = now
            batch = watched.record.config["global_batch_size"]
            self._steps.inc()
            self._targets.inc(max(0, min(batch, watched.targets - step * batch)))
            self._epoch.set(epoch + 1)
            self._loss.set(loss)
            self._at.set(time.time())
            for name, before in self._spent.items():
                seconds = watched.watch.spent(name)
                # Less than before: a new lap has begun.
                more = seconds - before if seconds >= before else seconds
                self._spent[name] = seconds
                if more:
                    self._count(self._sections, more, section=name)
            if watched.bytes_per_step and watched.record.world_size > 1:
                self._count(self._bytes, watched.bytes_per_step, what="allreduce")

    def epoch(self, record: EpochRecord) -> None:
        """Take over what is known once an epoch."""
        with self._surviving():
            self._stepped = None
            self._lr.set(record.lr)
            scores = {
                "loss": record.valid_loss,
                "accuracy": record.valid_accuracy,
                "mrr": record.valid_mrr,
            }
            for name, score in scores.items():
                if score is not None:
                    self._score.labels(**self._own, name=name).set(score)
            if (rows := self._watched.exchanged()) is not None:
                self._grown(self._bytes, rows["bytes_sent"], what="features")
                self._grown(self._bytes, rows["sampling_bytes"], what="sampling")
            if (served := self._watched.served()) is not None:
                self._grown(self._bytes, served.bytes_pulled, what="pulled")
                self._grown(self._bytes, served.bytes_pushed, what="pushed")
                for steps, slices in served.unfinished_steps.items():
                    self._grown(self._slices, slices, unfinished_steps=steps)

    def finished(self, record: RunRecord) -> None:
        """Say that the run has ended."""
        self._running.set(0)

    def close(self) -> None:
        """Write the file for the last time, and listen no more."""
        with self._surviving():
            self._held.close()

    def _count(self, metric: Any, more: float, **labels: str) -> None:
        metric.labels(**self._own, **labels).inc(more)

    def _grown(self, metric: Any, total: float, **labels: str) -> None:
        """Count by how much a total has grown; a smaller one has begun anew."""
        key = str(labels)
        before = self._told.get(key, 0)
        self._count(metric, total - before if total >= before else total, **labels)
        self._told[key] = total

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Say once what fails, and do without metrics from then on."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._failed = True
                print(f"note       the metrics are cut: {one_line(error)}", file=sys.stderr)

    def _serve(self, port: int) -> None:
        from prometheus_client import start_http_server

        try:
            server, thread = start_http_server(port, registry=self._registry)
        except (OSError, OverflowError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"--metrics-port: rank {self._watched.rank} is to listen at port {port}, and "
                f"cannot ({why}): choose another one"
            ) from None

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join(5)

        self._held.callback(end)

    def _begin_file(self, file: Path) -> None:
        try:
            self._write(file)
        except OSError as error:
            self._held.close()
            raise UsageError(
                f"--metrics-textfile {file}: cannot write it ({reason(error)}): give another one"
            ) from None
        ended = threading.Event()

        def write() -> None:
            while not ended.wait(_FILE_SECONDS):
                with self._surviving():
                    self._write(file)
            with self._surviving():
                self._write(file)

        thread = threading.Thread(target=write, name="metrics file", daemon=True)
        thread.start()
        self.threads.append(thread.native_id or 0)
        self._held.callback(thread.join, 5)
        self._held.callback(ended.set)

    def _write(self, file: Path) -> None:
        from prometheus_client import generate_latest

        unfinished = file.with_name(f".{file.name}.{os.getpid()}")  # collectors read *.prom
        unfinished.write_bytes(generate_latest(self._registry))
        unfinished.replace(file)


def _memory() -> float:
    import psutil  # here, since training alone does not need it

    return float(psutil.Process().memory_info().rss)
