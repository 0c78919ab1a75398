"""Two replicas learn what one learns, step for step, in one process and in two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.data.graph import Graph, write_graph
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord

pytestmark = [pytest.mark.tf, pytest.mark.needs_tensorflow]
PROGRAM = str(Path(__file__).resolve().parents[2] / "baselines" / "cora_models.py")
SETTINGS = [
    *("--model", "graph+words", "--width", "8", "--hidden-units", "16", "--negatives", "32"),
    *("--pretrain-batch", "50", "--pretrain-epochs", "4", "--epochs", "4"),
]


@pytest.fixture(scope="module")
def folder(tiny_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parity") / "graph"
    write_graph(tiny_graph, place)
    return place


def _record(run: Callable[..., object], place: Path, folder: Path, *words: str) -> RunRecord:
    command = [*words[:1], PROGRAM, *SETTINGS, "--dataset", str(folder), *words[1:]]
    result = run([*command, "--records", str(place)])
    assert result.returncode == 0, result.stderr  # type: ignore[attr-defined]
    (record,), problems = read_records(place)
    assert not problems
    return record


def _same(several: RunRecord, one: RunRecord) -> None:
    assert several.config_digest == one.config_digest
    # The classifier's losses continue pre-training: were that another, so would they be.
    assert several.step_losses == pytest.approx(one.step_losses, rel=1e-4)
    assert several.final["test_loss"] == pytest.approx(one.final["test_loss"], rel=1e-3)


@pytest.fixture(scope="module")
def one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    from tests.conftest import _run

    return _record(_run, tmp_path_factory.mktemp("one"), folder, "python")


def test_two_mirrored_replicas(
    run_cli: Callable[..., object], one: RunRecord, folder: Path, tmp_path: Path
) -> None:
    several = _record(
        run_cli, tmp_path, folder, "python", "--strategy", "mirrored", "--replicas", "2"
    )
    assert (several.strategy, several.world_size) == ("mirrored", 2)
    _same(several, one)


def test_two_workers(
    horovodrun: Callable[..., object], one: RunRecord, folder: Path, tmp_path: Path
) -> None:
    def launch(words: list[str]) -> object:
        return horovodrun(2, words[1:], launcher="mpirun")

    several = _record(launch, tmp_path, folder, "python", "--strategy", "multiworker")
    assert (several.strategy, several.world_size) == ("multiworker", 2)
    _same(several, one)
