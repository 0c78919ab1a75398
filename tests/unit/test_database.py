"""Records in databases of SQL: all of them, each once, in SQLite and in a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sqlalchemy = pytest.importorskip("sqlalchemy")

from gnn_core.measure.records import write_record  # noqa: E402
from gnn_core.report import database  # noqa: E402
from gnn_core.usage import UsageError  # noqa: E402
from tests.patience import patient  # noqa: E402
from tests.unit.made_records import run  # noqa: E402

SERVER = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/records.db"


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A server of its own, which listens at a socket in its folder alone."""
    if not SERVER or os.geteuid() != 0:
        pytest.skip("needs the package postgresql, and root to start it as the user postgres")
    folder = Path(tempfile.mkdtemp(prefix="ringsage-postgresql-"))
    shutil.chown(folder, "postgres")

    def call(program: str, *words: str) -> None:
        subprocess.run(
            [str(SERVER[-1] / program), "-D", str(folder / "data"), *words],
            check=True,
            user="postgres",
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=patient(60),
        )

    try:
        call("initdb", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        call("pg_ctl", "start", "--wait", "-o", f"-k {folder} -h '' -F", "-l", str(folder / "log"))
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


def call(*words: object) -> int:
    return database._import(database._parse([str(word) for word in words]))


def asked(uri: str, query: str) -> list[tuple[Any, ...]]:
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
    engine.dispose()
    return rows


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_each_record_is_imported_once(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, records = request.getfixturevalue(kind), tmp_path / "records"
    good = run("horovod", 2, seconds=8.0, accuracy=0.75, config={"fanouts": [15, 10], "seed": 3})
    odd = run("ddp", 2, status="failed", error="a \x00 of \udce9 \x1b[31m 日本")
    write_record(good, records)
    assert call(records, "--to", uri) == 0
    write_record(odd, records)
    assert call(records, "--to", uri) == 0
    assert call(records, records, "--to", uri) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert [line for line in said.splitlines() if "imported" in line] == [
        "1 run imported, 0 there already",
        "1 run imported, 1 there already",
        "0 runs imported, 2 there already",
    ]
    columns = "run_id, strategy, ranks, seed, test_accuracy, epoch_seconds, targets_per_second"
    assert asked(uri, f"SELECT {columns} FROM runs WHERE status = 'ok'") == [
        (good.run_id, "horovod", 2, 3, 0.75, 8.0, good.epochs[1].num_targets / 8.0)
    ]
    ((error, whole),) = asked(uri, "SELECT error, record FROM runs WHERE status = 'failed'")
    assert error == r"a \x00 of \udce9 \x1b[31m 日本" and json.loads(whole)["run_id"] == odd.run_id
    curve = f"SELECT epoch, seconds, train_loss FROM epochs WHERE run_id = '{good.run_id}'"
    assert sorted(asked(uri, curve)) == [(e.epoch, e.seconds, e.train_loss) for e in good.epochs]
    setting = "SELECT value FROM settings WHERE name = 'fanouts' AND run_id = "
    assert asked(uri, f"{setting}'{good.run_id}'") == [("15,10",)]


def test_the_view_is_over_runs_that_ended_well(
    sqlite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seconds, accuracy in ((4.0, 0.7), (8.0, 0.8)):
        write_record(run("horovod", 2, seconds, accuracy), tmp_path / "records")
    write_record(run("horovod", 2, status="failed", error="lost"), tmp_path / "records")
    assert call(tmp_path / "records", "--to", sqlite) == 0
    capsys.readouterr()
    assert call("--to", sqlite) == 0
    heading, line, last = capsys.readouterr().out.splitlines()
    told = dict(zip(heading.split(), line.replace("Test CPU", "Test-CPU").split(), strict=True))
    assert (told["strategy"], told["ranks"], told["runs"]) == ("horovod", "2", "2")
    assert (told["epoch_seconds"], told["test_score"]) == ("6.00", "0.75")
    assert last == "0 runs imported, 0 there already"


def test_an_import_that_fails_leaves_nothing(
    sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [run() for _ in range(5)]
    for record in records:
        write_record(record, tmp_path / "records")
    with monkeypatch.context() as patched:
        patched.setattr(database, "_AT_ONCE", 2)
        of_run = database._of_run

        def fails(record: Any) -> Any:
            if record.run_id == records[4].run_id:
                raise OSError("the disk is full")
            return of_run(record)

        patched.setattr(database, "_of_run", fails)
        with pytest.raises(UsageError, match="the disk is full"):
            call(tmp_path / "records", "--to", sqlite)
    assert call(tmp_path / "records", "--to", sqlite) == 0
    assert asked(sqlite, "SELECT count(*) FROM runs") == [(5,)]


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    write_record(run(), tmp_path / "records")
    (tmp_path / "none").touch()  # where a folder would have to be
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    for uri, shown in (
        (f"sqlite:///{tmp_path}/none/records.db", "/none/records.db"),
        (f"postgresql+psycopg://me:secret@127.0.0.1:{port}/x", "//***@127.0.0.1"),
        ("nosuch://here", "nosuch://here"),
    ):
        with pytest.raises(UsageError) as caught:
            call(tmp_path / "records", "--to", uri)
        message = str(caught.value)
        assert message.startswith("--to ") and shown in message and "cannot be used" in message
        assert "secret" not in message and "\n" not in message


def test_what_is_no_uri_and_a_folder_without_records_are_refused(
    sqlite: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="expected a URI such as sqlite"):
        call("--to", "records.db")
    with pytest.raises(UsageError, match="expected run records in"):
        call(tmp_path / "empty", "--to", sqlite)
