"""Sweeps of real short runs: the records of a plan, an interruption, and a run that fails."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from gnn_core.measure.records import read_records
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, ROOT, Place

SWEEP = ["-m", "gnn_core.sweep"]


def written(place: Place, *lines: str) -> str:
    """A plan small enough for a test, and its path."""
    flags = f"cache_dir: {place.cache}, device: cpu, hidden: 16, fanouts: [5, 5], "
    flags += "global_batch_size: 128"
    text = [f"records: {place.records}", "epochs: 2", f"flags: {{{flags}}}", *lines]
    file = place.folder / "plan.yaml"
    file.write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(file)


@pytest.mark.needs_torch
@pytest.mark.needs_horovod
def test_a_plan_is_run_once_and_not_again(run_cli: Callable, place: Place) -> None:
    plan = written(
        place,
        f"datasets: ['{DATASET}']",
        "strategies: [horovod, single]",
        "ranks: [2]",
        "repeats: 1",
    )
    done = run_cli(["python", *SWEEP, plan], timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "2 contenders x 1 data set x 1 seed x 1 repeat, records in " in lines[0]
    shape = r"^\[(\d)/2\] synthetic\S+ +(\w+) x(\d) +seed 0  repeat 1   [\d.]+ s/epoch   took "
    reported = re.findall(shape, done.stdout, re.M)
    assert [who for _, who, _ in reported] == ["single", "horovod"]
    assert [" left" in line for line in lines[1:3]] == [True, False]
    assert lines[-1] == f"python -m gnn_core.report.analysis {place.records}"
    records, problems = read_records(place.records)
    assert problems == [] and [record.status for record in records] == ["ok"] * 2
    assert [(one.strategy, one.world_size) for one in records] == [("single", 1), ("horovod", 2)]
    for record in records:
        assert "others_running" in record.machine and "cpu_mhz" in record.machine
        assert [epoch.valid_accuracy is None for epoch in record.epochs] == [True, False]
    assert not list(place.records.rglob("*.log"))

    again = run_cli(["python", *SWEEP, plan])
    assert (again.returncode, again.stderr) == (0, "")
    assert "; 2 of 2 runs are there already" in again.stdout.splitlines()[0]
    assert not re.search(r"^\[", again.stdout, re.M)
    assert len(read_records(place.records)[0]) == 2


@pytest.mark.needs_torch
def test_turns_are_done_beside_each_other(run_cli: Callable, place: Place) -> None:
    """As tasks of an array do them; a task that comes twice finds its lock taken, or its record."""
    plan = written(place, f"datasets: ['{DATASET}']", "strategies: [single]", "repeats: 3")
    with contextlib.ExitStack() as stack:
        commands = [["python", *SWEEP, plan, "--turn", turn] for turn in ("2", "3")]
        tasks = [stack.enter_context(job(command, place.folder)) for command in commands]
        assert [task.end(120) for task in tasks] == [0, 0], [task.out for task in tasks]
    records, problems = read_records(place.records)
    assert problems == [] and [record.status for record in records] == ["ok"] * 2
    again = run_cli(["python", *SWEEP, plan, "--turn", "2"])
    assert again.returncode == 0 and len(read_records(place.records)[0]) == 2
    rest = run_cli(["python", *SWEEP, plan, "--dry-run"])
    turns = [line for line in rest.stdout.splitlines() if line.startswith("[")]
    assert [line.endswith("  ok, there already") for line in turns] == [False, True, True]


@pytest.mark.needs_torch
def test_a_run_that_fails_is_recorded_and_a_stopped_sweep_is_gone_on_with(
    run_cli: Callable, place: Place
) -> None:
    """A learning rate at which the loss is no number before long, and SIGTERM in the other run."""
    diverging = f"{{name: '{DATASET}', lr: 1e30, optimizer: sgd}}"
    plan = written(
        place, f"datasets: [{diverging}, '{DATASET}']", "strategies: [single]", "repeats: 1"
    )
    with job(["python", *SWEEP, plan], place.folder) as sweep:
        sweep.wait_until(lambda: "\n[1/2]" in sweep.out and sweep.out.endswith("\n"))
        sweep.wait_until(lambda: bool(psutil.Process(sweep.pid).children()))
        before = sweep.out
        os.kill(sweep.pid, signal.SIGTERM)
        assert sweep.end() == 130  # and nothing that it started is left
        assert sweep.err == ""
        stopped = f"stopped; go on with: python -m gnn_core.sweep {plan}\n"
        assert sweep.out == before + stopped
    (line,) = [line for line in before.splitlines() if line.startswith("[")]
    assert re.search(r"   failed: .+; see \S+run\.log   took ", line)

    done = run_cli(["python", *SWEEP, plan], timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert "; 1 of 2 runs are there already" in lines[0]
    assert lines[1].startswith("[2/2]") and " s/epoch " in lines[1]
    assert lines[2].startswith("1 of 2 runs did not end well")
    (failed, good), problems = read_records(place.records)
    assert [failed.status, good.status, problems] == ["failed", "ok", []] and failed.error
    (log,) = place.records.rglob("*.log")
    assert log.stat().st_size > 0 and str(log) in line

    skipped = run_cli(["python", *SWEEP, plan])
    assert skipped.returncode == 1 and "2 of 2 runs are there already" in skipped.stdout
    retried = run_cli(["python", *SWEEP, plan, "--retry-failed"], timeout=120)
    assert retried.returncode == 1 and "1 of 2 runs are there already" in retried.stdout
    assert [one.status for one in read_records(place.records)[0]] == ["failed", "ok", "failed"]


def test_a_dry_run_prints_commands_and_writes_nothing(run_cli: Callable, place: Place) -> None:
    plan = written(place, "strategies: [single, mirrored]", "repeats: 1")
    done = run_cli(["python", *SWEEP, plan, "--dry-run"])
    assert (done.returncode, done.stderr) == (0, "")
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert [command.partition(" --dataset")[0] for command in commands] == [
        "python baselines/single.py",
        "python tf_mirrored/train.py --strategy mirrored --replicas 1",
        "python tf_mirrored/train.py --strategy mirrored --replicas 2",
    ]
    assert all("--dataset synthetic --epochs 2 --threads 1 --seed 0" in one for one in commands)
    assert not place.records.exists()


@pytest.mark.parametrize(
    ("lines", "options", "named"),
    [
        (["repeats: 0", "strategies: [horovd]"], [], "did you mean horovod?; repeats: expected"),
        (["datasets: [nonsense]"], [], "unknown data set 'nonsense'"),
        ([], ["--retry"], "--retry"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    run_cli: Callable, place: Place, lines: list[str], options: list[str], named: str
) -> None:
    done = run_cli(["python", *SWEEP, written(place, *lines), *options])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and named in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(place.records.rglob("*.jsonl"))


def test_a_folder_that_cannot_be_written_is_reported_before_any_run(
    run_cli: Callable, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("records: /dev/null/x\nstrategies: [single]\n")
    done = run_cli(["python", *SWEEP, str(file)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {file}: records: expected a folder that files can be written to, but /dev/null/x: "
        "Not a directory; --records gives another one\n"
    )


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    plan = str(ROOT / "results" / "plans" / "short.yaml")
    sweep = subprocess.Popen(
        [sys.executable, *SWEEP, plan, "--dry-run", "--records", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert sweep.stdout is not None and sweep.stderr is not None
    assert b"[ 1/30]" in sweep.stdout.readline()
    sweep.stdout.close()
    assert (sweep.wait(60), sweep.stderr.read()) == (141, b"")
    sweep.stderr.close()


def test_a_second_sweep_of_a_plan_is_refused(run_cli: Callable, place: Place) -> None:
    place.records.mkdir()
    plan = written(place, f"datasets: ['{DATASET}']", "strategies: [single]", "repeats: 1")
    with FileLock(place.records / ".sweep.lock"):
        done = run_cli(["python", *SWEEP, plan])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "another sweep writes to " in done.stderr
