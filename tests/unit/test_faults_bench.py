"""The faults bench: which faults it plans, what it reads from output, and its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from baselines import faults_bench
from baselines.fault_runs import (
    EPOCHS,
    KILL,
    MOMENTS,
    STOP,
    WAYS,
    command,
    differences,
    is_named,
    planned,
)
from baselines.faults_bench import summary
from gnn_core.usage import UsageError
from tests.unit.made_records import run


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_fault_comes_once_before_any_comes_again(way: str) -> None:
    victims = WAYS[way].victims
    count = len(MOMENTS) * (2 * len(victims) - 1)
    faults = planned(way, 2 * count, seed=3)
    for some in (faults[:count], faults[count:]):
        assert len({(one.moment, one.victim, one.signal) for one in some}) == count
    assert not any(one.victim == victims[-1] and one.signal == STOP for one in faults)
    assert all(0 < one.epoch < EPOCHS - 1 and 0 <= one.share < 1 for one in faults)
    assert planned(way, 7, seed=3) == faults[:7]
    assert planned(way, 7, seed=4) != faults[:7]


def test_faults_of_two_ways_come_in_another_order() -> None:
    first, second = (
        [(one.moment, one.signal) for one in planned(way, 30, 0)] for way in ("mpirun", "ddp")
    )
    assert first != second


@pytest.mark.parametrize(
    ("said", "victim"),
    [
        ("mpirun noticed that process rank 1 with PID 0 on node a exited on signal 9", "rank 1"),
        ("rank 0 failed: rank 1 (a, pid 7) is stopped; nothing came for 8 s", "rank 1"),
        ("failed: worker 0 (10.0.0.2:40123) answers no more", "rank 0"),
        ("[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 7)", "rank 1"),
        ("one or more processes exited\nProcess name: 1\nExit code: 137", "rank 1"),
        ("[1]<stdout>:goes on    on 1 rank from epoch 2, step 3, after 8.1 s", "rank 1"),
        ("lost       worker 1: its process has ended", "worker"),
        ("failed: server 0 (127.0.0.1:7) answers no more", "server"),
    ],
)
def test_a_rank_is_named_in_what_launchers_and_ranks_say(said: str, victim: str) -> None:
    assert is_named(said, victim)


@pytest.mark.parametrize(
    ("said", "victim"),
    [
        ("rank 1 of 2 on localhost", "rank 1"),  # which says nothing of a fault
        ("mpirun noticed that process rank 1 exited on signal 9", "rank 0"),
        ("rank 0 failed: some rank answers no more", "rank 1"),
        ("lost       worker 1: its process has ended", "server"),
        ("", "rank 0"),
    ],
)
def test_what_names_another_rank_or_none_does_not_name_it(said: str, victim: str) -> None:
    assert not is_named(said, victim)


FINAL = {"test_accuracy": 0.5, "valid_accuracy": 0.25, "best_epoch": 1}


def test_the_end_of_a_run_is_compared_with_the_end_of_the_whole() -> None:
    whole = run("single", step_losses=[3.0, 2.0, 1.0], final=FINAL)
    assert differences(run("ddp", step_losses=[2.0 + 1e-12, 1.0], final=FINAL), whole) == []
    assert differences(run("ddp", step_losses=[], final=FINAL), whole) == []
    other = {**FINAL, "test_accuracy": 0.75}
    (found,) = differences(run("ddp", step_losses=[1.0], final=other), whole)
    assert found == "test_accuracy: 0.75, without a fault 0.5"
    for losses in ([2.0], [4.0, 3.0, 2.0, 1.0], [None]):
        (found,) = differences(run("ddp", step_losses=losses, final=FINAL), whole)
        assert found.startswith("losses of steps are others")


def test_words_name_what_lies_beside_python_and_in_the_repository(tmp_path: Path) -> None:
    words = command(WAYS["elastic"].words, tmp_path)
    assert words[0] == str(Path(sys.executable).parent / "horovodrun")
    assert str(tmp_path / "hosts.sh") in words
    assert words[-2] == sys.executable
    assert Path(words[-1]).is_file()


def row(**more: Any) -> dict[str, Any]:
    made = {"way": "ddp", "number": 0, "moment": "training", "victim": "rank 1", "signal": KILL}
    made |= {"was_hit": True, "problems": [], "seconds": 2.5, "ended": True, "left": []}
    return {**made, "named": True, "exit_code": 1, "resumed": True, "redone": 2, **more}


def test_a_row_of_the_table_counts_what_did_not_do_as_it_should() -> None:
    rows = [
        row(),
        row(seconds=40.0, was_hit=False, named=False),
        row(ended=False, seconds=60.0, left=["python"], problems=["not ended 60 s after the hit"]),
        row(problems=["losses of steps are others than without a fault"], named=False),
    ]
    expected = ["ddp", "SIGKILL rank 1", 4, 3, "3/4", 2.5, "2/3", "3/4", 2, 1]
    assert summary("ddp", "SIGKILL rank 1", rows) == expected
    assert summary("ddp", "SIGKILL rank 1", [row(moment="end", named=False)])[6] is None
    launcher = [row(victim="launcher")]
    del launcher[0]["named"]
    assert summary("ddp", "SIGKILL launcher", launcher)[6] is None


def test_runs_of_a_record_are_kept_and_others_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "faults.json"
    made: list[tuple[str, int]] = []

    class Run:
        def __init__(self, way: str, *rest: Any):
            made.append((way, len(made)))
            rest[1].mkdir()

        def row(self) -> dict[str, Any]:
            return {key: value for key, value in row().items() if key not in ("way", "number")}

    monkeypatch.setattr(faults_bench, "FaultRun", Run)
    monkeypatch.setattr(faults_bench, "run_training", lambda *words: run("single"))
    words = ["--only", "ddp", "mpirun", "--json", str(file)]
    assert faults_bench.main([*words, "--runs", "1"]) == 0
    assert faults_bench.main([*words, "--runs", "3"]) == 0
    assert [way for way, _ in made] == ["ddp", "mpirun"] * 3
    record = json.loads(file.read_text())
    assert [(one["way"], one["number"]) for one in record["runs"]] == [
        (way, number) for number in range(3) for way in ("ddp", "mpirun")
    ]
    assert [line[:3] for line in record["rows"]] == [
        ["mpirun", "SIGKILL rank 1", 3],
        ["ddp", "SIGKILL rank 1", 3],
    ]
    with pytest.raises(UsageError, match="expected runs of the settings"):
        faults_bench.main([*words, "--seed", "1"])
    file.write_text("{}")
    with pytest.raises(UsageError, match="expected a record of this program"):
        faults_bench.main(words)
    assert "same end" in capsys.readouterr().out
