"""Records in MLflow: all of them, each once, with curves, settings and results."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.report import track
from gnn_core.report.track import COMPLETE, ID, metrics_of, parameters_of, tags_of
from gnn_core.usage import UsageError
from tests.unit.made_records import run

NEEDS_MLFLOW = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="needs mlflow: pip install mlflow==3.17.2"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps artifacts below the working folder."""
    monkeypatch.chdir(tmp_path)


def call(*words: str) -> int:
    return track._import(track._parse(words))


def runs_of(database: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("ringsage")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_curves_have_the_steps_and_times_of_epochs() -> None:
    record = run("horovod", 2, seconds=8.0)
    found = list(metrics_of(record))
    losses = [(step, at) for name, _, at, step in found if name == "train_loss"]
    assert [step for step, _ in losses] == [1, 2, 3]
    assert losses[2][1] - losses[1][1] == 8000
    assert [value for name, value, _, _ in found if name == "final/test_accuracy"] == [0.8]
    assert {step for name, _, _, step in found if name.startswith("final/")} == {3}
    assert not [one for one in found if one[1] is None]


def test_settings_are_as_a_person_types_them() -> None:
    record = run(config={"fanouts": [15, 10], "residual": True, "lr": 0.01, "data_root": None})
    told = parameters_of(record)
    assert (told["fanouts"], told["residual"], told["lr"]) == ("15,10", "on", "0.01")
    assert "data_root" not in told
    assert tags_of(record)[ID] == record.run_id and "error" not in tags_of(record)


@NEEDS_MLFLOW
def test_each_run_is_imported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = run("horovod", 2), run("ddp", 2, status="failed", error="a rank was lost")
    write_record(good, tmp_path / "records")
    database = f"sqlite:///{tmp_path}/mlflow.db"
    assert call("records", "--to", database) == 0
    write_record(bad, tmp_path / "records")
    assert call("records", "--to", database) == 0
    assert call("records", "--to", database) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "1 run imported, 0 there already",
        "1 run imported, 1 there already",
        "0 runs imported, 2 there already",
    ]
    found = {one.data.tags[ID]: one for one in runs_of(database)}
    assert found.keys() == {good.run_id, bad.run_id}
    mine = found[good.run_id]
    assert (mine.info.status, found[bad.run_id].info.status) == ("FINISHED", "FAILED")
    assert found[bad.run_id].data.tags["error"] == "a rank was lost"
    assert mine.data.params["dataset"] == "cora" and mine.data.params["lr"]
    assert mine.data.metrics["final/test_accuracy"] == 0.8
    assert mine.info.end_time > mine.info.start_time
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database)
    curve = client.get_metric_history(mine.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in curve] == [
        (epoch.epoch + 1, epoch.train_loss) for epoch in good.epochs
    ]
    kept = Path(client.download_artifacts(mine.info.run_id, "record.json", str(tmp_path)))
    assert json.loads(kept.read_text())["run_id"] == good.run_id


@NEEDS_MLFLOW
def test_an_import_that_was_ended_in_the_middle_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    record = run()
    write_record(record, tmp_path / "records")
    database = f"sqlite:///{tmp_path}/mlflow.db"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowClient, "set_terminated", killed)
        call("records", "--to", database)
    assert COMPLETE not in runs_of(database)[0].data.tags
    assert call("records", "--to", database) == 0
    (only,) = runs_of(database)
    assert only.data.tags[COMPLETE] == "yes" and only.info.status == "FINISHED"


@NEEDS_MLFLOW
def test_a_database_or_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    write_record(dataclasses.replace(run()), tmp_path / "records")
    (tmp_path / "none").touch()  # where a folder would have to be
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    for uri, shown in (
        (f"sqlite:///{tmp_path}/none/mlflow.db", "/none/mlflow.db"),
        (f"http://me:secret@127.0.0.1:{port}", "http://***@127.0.0.1"),
        ("nosuch://here", "nosuch://here"),
    ):
        with pytest.raises(UsageError) as caught:
            call("records", "--to", uri)
        message = str(caught.value)
        assert message.startswith("--to ") and shown in message and "cannot be used" in message
        assert "secret" not in message and "\n" not in message


def test_what_is_no_uri_and_a_folder_without_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="expected a URI such as sqlite"):
        call("empty", "--to", "mlflow.db")
    with pytest.raises(UsageError, match="expected run records in empty, found none"):
        call("empty", "--to", "sqlite:///mlflow.db")
