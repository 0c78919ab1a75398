"""How many workers an elastic job is to have: the decision, the simulation and the command."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.deploy import autoscale
from gnn_core.deploy.__main__ import main
from gnn_core.deploy.autoscale import curve_of, patch_command, read_log, resize_seconds, runs_of
from gnn_core.deploy.scaling_policy import Curve, Policy, Standing, Terms, decide, simulated, static
from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import RunRecord, WorldRecord
from gnn_core.usage import UsageError
from tests.unit.made_records import run

# Efficiency 1, 0.8, 0.5, 0.2; eight workers are slower than four.
CURVE = Curve({1: 80.0, 2: 50.0, 4: 40.0, 8: 50.0})
TERMS = Terms(price=2.0, fewest=1, most=8, resize_seconds=10.0)
START = Standing(0, 100)


def chosen(policy: str, now: Standing = START, terms: Terms = TERMS) -> int:
    return decide(CURVE, Policy.of(policy), terms, now)


@pytest.mark.parametrize(
    ("policy", "workers"),
    [
        ("efficiency:1", 1),
        ("efficiency:0.79", 2),
        ("efficiency:0.5", 4),
        ("efficiency:0.01", 4),  # more are slower
        ("budget:1", 1),  # even one is too dear
        ("budget:4.5", 2),
        ("budget:100", 4),
    ],
)
def test_a_policy_chooses_at_the_start(policy: str, workers: int) -> None:
    assert chosen(policy) == workers


@pytest.mark.parametrize(
    ("seconds", "workers"), [(8000, 1), (7999, 2), (5000, 2), (4100, 4), (10, 4)]
)
def test_a_deadline_takes_the_cheapest_in_time_or_the_fastest(seconds: float, workers: int) -> None:
    assert chosen("deadline:1", Standing(0, 100, seconds)) == workers


def test_the_pause_of_a_change_counts_against_the_deadline() -> None:
    assert chosen("deadline:1", Standing(2, 10, 509)) == 2
    assert chosen("deadline:1", Standing(4, 10, 509)) == 3  # two would take 10 + 500
    assert chosen("deadline:1", Standing(4, 10, 511)) == 2


def test_a_change_that_does_not_pay_any_more_is_not_made() -> None:
    assert chosen("efficiency:0.79", Standing(1, 1)) == 2  # 10 + 50 < 80
    assert chosen("efficiency:0.79", Standing(1, 0.3)) == 1  # 10 + 15 > 24
    assert chosen("efficiency:1", Standing(2, 10)) == 1
    assert chosen("efficiency:1", Standing(2, 0.2)) == 2  # 10 + 16 dearer than 2 x 10
    assert chosen("budget:2", Standing(2, 0.2)) == 1  # which the budget asks for all the same


@pytest.mark.parametrize("fewest", [1, 3])
def test_no_decision_leaves_the_limits(fewest: int) -> None:
    terms = dataclasses.replace(TERMS, fewest=fewest, most=3)
    for policy in ("efficiency:1", "efficiency:0.1", "budget:1", "budget:99", "deadline:1"):
        for now in (0, 1, 3, 8):
            assert fewest <= chosen(policy, Standing(now, 50, 60), terms) <= 3


def test_limits_beyond_what_was_measured_are_refused() -> None:
    with pytest.raises(UsageError, match="expected some of the 1 to 8 workers.*got 9 to 12"):
        chosen("budget:1", START, dataclasses.replace(TERMS, fewest=9, most=12))


def test_between_two_sizes_the_curve_is_a_line_over_the_inverse() -> None:
    assert CURVE.at(3) == pytest.approx(50 - 10 * (1 / 2 - 1 / 3) / (1 / 2 - 1 / 4))
    assert Curve({2: 30.0, 4: 15.0}).at(3) == pytest.approx(20.0)  # perfect scaling stays so
    for workers in (0, 9):
        with pytest.raises(ValueError, match="expected 1 to 8 workers"):
            CURVE.at(workers)


def test_a_scaled_curve_has_the_shape_of_the_first() -> None:
    slower = CURVE.scaled(2, 100.0)
    assert slower.at(2) == 100.0 and slower.at(8) == 100.0
    assert slower.efficiency(3) == pytest.approx(CURVE.efficiency(3))


@pytest.mark.parametrize(
    "text",
    ["", "efficiency", "efficiency:0", "efficiency:1.1", "budget:-1", "deadline:inf"]
    + ["budget:nan", "price:3", "efficiency:half"],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--policy: expected efficiency:SHARE"):
        Policy.of(text)


def test_a_simulated_run_on_one_size_is_the_fixed_one() -> None:
    made, fixed = simulated(CURVE, Policy.of("budget:4"), TERMS, 10), static(CURVE, TERMS, 2, 10)
    assert made.sizes == fixed.sizes == (2,) * 10
    assert made.seconds == pytest.approx(500) and fixed.seconds == 500
    assert made.cost == pytest.approx(fixed.cost) == pytest.approx(2 * 2 * 500 / 3600)


def test_a_deadline_between_two_sizes_is_kept_with_some_of_both() -> None:
    made = simulated(CURVE, Policy.of("deadline:100"), TERMS, 100)
    few, many = static(CURVE, TERMS, 1, 100), static(CURVE, TERMS, 2, 100)
    assert many.seconds < made.seconds <= 6000 < few.seconds
    assert few.cost < made.cost < many.cost
    assert made.sizes == tuple(sorted(made.sizes, reverse=True)) and set(made.sizes) == {1, 2}
    assert made.seconds == pytest.approx(sum(map(CURVE.at, made.sizes)) + TERMS.resize_seconds)


def test_the_curve_is_that_of_runs_of_one_kind() -> None:
    runs = [run("horovod", 1, 8.0), run("horovod", 2, 4.0), run("horovod", 2, 6.0), run("ddp", 4)]
    assert curve_of(runs_of(runs, "horovod", None)).seconds == {1: 8.0, 2: 5.0}
    changed = [run("horovod", 2, 1.0, worlds=[world(None), world(9.0)])]
    assert len(runs_of(runs + changed, "horovod", "cora")) == 3
    assert resize_seconds(runs + changed) == 9.0 and resize_seconds(runs) == 15.0
    for other, what in (
        ({"config_digest": "e"}, "set of settings"),
        ({"machine": {"cpu_model": "another"}}, "kind of processor"),
    ):
        with pytest.raises(UsageError, match=f"expected runs of one {what}, got 2"):
            runs_of([*runs, run("horovod", 4, **other)], "horovod", None)
    with pytest.raises(UsageError, match="expected runs of horovod on pubmed .* got none"):
        runs_of(runs, "horovod", "pubmed")


def world(seconds: float | None) -> WorldRecord:
    return WorldRecord(epoch=1, step=0, hosts=["h"], ranks_per_host=[2], seconds_between=seconds)


LOG = """\
launched   horovodrun -np 2 python horovod_gnn/train.py
[0]<stdout>:ranks      2: 1 on a, 1 on b (horovod over gloo)
[0]<stdout>:epoch 1/9  loss 2.0000  train 0.3  valid 0.4  9.00 s (compute 8.00)  5 targets/s
[0]<stdout>:epoch 2/9  loss 1.0000  train 0.3000  5.00 s (wait 0.50, compute 3.00)  5 targets/s
"""
MORE = """\
goes on    on 3 ranks with c from epoch 3, step 2, after 8.1 s
epoch 3/9  step 1/4  loss 0.5000  3 s to go
epoch 3/9  loss 0.9000  train 0.3000  3.50 s (wait 0.50, compute 2.00)  5 targets/s
"""


def test_a_log_tells_where_the_job_stands() -> None:
    job = read_log(LOG)
    assert (job.workers, job.epochs_left, job.epoch_seconds) == (2, 7, 7.0)
    job = read_log(LOG + MORE)
    assert (job.workers, job.epochs_left, job.epoch_seconds) == (3, 6, 3.5)
    job = read_log(LOG + MORE.splitlines()[0])
    assert (job.workers, job.epochs_left, job.epoch_seconds) == (3, 7, None)
    for text in ("", "ranks      2: 2 on a (horovod over gloo)\n", MORE[:40]):
        with pytest.raises(UsageError, match="--log: expected the output of a job"):
            read_log(text)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Runs on 1, 2, 4 and 8 workers, with the seconds of CURVE."""
    folder = tmp_path / "records"
    made: list[RunRecord] = [run("horovod", size, at) for size, at in CURVE.seconds.items()]
    for one in made:
        write_record(one, folder)
    return folder


def test_the_hosts_of_a_job_are_written(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, hosts = tmp_path / "job.log", tmp_path / "hosts"
    log.write_text(LOG)
    words = ["autoscale", str(records), "--policy", "efficiency:0.5", "--log", str(log)]
    words += ["--resize-seconds", "1", "--host-file", str(hosts), "--hosts", "a", "b", "c", "d"]
    assert main([*words, "--dry-run"]) == 0
    assert not hosts.exists()
    assert main(words) == 0
    assert hosts.read_text() == "a\nb\nc\nd\n"
    assert "workers    4 (now 2): efficiency:0.5; 5.60 s an epoch" in capsys.readouterr().out
    hosts.unlink()
    assert main([*words[:3], "efficiency:0.79", *words[4:]]) == 0
    assert not hosts.exists()  # two it has already


def test_a_patch_is_what_kubectl_is_given(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    log = tmp_path / "job.log"
    log.write_text(LOG)
    words = ["autoscale", str(records), "--policy", "efficiency:0.5", "--log", str(log)]
    words += ["--resize-seconds", "1", "--apply", "mine", "--namespace", "lab"]
    made: list[list[str]] = []
    monkeypatch.setattr(autoscale, "_do", made.append)
    assert main([*words, "--dry-run"]) == 0 and made == []
    assert main(words) == 0
    (command,) = made
    assert command == patch_command("mine", "lab", 4)
    assert command[:6] == ["kubectl", "patch", "mpijob", "mine", "--namespace", "lab"]
    (change,) = json.loads(command[-1])
    assert change["path"] == "/spec/mpiReplicaSpecs/Worker/replicas" and change["value"] == 4
    assert "kubectl    kubectl patch mpijob mine" in capsys.readouterr().out


def test_a_kubectl_that_fails_or_is_not_there_is_one_line(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "job.log"
    log.write_text(LOG)
    words = ["autoscale", str(records), "--policy", "efficiency:0.5", "--log", str(log)]
    words += ["--resize-seconds", "1", "--apply", "mine"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--apply: kubectl: .*; --dry-run prints it"):
        main(words)
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho 'no such\njob' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(UsageError, match="^--apply: kubectl: no such job$"):
        main(words)


def test_a_simulation_is_printed_drawn_and_recorded(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure, file = tmp_path / "a.svg", tmp_path / "a.json"
    words = [
        "autoscale",
        str(records),
        "--simulate",
        "--epochs",
        "60",
        "--policy",
        "efficiency:0.7",
    ]
    assert main([*words, "--figure", str(figure), "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    rows = {row[0]: row[1:] for row in record["rows"]}
    assert list(rows) == ["static:1", "static:2", "static:4", "static:8", "efficiency:0.7"]
    assert rows["static:4"][2:4] == [1.0, 0.0]
    assert rows["efficiency:0.7"][2] == pytest.approx(50 / 40)
    assert rows["efficiency:0.7"][3] == pytest.approx(100 * (1 - 100 / 160))
    assert rows["efficiency:0.7"][4] == "2 x 60"
    assert all(math.isfinite(cell) for row in rows.values() for cell in row[:4])
    assert figure.read_text().startswith("<?xml")
    assert "efficiency:0.7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--policy", "budget:1", "--policy", "budget:2"], "only --simulate compares them"),
        (["--policy", "budget:1", "--json", "a"], "--json: it is of --simulate"),
        (["--policy", "budget:1", "--apply", "a"], "--log: expected what the running job"),
        (["--policy", "budget:1", "--simulate", "--apply", "a"], "--simulate: expected no --log"),
        (["--policy", "budget:1", "--min", "3", "--max", "2"], "--max: expected 3"),
        (
            [
                "--policy",
                "budget:1",
                "--log",
                "a",
                "--host-file",
                "b",
                "--hosts",
                "c",
                "--max",
                "2",
            ],
            "--hosts: expected 2 names",
        ),
        (["--policy", "budget:1", "--simulate", "--figure", "a.doc"], "expected a name in .svg"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    records: Path, flags: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        main(["autoscale", str(records), *flags])


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    show: Callable[[list[str]], int] = main
    with pytest.raises(SystemExit):
        show(["autoscale", "--help"])
    said = capsys.readouterr().out
    assert (
        "python -m gnn_core.deploy autoscale results/scaling" in said and "efficiency:SHARE" in said
    )
