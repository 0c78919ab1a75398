"""The command of the models without message passing, as a user types it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.data.graph import Graph, write_graph
from tests.e2e.small import LAUNCHING, ROOT

PROGRAM = str(ROOT / "baselines" / "cora_models.py")
Run = Callable[..., subprocess.CompletedProcess[str]]


def _refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0]


def test_help_teaches_and_loads_no_tensorflow(run_cli: Run) -> None:
    result = run_cli(["python", "-X", "importtime", PROGRAM, "--help"])
    assert result.returncode == 0
    for word in ("graph+words", "--strategy {one,mirrored,multiworker}", "mpirun -np 2", "--seeds"):
        assert word in result.stdout
    assert "tensorflow" not in result.stderr


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--model", "grahp"], ["--model: expected one of", "did you mean graph?"]),
        (["--strategy", "one", "--replicas", "2"], ["--replicas", "got 2", "--strategy mirrored"]),
        (["--seeds", "ten"], ["--seeds: expected seeds such as", "'ten'"]),
    ],
)
def test_a_mistake_on_the_command_line(run_cli: Run, words: list[str], reported: list[str]) -> None:
    result = run_cli(["python", PROGRAM, *words])
    _refused(result, *reported)
    assert len(result.stderr.splitlines()) == 1


def test_missing_files_are_reported_before_anything_else(run_cli: Run, tmp_path: Path) -> None:
    no_network = {"https_proxy": "http://127.0.0.1:9", "RINGSAGE_DATA": ""}
    result = run_cli(["python", PROGRAM, "--cache-dir", str(tmp_path)], env=no_network)
    _refused(result, "ind.cora.x: expected to download it", "--data-root")
    assert "synthetic" not in result.stderr, "these models have no such data set"
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


@pytest.mark.tf
@pytest.mark.needs_tensorflow
def test_a_data_set_that_is_not_there(run_cli: Run, tmp_path: Path) -> None:
    _refused(
        run_cli(["python", PROGRAM, "--dataset", "coraa", "--records", str(tmp_path)]),
        "unknown data set 'coraa'",
        "did you mean cora?",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.long  # what it says: tests/unit/test_cora_draws.py
@pytest.mark.tf
@pytest.mark.needs_tensorflow
def test_a_graph_without_words(run_cli: Run, tmp_path: Path) -> None:
    bare = Graph.from_arrays("bare", [0, 1, 2], [1, 0], splits=[1, 2])
    folder = write_graph(bare, tmp_path / "bare").folder
    _refused(
        run_cli(["python", PROGRAM, "--dataset", str(folder)]),
        "graph bare: expected words and classes",
        "choose --dataset cora",
    )


@pytest.mark.long
@pytest.mark.tf
@pytest.mark.needs_tensorflow
def test_copies_of_a_program_that_is_one_process(horovodrun: Run) -> None:
    result = horovodrun(2, [PROGRAM], launcher="mpirun", env=LAUNCHING)
    _refused(result, "one process, but 2 copies", "--strategy multiworker")
