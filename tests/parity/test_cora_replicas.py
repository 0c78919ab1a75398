"""Two replicas learn what one learns, step for step, in one process and in two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gnn_core.data.graph import Graph, write_graph
from gnn_core.measure.records import read_records
from gnn_core.measure.run_record import RunRecord
from tests.e2e.keras_runs import runs, two_workers
from tests.patience import patient

pytestmark = [pytest.mark.tf, pytest.mark.needs_tensorflow]
PROGRAM = "baselines.cora_models"
SETTINGS = [
    *("--model", "graph+words", "--width", "8", "--hidden-units", "16", "--negatives", "32"),
    *("--pretrain-batch", "50", "--pretrain-epochs", "4", "--epochs", "4"),
]


@pytest.fixture(scope="module")
def folder(tiny_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parity") / "graph"
    write_graph(tiny_graph, place)
    return place


def _record(
    place: Path, folder: Path, *words: str, environments: Sequence[dict[str, str]] = ({},)
) -> RunRecord:
    """The record of a run, of a process for each environment."""
    words = (*SETTINGS, "--dataset", str(folder), *words, "--records", str(place))
    started = [runs().start(words, program=PROGRAM, **env) for env in environments]
    for end in [run.end(patient(60)) for run in started]:
        assert end.code == 0, end.err
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
    return _record(tmp_path_factory.mktemp("one"), folder)


def test_two_mirrored_replicas(one: RunRecord, folder: Path, tmp_path: Path) -> None:
    several = _record(tmp_path, folder, "--strategy", "mirrored", "--replicas", "2")
    assert (several.strategy, several.world_size) == ("mirrored", 2)
    _same(several, one)


def test_two_workers(one: RunRecord, folder: Path, tmp_path: Path) -> None:
    words = ("--strategy", "multiworker")
    several = _record(tmp_path, folder, *words, environments=two_workers())
    assert (several.strategy, several.world_size) == ("multiworker", 2)
    _same(several, one)
