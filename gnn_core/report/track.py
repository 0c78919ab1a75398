"""Import run records into MLflow, whose tables are in SQL: parameters, curves, results, the record.

    python -m gnn_core.report.track results/ --to sqlite:///mlflow.db
    python -m gnn_core.report.track results/ --to postgresql+psycopg://user@host/mlflow
    python -m gnn_core.report.track results/ --to http://host:5000 --experiment cora
    mlflow ui --backend-store-uri sqlite:///mlflow.db

The records of a folder become runs of one experiment, each once, however often this is called: a
run has the id of its record as the tag `ringsage.run_id`. Nothing of MLflow runs while a model
trains. Needs the package mlflow (extra `track`), here or in an environment of its own.

Exit code 0, 2 for a mistake reported in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.measure.timing import per_second
from gnn_core.number_text import counted
from gnn_core.packages import require
from gnn_core.settings.options import show
from gnn_core.usage import Parser, UsageError, one_line, shown

ID, COMPLETE = "ringsage.run_id", "ringsage.complete"
_STATUSES = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_MOST_PARAMETERS, _MOST_METRICS = 100, 1000  # of one request
_URI = re.compile(r"[a-z][a-z0-9+.-]*://.*", re.IGNORECASE)
_CREDENTIALS = re.compile(r"//[^/@]*@")
_SECONDS_BETWEEN_LINES = 10.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _import(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.track")
    parser.add_argument(
        "paths",
        nargs="+",
        type=path_argument,
        metavar="RECORDS",
        help="folders and files of run records",
    )
    parser.add_argument("--to", required=True, metavar="URI", help="database, or server, of MLflow")
    parser.add_argument(
        "--experiment", default="ringsage", metavar="NAME", help="(default: ringsage)"
    )
    return parser.parse_args(arguments)


def _import(options: argparse.Namespace) -> int:
    require_uri(options.to, "sqlite:///mlflow.db or http://host:5000")
    records = usable_records(options.paths)
    require("mlflow")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with told_of(options.to):
        num_new = Tracker(options.to, options.experiment).add(records)
    there = len(records) - num_new
    print(f"{counted(num_new, 'run')} imported, {there} there already")
    return 0


def require_uri(text: str, example: str) -> None:
    """Raise UsageError unless --to is a URI."""
    if not _URI.fullmatch(text):
        raise UsageError(f"--to: expected a URI such as {example}, got {shown(text)}")


def usable_records(paths: Sequence[Path]) -> list[RunRecord]:
    """The records there; what cannot be used is told. Raises UsageError where there are none."""
    records, problems = read_records(*paths)
    for problem in problems:
        print(f"note: left out: {problem}", file=sys.stderr)
    if not records:
        raise UsageError(
            f"expected run records in {', '.join(map(str, paths))}, found none that can be used: "
            "name another folder"
        )
    return records


@contextlib.contextmanager
def told_of(uri: str) -> Iterator[None]:
    """Raise UsageError for whatever the database, its driver or HTTP raises within."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # each driver has errors of its own
        where, reason = (_CREDENTIALS.sub("//***@", text) for text in (uri, one_line(error)[:300]))
        raise UsageError(
            f"--to {where}: cannot be used ({reason}): correct it, or start the server"
        ) from None


class Tracker:
    """An experiment of MLflow.

    Args:
        uri: of the database or the server.
        experiment: its name; made if it is not there.
    """

    def __init__(self, uri: str, experiment: str):
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            self._client.create_experiment(experiment) if found is None else found.experiment_id
        )

    def add(self, records: Sequence[RunRecord]) -> int:
        """Import the records that are not there as whole runs; how many those were."""
        done = {one.data.tags[ID] for one in self._runs(f"tags.`{COMPLETE}` = 'yes'")}
        left = [record for record in records if record.run_id not in done]
        told = time.monotonic()
        for number, record in enumerate(left, 1):
            self._add(record)
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                print(f"{number} of {counted(len(left), 'run')}", flush=True)
        return len(left)

    def _runs(self, condition: str) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment], condition, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _add(self, record: RunRecord) -> None:
        for begun in list(self._runs(f"tags.`{ID}` = '{record.run_id}'")):
            self._client.delete_run(begun.info.run_id)  # an import that was ended in the middle
        run = self._client.create_run(
            self._experiment, start_time=_milliseconds(record.started_at), tags=tags_of(record)
        ).info.run_id
        from mlflow.entities import Metric, Param

        parameters = [Param(name, value) for name, value in parameters_of(record).items()]
        for at in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(run, params=parameters[at : at + _MOST_PARAMETERS])
        metrics = [Metric(*one) for one in metrics_of(record)]
        for at in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(run, metrics=metrics[at : at + _MOST_METRICS])
        self._client.log_text(run, json.dumps(asdict(record), indent=1), "record.json")
        ended = _milliseconds(record.finished_at or record.started_at)
        self._client.set_terminated(run, _STATUSES[record.status], ended)
        self._client.set_tag(run, COMPLETE, "yes")


def tags_of(record: RunRecord) -> dict[str, str]:
    """What tells the run apart from others (name -> text)."""
    tags = {
        ID: record.run_id,
        "mlflow.runName": f"{record.strategy}-{record.dataset.name}-{record.run_id[:8]}",
        "mlflow.source.name": record.launch_command,
        "mlflow.source.git.commit": record.commit,
        "strategy": record.strategy,
        "dataset": record.dataset.name,
        "ranks": str(record.world_size),
        "hosts": ",".join(record.hosts),
        "cpu": record.machine.get("cpu_model"),
        "config_digest": record.config_digest,
        "error": record.error,
    }
    return {name: str(value)[:5000] for name, value in tags.items() if value}


def parameters_of(record: RunRecord) -> dict[str, str]:
    """The settings of the run, as a person types them (name -> text), but for those of nothing."""
    return {
        name: show(tuple(value) if isinstance(value, list) else value)[:500]
        for name, value in record.config.items()
        if value is not None
    }


def metrics_of(record: RunRecord) -> Iterator[tuple[str, float, int, int]]:
    """Yield (name, value, time in ms, step): the curves by epoch, from 1, then the results."""
    at = _milliseconds(record.started_at)
    for epoch in record.epochs:
        at += round(1000 * epoch.seconds)
        for name, value in _of_epoch(epoch).items():
            if value is not None:
                yield name, float(value), at, epoch.epoch + 1
    last = record.epochs[-1].epoch + 1 if record.epochs else 0
    results = {**record.final, "training_seconds": record.training_seconds}
    for name, value in results.items():
        if value is not None:
            yield f"final/{name}", float(value), at, last


def _of_epoch(epoch: EpochRecord) -> Mapping[str, float | None]:
    return {
        "train_loss": epoch.train_loss,
        "train_accuracy": epoch.train_accuracy,
        "valid_loss": epoch.valid_loss,
        "valid_accuracy": epoch.valid_accuracy,
        "valid_mrr": epoch.valid_mrr,
        "lr": epoch.lr,
        "epoch_seconds": epoch.seconds,
        "targets_per_second": per_second(epoch.num_targets, epoch.seconds),
        **{f"seconds/{name}": seconds for name, seconds in epoch.sections.items()},
    }


def _milliseconds(time: str) -> int:
    return round(1000 * datetime.fromisoformat(time).timestamp())


if __name__ == "__main__":
    sys.exit(main())
