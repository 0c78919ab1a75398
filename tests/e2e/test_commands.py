"""The commands that a user types, and what comes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.measure.run_record import RunRecord
from tests.e2e.small import (
    LAUNCHERS,
    LAUNCHING,
    SINGLE,
    TRAIN,
    Place,
    assert_same_curve,
    plain_json,
)

pytestmark = pytest.mark.needs_torch
EPOCH = re.compile(r"^epoch (\d)/2  loss \d\.\d{4}  train \d\.\d{4}  valid \d\.\d{4}  ")
FP64 = 1e-10


@pytest.fixture
def reference(whole: Callable) -> RunRecord:
    """The same run in this process: what every launch must come to."""
    return whole()


def assert_told_in_plain_lines(text: str, *, curves: bool = False) -> list[str]:
    """Each line once, none of them overwritten or coloured; the lines, without launcher's tags."""
    lines = [re.sub(r"^\[1,\d+\]<stdout>:", "", line) for line in text.splitlines()]
    assert "\r" not in text
    assert "\x1b" not in text
    assert [match[1] for line in lines if (match := EPOCH.match(line))] == ["1", "2"]
    words = [line.split(" ")[0] for line in lines]
    assert words == ["launched", "ranks", "graph", "model", "batches", *words[5:]]
    last = ["best", "curves", "record"] if curves else ["best", "record"]
    assert [word for word in words[5:] if word != "note"] == ["epoch", "epoch", *last]
    return lines


def test_one_process(run_cli: Callable, place: Place, reference: RunRecord) -> None:
    done = run_cli(["python", SINGLE, *place.flags()])
    assert (done.returncode, done.stderr) == (0, "")
    lines = assert_told_in_plain_lines(done.stdout)
    assert "ranks      1: 1 on" in lines[1]
    (path,) = place.records.iterdir()
    assert str(path) in lines[-1]
    record = plain_json(path)
    assert (record["status"], record["strategy"], record["world_size"]) == ("ok", "single", 1)
    assert len(record["epochs"]) == 2
    assert_same_curve([place.record()], reference, FP64)


@pytest.mark.parametrize(
    ("flags", "words"), [({"progress": "off"}, ["best", "note", "record"]), ({"quiet": True}, [])]
)
def test_a_run_that_says_little_writes_its_record(
    single: Callable, place: Place, flags: dict[str, str | bool], words: list[str]
) -> None:
    done = single(place.flags(**flags))
    assert (done.code, done.err) == (0, "")
    assert [line.split(" ")[0] for line in done.out.splitlines()] == words
    assert place.record().status == "ok"


def test_a_quiet_run_that_fails_says_so(single: Callable, place: Place) -> None:
    done = single(place.flags(lr=1e30, precision="fp32", quiet=True))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("failed: ") and str(place.records) in done.err


def test_a_run_imports_nothing_slow_that_it_does_not_need(run_cli: Callable, place: Place) -> None:
    """Each of these would cost every rank 0.3 to 3 seconds of CPU time before its first step."""
    done = run_cli(["python", "-X", "importtime", SINGLE, *place.flags()], timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"torch._dynamo", "tensorflow", "pandas", "matplotlib", "tensorboardX"}


@pytest.mark.needs_horovod
def test_horovodrun_from_another_folder(
    horovodrun: Callable, place: Place, reference: RunRecord
) -> None:
    folder = place.folder / "elsewhere"
    folder.mkdir()
    words = place.flags(records="here", assign="locality")
    done = horovodrun(2, [TRAIN, *words], cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = assert_told_in_plain_lines(done.stdout)
    assert lines[0].startswith("launched   horovodrun -np 2 ")
    assert "ranks      2: 2 on" in lines[1]
    there = Place(folder, place.cache)
    (there.folder / "here").rename(there.records)
    record = there.record()
    assert (record.strategy, record.world_size, record.controller) == ("horovod", 2, "mpi")
    assert len(record.memory) == 2
    assert record.assigned_by == "locality"
    assert_same_curve([record], reference, FP64)


@pytest.mark.needs_horovod
def test_mpirun_of_the_module_with_curves_and_a_file(
    horovodrun: Callable, place: Place, reference: RunRecord
) -> None:
    file = place.folder / "run.yaml"
    file.write_text("epochs: 7\nhidden: 16  # a flag beats it, and it beats the recipe\n")
    curves = place.folder / "curves"
    flags = place.flags(hidden=None, config=file, tensorboard=curves)
    done = horovodrun(2, ["-m", "horovod_gnn.train", *flags], launcher="mpirun")
    assert (done.returncode, done.stderr) == (0, "")
    lines = assert_told_in_plain_lines(done.stdout, curves=True)
    assert lines[0].startswith("launched   mpirun ")
    assert lines[-2].startswith(f"curves     tensorboard --logdir {curves} (of this run: ")
    assert f"{curves}/horovod-" in lines[-2]
    record = place.record()
    assert (record.config["epochs"], record.config["hidden"]) == (2, 16)
    assert_same_curve([record], reference, FP64)
    (events,) = curves.glob("*/events*")  # one file: rank 0's
    content = events.read_bytes()
    for name in (b"loss/train", b"loss/valid", b"accuracy/valid", b"seconds/epoch"):
        assert name in content


@pytest.mark.needs_horovod
def test_one_rank_by_hand(run_cli: Callable, place: Place, reference: RunRecord) -> None:
    done = run_cli(["python", TRAIN, *place.flags()], env=LAUNCHING)
    assert done.returncode == 0, done.stderr
    assert "one rank only: `horovodrun -np 4" in done.stdout
    assert_same_curve([place.record()], reference, FP64)


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(
    single: Callable, place: Place
) -> None:
    done = single(place.saving(dry_run=True, tensorboard=place.folder / "curves"))
    assert (done.code, done.err) == (0, "")
    assert re.search(r"--hidden +16 +flag", done.out)
    assert re.search(r"--weight-decay +0 +recipe synthetic", done.out)
    assert re.search(r"per host, at most +\d+ MiB", done.out)
    for flag in ("--predictor-layers", "--strategy", "--lr-gamma", "--scale-lr"):
        assert f" {flag} " not in done.out
    assert list(place.folder.iterdir()) == []


def test_help_explains_every_flag(run_cli: Callable) -> None:
    from gnn_core.config import OPTIONS

    done = run_cli(["python", SINGLE, "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    for option in OPTIONS.values():
        assert option.flag in done.stdout
    assert "not with the single strategy" in done.stdout


def test_the_table_of_two_runs(run_cli: Callable, single: Callable, place: Place) -> None:
    for seed in (0, 1):
        assert single(place.flags(seed=seed)).code == 0
    done = run_cli(["python", "-m", "gnn_core.report.analysis", str(place.records)])
    assert done.returncode == 0, done.stderr
    assert "single" in done.stdout
    assert re.search(r"synthetic", done.stdout)
    accuracies = [record.final["test_accuracy"] for record in place.all_records()]
    assert len(accuracies) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.needs_horovod
def test_ranks_may_meet_without_mpi(run_cli: Callable, place: Place, reference: RunRecord) -> None:
    launcher = LAUNCHERS / "horovodrun"
    if not launcher.exists():
        pytest.skip("horovodrun is not installed: `make install`")
    done = run_cli([launcher, "--gloo", "-np", "2", "python", TRAIN, *place.flags()], env=LAUNCHING)
    assert done.returncode == 0, done.stderr
    assert place.record().controller == "gloo"
    assert_same_curve([place.record()], reference, FP64)


@pytest.mark.long
@pytest.mark.needs_horovod
def test_help_is_given_once_a_job(horovodrun: Callable) -> None:
    done = horovodrun(2, [TRAIN, "--help"])
    assert done.returncode == 0
    assert done.stdout.count("--global-batch-size") == 1


def test_a_bar_and_lines_do_not_spoil_each_other(single: Callable, place: Place) -> None:
    done = single(place.flags(progress="bar"))
    assert done.code == 0
    shown = done.out.replace("\r", "\n").splitlines()
    assert len([line for line in shown if EPOCH.match(line)]) == 2
    assert any(line.startswith("epoch 1/2: ") for line in shown)


def test_progress_lines_can_be_turned_off(single: Callable, place: Place) -> None:
    done = single(place.flags(progress="off"))
    assert done.code == 0
    assert len(done.out.splitlines()) < 12


def test_the_graph_teaches_what_the_features_do_not(single: Callable, place: Place) -> None:
    """Beats the same network without neighbours, which beats chance; with room on both sides."""
    settings = {"fanouts": "10,10", "epochs": 12, "hidden": 32, "input_dropout": 0}
    accuracy = {}
    for aggregator in ("mean", "none"):
        done = single(place.flags(**settings, aggregator=aggregator))
        assert done.code == 0, done.err
        accuracy[aggregator] = place.record().final["test_accuracy"]
    chance = 1 / 8
    assert accuracy["none"] > chance + 0.15
    assert accuracy["mean"] > accuracy["none"] + 0.15


def test_a_relative_graph_folder_and_a_home_made_graph(
    single: Callable, place: Place, tiny_graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gnn_core.data.graph import write_graph

    write_graph(tiny_graph, place.folder / "mine")
    monkeypatch.chdir(place.folder)
    done = single(place.flags(dataset="./mine", global_batch_size=16))
    assert done.code == 0, done.err
    record = place.record()
    assert record.dataset.num_nodes == tiny_graph.num_nodes
    assert Path(record.config["dataset"]) == Path("mine")
