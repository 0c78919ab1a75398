"""Put run records into a database of SQL: one row a run, one an epoch, one a setting.

    python -m gnn_core.report.database results/ --to sqlite:///records.db
    python -m gnn_core.report.database results/ --to postgresql+psycopg://user@host/records
    python -m gnn_core.report.database --to sqlite:///records.db           # the table alone
    sqlite3 records.db "SELECT dataset, ranks, test_accuracy FROM runs WHERE strategy = 'horovod'"

Each record is imported once, however often this is called, and all of a call or nothing. The view
`speed` has the runs that ended well by what was trained, how, and on which processor; it is
printed. The column `record` has all of a run as JSON. Needs the package SQLAlchemy (extra `sql`)
and, but for SQLite, the driver of the database.

Exit code 0, 2 for a mistake reported in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure.run_record import RunRecord, epoch_seconds
from gnn_core.number_text import NOTHING, counted, three_digits
from gnn_core.packages import require
from gnn_core.report.rows import targets_per_second, task_of
from gnn_core.report.track import parameters_of, require_uri, told_of, usable_records
from gnn_core.usage import Parser

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_RUNS: Mapping[str, str] = {
    "run_id": "key",
    "started_at": "text",
    "finished_at": "text",
    "status": "text",
    "error": "text",
    "strategy": "text",
    "dataset": "text",
    "task": "text",
    "ranks": "integer",
    "hosts": "integer",
    "controller": "text",
    "number_format": "text",  # of --precision, a word of SQL
    "seed": "integer",
    "same_curve": "boolean",
    "config_digest": "text",
    "cpu": "text",
    "cores": "integer",
    "source_commit": "text",
    "epochs": "integer",
    "epoch_seconds": "number",
    "targets_per_second": "number",
    "training_seconds": "number",
    "test_accuracy": "number",
    "test_mrr": "number",
    "record": "text",
}
_EPOCHS: Mapping[str, str] = {
    "run_id": "key",
    "epoch": "number key",
    "warm_up": "boolean",
    "seconds": "number",
    "num_targets": "integer",
    "lr": "number",
    "train_loss": "number",
    "train_accuracy": "number",
    "valid_loss": "number",
    "valid_accuracy": "number",
    "valid_mrr": "number",
}
_SETTINGS: Mapping[str, str] = {"run_id": "key", "name": "key", "value": "text"}
_SPEED = """
CREATE VIEW speed AS
SELECT dataset, task, strategy, ranks, hosts, number_format, cpu, count(*) AS runs,
  avg(epoch_seconds) AS epoch_seconds, avg(targets_per_second) AS targets_per_second,
  avg(coalesce(test_accuracy, test_mrr)) AS test_score
FROM runs WHERE status = 'ok'
GROUP BY dataset, task, strategy, ranks, hosts, number_format, cpu
"""
_AT_ONCE = 500  # records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process); return its exit code."""
    return guarded(lambda: _import(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.report.database")
    parser.add_argument(
        "paths",
        nargs="*",
        type=path_argument,
        metavar="RECORDS",
        help="folders and files of run records (default: none; what is there is shown)",
    )
    parser.add_argument(
        "--to", required=True, metavar="URI", help="database, as SQLAlchemy names it"
    )
    return parser.parse_args(arguments)


def _import(options: argparse.Namespace) -> int:
    require_uri(options.to, "sqlite:///records.db or postgresql+psycopg://user@host/records")
    records = usable_records(options.paths) if options.paths else []
    require("sqlalchemy", "pandas")
    import sqlalchemy

    with told_of(options.to):
        engine = sqlalchemy.create_engine(options.to)
        with engine.begin() as connection:  # one transaction
            num_new = add(connection, records)
            print(speed_table(connection))
        engine.dispose()
    print(f"{counted(num_new, 'run')} imported, {len(records) - num_new} there already")
    return 0


def add(connection: Connection, records: Sequence[RunRecord]) -> int:
    """Import the records that are not there, and make tables and view where they are not."""
    from sqlalchemy import inspect, select, text

    schema = _schema()
    schema.create_all(connection)
    if "speed" not in inspect(connection).get_view_names():
        connection.execute(text(_SPEED))
    runs = schema.tables["runs"]
    there = set(connection.execute(select(runs.c.run_id)).scalars())
    left = list({one.run_id: one for one in records if one.run_id not in there}.values())
    rows = {"runs": _of_run, "epochs": _of_epochs, "settings": _of_settings}
    for first in range(0, len(left), _AT_ONCE):
        some = left[first : first + _AT_ONCE]
        for name, rows_of in rows.items():
            if found := [row for record in some for row in rows_of(record)]:
                connection.execute(schema.tables[name].insert(), found)
    return len(left)


def speed_table(connection: Connection) -> str:
    """The view `speed` as text."""
    import pandas as pd
    from sqlalchemy import text

    order = "SELECT * FROM speed ORDER BY dataset, task, strategy, ranks"
    found = pd.read_sql(text(order), connection)
    told: str = found.to_string(index=False, float_format=three_digits, na_rep=NOTHING)
    return told


def _schema() -> MetaData:
    from sqlalchemy import BigInteger, Boolean, Column, Float, MetaData, String, Table, Text
    from sqlalchemy.dialects.mysql import LONGTEXT

    long = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
    kinds: dict[str, Any] = {"text": long, "integer": BigInteger, "number": Float}
    kinds["boolean"] = Boolean
    keys = {"key": String(100), "number key": BigInteger}
    schema = MetaData()
    for name, columns in (("runs", _RUNS), ("epochs", _EPOCHS), ("settings", _SETTINGS)):
        Table(
            name,
            schema,
            *(
                Column(column, {**kinds, **keys}[kind], primary_key=kind in keys)
                for column, kind in columns.items()
            ),
        )
    return schema


def _of_run(record: RunRecord) -> Iterator[dict[str, Any]]:
    yield {
        "run_id": record.run_id,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "status": record.status,
        "error": record.error,
        "strategy": record.strategy,
        "dataset": record.dataset.name,
        "task": task_of(record.config),
        "ranks": record.world_size,
        "hosts": len(record.hosts),
        "controller": record.controller,
        "number_format": record.config.get("precision"),
        "seed": record.config.get("seed"),
        "same_curve": record.same_curve,
        "config_digest": record.config_digest,
        "cpu": record.machine.get("cpu_model"),
        "cores": record.machine.get("cores_available"),
        "source_commit": record.commit,
        "epochs": len(record.epochs),
        "epoch_seconds": epoch_seconds(record),
        "targets_per_second": targets_per_second(record),
        "training_seconds": record.training_seconds,
        "test_accuracy": record.final.get("test_accuracy"),
        "test_mrr": record.final.get("test_mrr"),
        "record": json.dumps(asdict(record)),
    }


def _of_epochs(record: RunRecord) -> Iterator[dict[str, Any]]:
    for epoch in record.epochs:
        yield {"run_id": record.run_id, **{k: getattr(epoch, k) for k in _EPOCHS if k != "run_id"}}


def _of_settings(record: RunRecord) -> Iterator[dict[str, Any]]:
    for name, value in parameters_of(record).items():
        yield {"run_id": record.run_id, "name": name, "value": value}


if __name__ == "__main__":
    sys.exit(main())
