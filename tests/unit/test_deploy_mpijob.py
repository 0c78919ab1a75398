"""What the generator prints is in order, and a slip in its flags is reported in one line."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.programs import TRAINERS
from gnn_core.deploy.yaml_objects import parse
from gnn_core.usage import UsageError
from tests.unit.made_manifests import reported

JOB = ["mpijob", "--workers", "4", "--slots", "2", "--dataset", "ogbn-arxiv", "--image", "me/r:1"]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(words) == 0
    return parse(capsys.readouterr().out, "printed")


def roles(objects: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    specs = objects[-1]["spec"]["mpiReplicaSpecs"]
    return specs["Launcher"]["template"]["spec"], specs["Worker"]["template"]["spec"]


@pytest.mark.parametrize("strategy", TRAINERS)
@pytest.mark.parametrize("dataset", ["synthetic:papers=2000", "ogbn-papers100M", "/shared/mine"])
def test_what_is_printed_is_in_order(
    capsys: pytest.CaptureFixture[str], strategy: str, dataset: str
) -> None:
    for workers, (slots, threads), gpus, (pvc, queue) in itertools.product(
        ("1", "12"), (("1", "3"), ("4", "1")), ("0", "1"), ((None, None), ("mine", "user-queue"))
    ):
        if gpus == "1" and strategy == "multiworker":
            continue
        words = ["--workers", workers, "--slots", slots, "--threads", threads, "--gpus", gpus]
        words += ["--pvc", pvc] if pvc else []
        words += ["--queue", queue] if queue else []
        words += ["--strategy", strategy, "--dataset", dataset, "--image", "reg:5000/me/r:1"]
        flags = ["--", "--epochs", "3", "--global-batch-size=1152"]
        objects = printed(capsys, "mpijob", *words, *flags)
        assert len(objects) == (1 if pvc else 2)
        assert reported(objects, there=[f"PersistentVolumeClaim/{pvc}"] if pvc else []) == []


def test_the_job_is_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*JOB, "--threads", "3", "--memory", "20Gi", "--gpus", "1", "--queue", "q"]
    objects = printed(
        capsys, *words, "--strategy", "ddp", "--", "--lr", "1e-3", "--records=/shared/x"
    )
    job = objects[-1]
    launcher, worker = roles(objects)
    assert job["metadata"] == {
        "name": "ddp-ogbn-arxiv-4x2",
        "labels": {"kueue.x-k8s.io/queue-name": "q"},
    }
    assert job["spec"]["slotsPerWorker"] == 2
    assert job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == 4
    size = {"cpu": 6, "memory": "20Gi", "nvidia.com/gpu": 2}
    assert worker["containers"][0]["resources"] == {"requests": size, "limits": size}
    main_container = launcher["containers"][0]
    assert main_container["command"][-1] == "/opt/ringsage/baselines/ddp.py"
    assert main_container["env"][0] == {"name": "OMP_NUM_THREADS", "value": "3"}
    assert "-np" not in main_container["command"] + main_container["args"]
    flags = main_container["args"]
    assert flags[-3:] == ["--lr", "1e-3", "--records=/shared/x"]  # the last of two counts
    assert "--device=cuda" in flags and "--data-root=/shared/data" in flags
    assert launcher["initContainers"][0]["command"][-1] == "ogbn-arxiv"
    assert "--data-root=/shared/data" in launcher["initContainers"][0]["args"]
    assert "suspend" not in job["spec"]["runPolicy"]  # that is Kueue's to say
    assert (
        worker["containers"][0]["lifecycle"]["preStop"]
        and launcher["terminationGracePeriodSeconds"]
    )
    images = {one["image"] for pod in (launcher, worker) for one in pod["containers"]}
    assert images == {"me/r:1"}


def test_an_elastic_job_is_one_of_horovodrun(capsys: pytest.CaptureFixture[str]) -> None:
    objects = printed(capsys, *JOB, "--slots", "1", "--elastic", "--threads", "2")
    launcher, worker = roles(objects)
    command = launcher["containers"][0]["command"]
    assert command[0] == "horovodrun" and command[-1] == "/opt/ringsage/horovod_gnn/train.py"
    assert worker["containers"][0]["resources"]["limits"]["cpu"] == 2
    assert reported(objects) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers: expected 1 or more, got 0"),
        (["--slots", "0"], "--slots: expected 1 or more, got 0"),
        (["--threads", "-1"], "--threads: expected 1 or more, got -1"),
        (["--workers", "two"], "--workers: expected a whole number, got 'two'"),
        (["--image", "me/ringsage"], "--image: expected repository:tag"),
        (["--image", "me/ringsage:latest"], "not latest"),
        (
            ["--dataset", "ogbn-arxive"],
            "--dataset: unknown data set 'ogbn-arxive', did you mean ogbn",
        ),
        (["--dataset", "synthetic:paper=9"], "unknown setting 'paper'"),
        (["--name", "a" * 60], "--name: expected a-z"),
        (["--image", "Me/Ringsage:1"], "--image: expected repository:tag, small letters"),
        (["--image", "me/r:1\nx"], "--image: expected repository:tag, small letters"),
        (["--name", "My_Job"], "--name: expected a-z"),
        (["--name", ""], "--name: expected a name, got an empty one"),
        (["--pvc", ""], "--pvc: expected a name, got an empty one"),
        (["--queue", ""], "--queue: expected a name, got an empty one"),
        (["--dataset", "/"], "--dataset: expected a path in /shared, got /"),
        (["--workers", "1000", "--name", "a" * 53], "worker-999"),
        (["--strategy", "mirrored"], "invalid choice: 'mirrored'"),
        (["--gpus", "2"], "invalid choice: 2"),
        (["--gpus", "1", "--strategy", "multiworker"], "--gpus: multiworker has none"),
        (["--memory", "lots"], "--memory: expected more than 1Gi"),
        (["--memory", "1Gi"], "--memory: expected more than 1Gi"),
        (["--worker", "3"], "unrecognized arguments: --worker 3"),
        (["--", "--epoch", "3"], "unknown flag --epoch, did you mean --epochs?"),
        (["--", "--replicas", "3"], "it is one of tf_mirrored/train.py"),
        (["--", "--global-batch-size", "4"], "--global-batch-size"),
        (["--", "--records", "here"], "--records: expected a path in /shared"),
        (["--", "--dataset", "cora"], "expected prepare cora"),
        (["--strategy", "multiworker", "--", "--strategy", "one"], "give --strategy multiworker"),
        (["--strategy", "multiworker", "--slots", "3"], "expected a multiple of 12"),
        (["--elastic"], "--elastic: expected --slots 1, got 2"),
        (["--elastic", "--strategy", "ddp"], "--elastic: expected --strategy horovod, got ddp"),
        (["--elastic", "--queue", "q"], "--elastic: expected no --queue"),
        (["--elastic", "--slots", "1", "--", "--scale-lr"], "the learning rate would change"),
        (["--elastic", "--slots", "1", "--", "--world-size=4"], "--min-np and --max-np bound it"),
        (["--queue", "My Queue"], "queue-name: expected a label"),
        (["--pvc", "My Claim"], "claimName: expected a name"),
    ],
)
def test_a_slip_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        main([*JOB, *words])
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


def test_slips_are_reported_together() -> None:
    with pytest.raises(UsageError) as raised:
        main([*JOB, "--workers", "0", "--slots", "0", "--image", "r", "--dataset", "x"])
    assert str(raised.value).count("--") >= 4


def test_printed_into_the_validator(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(JOB)
    made = capsys.readouterr().out
    for text, code in ((made, 0), (made.replace("replicas: 4", "replicas: 0"), 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["validate", "-"]) == code
    told_of = capsys.readouterr().err.splitlines()[-1]
    assert told_of.startswith("error: standard input: MPIJob/horovod-ogbn-arxiv-4x2: spec.")
