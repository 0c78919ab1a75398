"""An MPIJob that predicts: its flags are those of predict.py, and its answers outlive the pods."""

from __future__ import annotations

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS
from tests.unit.made_manifests import LAUNCHER, objects_of, reported, spoil

MAIN = f"{LAUNCHER}.containers.0"


def predicting() -> list[dict]:
    return objects_of(MANIFESTS / "overlays" / "predict")


def test_the_overlay_is_in_order() -> None:
    job = predicting()[1]["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    assert job["containers"][0]["command"][4] == "/opt/ringsage/horovod_gnn/predict.py"
    assert reported(predicting()) == []


# (number of the flag, None: one more; what instead; words of the message)
SPOILT: list[tuple[int | None, str, str]] = [
    (0, "--dataset=corra", "--dataset: unknown data set 'corra', did you mean cora?"),
    (0, "--dataset=cora", "expected prepare cora --cache-dir=/shared/cache"),
    (0, "--dataset=/mine", "--dataset: expected a path in /shared, got /mine"),
    (1, "--threads=2", "expected at least 4, 2 slots x 2 threads, got 2"),
    (2, "--cache-dir=/cache", "--cache-dir: expected a path in /shared, got /cache"),
    (3, "--weights=best", "the following arguments are required: --checkpoint-dir"),
    (3, "--checkpoint-dir=saved", "--checkpoint-dir: expected a path in /shared, got saved"),
    (4, "--output=/tmp/x.csv", "--output: expected a path in /shared, got /tmp/x.csv"),
    (4, "--output=/shared/x.txt", "expected a name in .csv, .parquet, .npy, got .txt"),
    (None, "--nodes=/tmp/ids", "--nodes: expected a path in /shared, got /tmp/ids"),
    (None, "--epochs=3", "unrecognized arguments: --epochs=3"),
    (None, "--device=cuda", "--device cuda: expected 2, got none"),
]


@pytest.mark.parametrize(("number", "flag", "words"), SPOILT)
def test_what_would_fail_is_named(number: int | None, flag: str, words: str) -> None:
    objects = predicting()
    spoil(objects, "MPIJob", f"{MAIN}.args.{5 if number is None else number}", flag)
    problems = reported(objects)
    assert any(words in problem for problem in problems), problems


def test_the_data_set_may_be_left_to_the_checkpoint() -> None:
    objects = predicting()
    spoil(objects, "MPIJob", f"{MAIN}.args.0")
    assert reported(objects) == []


def test_it_is_not_elastic() -> None:
    objects = objects_of(MANIFESTS / "overlays" / "elastic")
    command = objects[1]["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    words = command["containers"][0]["command"]
    words[words.index("/opt/ringsage/horovod_gnn/train.py")] = (
        "/opt/ringsage/horovod_gnn/predict.py"
    )
    (expected,) = [
        problem for problem in reported(objects) if "expected horovod_gnn/train.py" in problem
    ]
    assert "got horovod_gnn/predict.py: leave it out" in expected
