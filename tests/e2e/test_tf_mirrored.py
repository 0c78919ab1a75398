"""The Keras trainer as a user starts it: one replica, several in a process, several processes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnn_core.data import datasets
from gnn_core.measure.run_record import RunRecord
from gnn_core.training.checkpoint import state_of
from tests.e2e.jobs import Job, job
from tests.e2e.keras_runs import KERAS, Outcome, Runs, runs, two_workers
from tests.e2e.small import DATASET, LAUNCHERS, LAUNCHING, TRAIN, Place, assert_same_curve
from tests.e2e.test_bad_input import assert_refused, assert_refused_once
from tests.e2e.test_commands import assert_told_in_plain_lines

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tensorflow]
FP64 = 1e-10
LAST, BEST = "last.safetensors", "best.safetensors"
ENDLESS = {"epochs": 1_000_000, "checkpoint_every_steps": 3, "progress": "off"}
ONE = {"strategy": "one"}
MIRRORED = {"strategy": "mirrored", "replicas": 2}
WORKERS = {"strategy": "multiworker"}


@pytest.fixture(scope="module")
def keras() -> Runs:
    """Give `keras(words)`: `python tf_mirrored/train.py <words>`, TensorFlow imported already."""
    return runs()


def assert_sound(record: RunRecord, strategy: str, replicas: int) -> None:
    """What a record of Keras says of itself."""
    assert (record.status, record.strategy) == ("ok", strategy)
    assert record.world_size == replicas
    assert record.num_parameters
    assert record.allreduce_bytes_per_step == (record.num_parameters + 4) * 8
    assert all(epoch.num_sampled_edges > 0 for epoch in record.epochs)
    assert all(epoch.num_targets == record.dataset.splits["train"] for epoch in record.epochs)


# -- commands --------------------------------------------------------------------------------------


def test_one_replica_from_another_folder(run_cli: Callable, place: Place, whole: Callable) -> None:
    """Where Keras has another backend and number format for other programs."""
    folder = place.folder / "elsewhere"
    (folder / ".keras").mkdir(parents=True)
    (folder / ".keras" / "keras.json").write_text('{"backend": "jax", "floatx": "float16"}')
    env = {"HOME": str(folder), "KERAS_BACKEND": "jax"}
    done = run_cli(["python", KERAS, *place.flags(**ONE, records="here")], env=env, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = assert_told_in_plain_lines(done.stdout)
    assert "ranks      1: 1 on" in lines[1]
    assert "(one)" in lines[1]
    there = Place(folder, place.cache)
    (folder / "here").rename(there.records)
    assert_sound(there.record(), "one", 1)
    assert_same_curve([there.record()], whole(), FP64)


@pytest.mark.parametrize(
    "settings",
    [
        {"assign": "locality"},
        pytest.param({"replicas": 4}, marks=pytest.mark.long),
        pytest.param({"replicas": 1, "threads": 2}, marks=pytest.mark.long),
    ],
)
def test_replicas_in_one_process(
    keras: Runs, place: Place, whole: Callable, settings: dict[str, Any]
) -> None:
    done = keras(place.flags(**settings))  # mirrored is the default, two replicas on a CPU
    assert (done.code, done.err) == (0, "")
    assert_told_in_plain_lines(done.out)
    assert_sound(place.record(), "mirrored", settings.get("replicas", 2))
    assert_same_curve([place.record()], whole(), FP64)


@pytest.mark.needs_mpi4py
@pytest.mark.needs_horovod
@pytest.mark.parametrize("launcher", ["mpirun", pytest.param("horovodrun", marks=pytest.mark.long)])
def test_a_worker_in_each_process(
    horovodrun: Callable, place: Place, whole: Callable, launcher: str
) -> None:
    words = place.flags(**WORKERS, assign="locality")
    done = horovodrun(2, [KERAS, *words], launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert_ends_in_silence(done.stderr)
    lines = assert_told_in_plain_lines(done.stdout)
    assert "ranks      2: 2 on" in lines[1]
    record = place.record()
    assert_sound(record, "multiworker", 2)
    assert len(record.memory) == 2
    assert record.assigned_by == "locality"
    assert_same_curve([record], whole(), FP64)


def assert_ends_in_silence(err: str) -> None:
    """Nothing of a worker that left first, and none of TensorFlow's greetings."""
    for word in ("error", "coordination", "oneDNN", "Traceback", "warning"):
        assert word.lower() not in err.lower()


@pytest.mark.parametrize("lingering", [pytest.param(0, marks=pytest.mark.long), 1])
def test_workers_named_by_hand_of_which_one_ends_late(
    keras: Runs, place: Place, whole: Callable, lingering: int
) -> None:
    workers = [
        keras.start(place.flags(**WORKERS), linger=1.5 * (index == lingering), **env)
        for index, env in enumerate(two_workers())
    ]
    ends = [worker.end() for worker in workers]
    assert [end.code for end in ends] == [0, 0], ends
    assert [end.err for end in ends] == ["", ""]
    assert_told_in_plain_lines(ends[0].out)
    assert ends[1].out == ""
    (record,) = place.all_records()
    assert_sound(record, "multiworker", 2)
    assert_same_curve([record], whole(), FP64)


def test_a_worker_without_others_says_how_to_have_some(
    keras: Runs, place: Place, whole: Callable
) -> None:
    done = keras(place.flags(**WORKERS))
    assert (done.code, done.err) == (0, "")
    assert "one worker only: `mpirun -np 4 python tf_mirrored/train.py" in done.out
    assert_same_curve([place.record()], whole(), FP64)


def test_sampled_evaluation_is_that_of_torch(keras: Runs, single: Callable, place: Place) -> None:
    for run in (single, keras):
        done = run(place.flags(eval="sampled", epochs=1))
        assert done.code == 0, done.err
    theirs, ours = (record.final for record in place.all_records())
    assert ours == pytest.approx(theirs, rel=FP64)


def test_what_keras_has_saved_predicts_in_torch(
    keras: Runs, in_process: Callable, place: Place
) -> None:
    from baselines.predict import main

    assert keras(place.saving(epochs=1)).code == 0
    words = ["--checkpoint-dir", place.saved, "--cache-dir", place.cache, "--nodes", "test"]
    done = in_process(main, [*words, "--output", place.folder / "pred.csv"])
    assert done.code == 0, done.err
    with (place.folder / "pred.csv").open() as file:
        found = {int(row["node"]): int(row["class"]) for row in csv.DictReader(file)}
    labels = datasets.load(DATASET, cache_dir=place.cache).labels
    right = [labels[node] == number for node, number in found.items()]
    assert np.mean(right) == pytest.approx(place.record().final["test_accuracy"], abs=1e-12)


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(keras: Runs, place: Place) -> None:
    done = keras(place.saving(**MIRRORED, dry_run=True, tensorboard=place.folder / "curves"))
    assert (done.code, done.err) == (0, "")
    assert re.search(r"--strategy +mirrored +flag", done.out)
    assert re.search(r"^ranks 2, targets assigned by ", done.out, re.MULTILINE)
    assert re.search(r"per host, at most +\d+ MiB", done.out)
    assert list(place.folder.iterdir()) == []


WITHOUT_TENSORFLOW = """
import atexit, sys
from gnn_core.launch import guarded
from tf_mirrored.train import main
atexit.register(lambda: print(sorted({"tensorflow", "keras", "torch"} & set(sys.modules))))
sys.exit(guarded(main))
"""


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--epocs", "3"], 2)])
def test_help_and_slips_do_not_wait_for_tensorflow(
    run_cli: Callable, words: list[str], code: int
) -> None:
    done = run_cli(["python", "-c", WITHOUT_TENSORFLOW, *words])
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "[]"
    if code == 0:
        for flag in ("--strategy", "--replicas", "--start-timeout", "--collective-timeout"):
            assert flag in done.stdout
        assert "not with the Keras strategy" in done.stdout  # --pin


# -- going on --------------------------------------------------------------------------------------

CHAINS = {
    "Keras alone": [ONE, ONE, ONE],
    "PyTorch and Keras in turns": [None, ONE, None, MIRRORED, None],
    "other numbers of replicas": [MIRRORED, ONE, {"replicas": 4}],
}


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(name, marks=[pytest.mark.long] * (None not in chain))
        for name, chain in CHAINS.items()
    ],
)
def test_another_framework_or_number_of_replicas_goes_on_with_a_run(
    keras: Runs, single: Callable, place: Place, whole: Callable, chain: str
) -> None:
    """An epoch of each, None being PyTorch, is the run that nobody interrupted."""
    for epoch, settings in enumerate(CHAINS[chain]):
        words = place.saving(epochs=epoch + 1, resume=epoch > 0 or None, **(settings or {}))
        done = keras(words) if settings else single(words)
        assert done.code == 0, done.err
    parts = place.all_records()
    assert [part.resumed_from is not None for part in parts] == [False] + [True] * (len(parts) - 1)
    assert_same_curve(parts, whole(len(parts)), FP64)


def test_workers_go_on_with_a_run_of_another_trainer(
    keras: Runs, single: Callable, place: Place, whole: Callable
) -> None:
    assert single(place.saving(epochs=1)).code == 0
    words = place.saving(epochs=2, resume=True, **WORKERS)
    for end in [run.end() for run in [keras.start(words, **env) for env in two_workers()]]:
        assert (end.code, end.err) == (0, "")
    assert_same_curve(place.all_records(), whole(), FP64)


def epochs_reached(place: Place) -> int:
    """How many epochs the checkpoint has seen, the present one included; it is whole."""
    return state_of((place.saved / LAST).read_bytes()).progress.epoch + 1


def assert_goes_on(single: Callable, place: Place, whole: Callable) -> None:
    """In PyTorch, from the step where Keras was stopped."""
    stopped = place.record()
    assert stopped.status == "interrupted"
    epochs = epochs_reached(place) + 1
    done = single(place.saving(epochs=epochs, resume=True, progress="off"))
    assert done.code == 0, done.err
    assert_same_curve([stopped, place.record()], whole(epochs), FP64)


@pytest.mark.parametrize(
    "settings", [pytest.param(ONE, marks=pytest.mark.long), MIRRORED], ids=["one", "mirrored"]
)
def test_sigterm_ends_with_143_and_a_checkpoint(
    keras: Runs, single: Callable, place: Place, whole: Callable, settings: dict[str, Any]
) -> None:
    run = keras.start(place.saving(**{**ENDLESS, **settings}))
    run.wait_for(place.saved / BEST)
    os.kill(run.pid, signal.SIGTERM)
    end = run.end()
    assert (end.code, end.err) == (128 + signal.SIGTERM, "")
    assert "interrupted: stopped at epoch " in end.out
    assert "go on with --resume from " in end.out
    assert_goes_on(single, place, whole)


@pytest.mark.parametrize("reported", [pytest.param(0, marks=pytest.mark.long), 1])
def test_sigterm_to_one_worker_ends_all_of_them(
    keras: Runs, single: Callable, place: Place, whole: Callable, reported: int
) -> None:
    words = place.saving(**{**ENDLESS, **WORKERS})
    runs = [keras.start(words, **env) for env in two_workers()]
    runs[0].wait_for(place.saved / BEST)
    os.kill(runs[reported].pid, signal.SIGTERM)
    ends = [run.end() for run in runs]
    assert [end.code for end in ends] == [128 + signal.SIGTERM] * 2, ends
    assert "Traceback" not in ends[0].err + ends[1].err
    assert_goes_on(single, place, whole)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_that_is_lost_ends_the_other_which_names_it(
    keras: Runs, place: Place, killed: int
) -> None:
    words = place.saving(**{**ENDLESS, **WORKERS})
    envs = two_workers()
    runs = [keras.start(words, **env) for env in envs]
    runs[0].wait_for(place.saved / BEST)
    os.kill(runs[killed].pid, signal.SIGKILL)
    assert runs[killed].end().code == -signal.SIGKILL
    end = runs[1 - killed].end(60)
    assert end.code not in (0, 2)
    address = json.loads(envs[0]["TF_CONFIG"])["cluster"]["worker"][killed]
    assert f"worker {killed} ({address})" in end.out + end.err
    assert "Traceback" not in end.err
    assert epochs_reached(place) > 0


def launched(place: Place) -> Any:
    """Two workers in the midst of an endless training, under mpirun."""
    if not (LAUNCHERS / "mpirun").exists():
        pytest.skip("mpirun is not installed: `make install`")
    words = place.saving(**{**ENDLESS, **WORKERS})
    flags = ["--oversubscribe", "--bind-to", "none", "-np", "2"]
    return job([str(LAUNCHERS / "mpirun"), *flags, "python", KERAS, *words], place.folder)


@pytest.mark.long
@pytest.mark.needs_mpi4py
def test_sigterm_to_a_worker_under_a_launcher(place: Place) -> None:
    with launched(place) as started:
        started.wait_until((place.saved / BEST).exists)
        os.kill(started.pid_of_rank(1), signal.SIGTERM)
        assert started.end() == 128 + signal.SIGTERM
        assert started.out.count("interrupted: stopped at epoch ") == 1
        assert "Traceback" not in started.out + started.err
    assert place.record().status == "interrupted"
    assert epochs_reached(place) > 0


@pytest.mark.needs_mpi4py
@pytest.mark.long
@pytest.mark.parametrize("rank", [1, 0])
def test_a_lost_worker_under_a_launcher(place: Place, rank: int) -> None:
    with launched(place) as started:
        started.wait_until((place.saved / BEST).exists)
        os.kill(started.pid_of_rank(rank), signal.SIGKILL)
        assert started.end(60) != 0
        assert_named(started, rank)
    assert epochs_reached(place) > 0


def assert_named(started: Job, rank: int) -> None:
    """By the launcher or by the worker that is left."""
    said = started.out + started.err
    assert f"process rank {rank} " in said or f"worker {rank} (" in said
    assert "Traceback" not in said


# -- what a user may get wrong ---------------------------------------------------------------------

# What is typed after the flags of a small run -> words of the answer.
FLAGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such strategy": (
        {"strategy": "miror"},
        ["--strategy: expected one of one, mirrored, multiworker", "did you mean mirrored?"],
    ),
    "pinning": ({"pin": True}, ["--pin: the Keras strategy ignores it", "--threads"]),
    "another model": (
        {"model": "gcn"},
        ["--model gcn: expected sage, the only model in Keras", "horovod_gnn/train.py"],
    ),
    "a model in a file": (
        {"model": "examples/pyg_sage.py:PygSage"},
        ["--model examples/pyg_sage.py:PygSage: expected sage, the only model in Keras"],
    ),
    "other layers": (
        {"norm": "layer", "residual": True, "jumping_knowledge": "cat", "label_smoothing": 0.1},
        [
            f"--{name}: the Keras strategy ignores it"
            for name in ("norm", "residual", "jumping-knowledge", "label-smoothing")
        ],
    ),
    "no replicas": (
        {"replicas": 0},
        ["--replicas: expected a whole number at least 1 and at most 1024, got 0"],
    ),
    "no time": ({"start_timeout": 0}, ["--start-timeout: expected a finite number above 0"]),
    "replicas of one": (
        {"strategy": "one", "replicas": 2},
        ["--replicas 2: expected 1 with the one strategy"],
    ),
    "replicas of a worker": (
        {"strategy": "multiworker", "replicas": 2},
        ["--replicas 2: expected 1 with the multiworker strategy", "mpirun -np N"],
    ),
    "a batch that cannot be cut": (
        {"replicas": 3},
        ["--global-batch-size: expected a multiple of 3", "got 128: use 126 or another number"],
    ),
    "more replicas than targets": (
        {"replicas": 4, "global_batch_size": 3},
        ["--global-batch-size: expected at least one target per rank, got 3 for 4 ranks"],
    ),
    "other replicas than meant": ({"world_size": 4}, ["--world-size: ", "4 ranks but 2 started"]),
    "unknown data set": ({"dataset": "coraa"}, ["unknown data set 'coraa', did you mean cora?"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(keras: Runs, place: Place, case: str) -> None:
    changes, words = FLAGS[case]
    done = keras(place.flags(**changes))
    assert_refused(done.code, done.err, *words)
    assert done.out == ""


def test_a_gpu_where_there_is_none(keras: Runs, place: Place) -> None:
    done = keras(place.flags(device="cuda"), CUDA_VISIBLE_DEVICES="")
    assert_refused(
        done.code,
        done.err,
        "--device cuda: expected a GPU that TensorFlow can use",
        "use --device cpu",
    )


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_several_copies_of_one_process(keras: Runs, place: Place, strategy: str) -> None:
    env = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "7"}
    done = keras(place.flags(strategy=strategy), **env)
    assert_refused(
        done.code,
        done.err,
        f"the {strategy} strategy is one process, but 2 copies of it were",
        "use --strategy multiworker",
    )


@pytest.mark.long
def test_two_copies_say_it_once(run_cli: Callable, place: Place) -> None:
    if not (LAUNCHERS / "mpirun").exists():
        pytest.skip("mpirun is not installed: `make install`")
    command = [LAUNCHERS / "mpirun", "--oversubscribe", "-np", "2", "python", KERAS]
    quick_end = {**LAUNCHING, "OMPI_MCA_odls_base_sigkill_timeout": "1"}
    done = run_cli([*command, *place.flags(**MIRRORED)], env=quick_end)
    assert_refused_once(done, "the mirrored strategy is one process, but 2 copies of it")
    assert not place.records.exists()


TF_CONFIGS: dict[str, tuple[str, list[str]]] = {
    "not JSON": ("{worker", ["TF_CONFIG: it is not JSON", 'something like {"cluster"']),
    "no workers": ("{}", ["TF_CONFIG: it lacks a cluster of workers or a task"]),
    "a chief": (
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}',
        ["TF_CONFIG: expected workers only, got a chief"],
    ),
    "index": (
        '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 1}}',
        ["TF_CONFIG: expected a task index of 0 to 0, got 1"],
    ),
}


@pytest.mark.parametrize("case", TF_CONFIGS)
def test_a_malformed_tf_config(keras: Runs, place: Place, case: str) -> None:
    text, words = TF_CONFIGS[case]
    done = keras(place.flags(**WORKERS), TF_CONFIG=text)
    assert_refused(done.code, done.err, *words)


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_a_tf_config_left_over_is_ignored(keras: Runs, place: Place, strategy: str) -> None:
    for text in ("{worker", two_workers()[1]["TF_CONFIG"]):
        done = keras(place.flags(strategy=strategy, dry_run=True), TF_CONFIG=text)
        assert (done.code, done.err) == (0, "")


def test_other_workers_than_launched(keras: Runs, place: Place) -> None:
    by_mpirun = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_NAMESPACE": "7"}
    env = {**two_workers()[0], **by_mpirun}
    done = keras(place.flags(**WORKERS), **env)
    assert_refused(done.code, done.err, "TF_CONFIG names 2 workers, but 4 were launched")


def test_a_port_in_use(keras: Runs, place: Place) -> None:
    env = two_workers()[0]
    address = json.loads(env["TF_CONFIG"])["cluster"]["worker"][0]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        done = keras(place.flags(**WORKERS), **env)
    assert_refused(
        done.code,
        done.err,
        f"TF_CONFIG: worker 0 is to listen at {address}, and cannot",
        "choose another port",
    )


@pytest.mark.parametrize("present", [0, 1])
def test_a_worker_that_never_arrives(keras: Runs, place: Place, present: int) -> None:
    env = two_workers()[present]
    done = keras(place.flags(**WORKERS, start_timeout=2), seconds=30, **env)
    assert_refused(
        done.code,
        done.err,
        f"expected 2 workers within 2 s, but worker {1 - present} (",
        "did not arrive",
        "--start-timeout",
    )


def test_workers_with_different_settings(keras: Runs, place: Place) -> None:
    runs = [
        keras.start(place.flags(**WORKERS, seed=index), **env)
        for index, env in enumerate(two_workers())
    ]
    ends = [run.end() for run in runs]
    assert [end.code for end in ends] == [2, 2]
    for end in ends:  # each has a terminal of its own
        assert_refused(end.code, end.err, "expected the same configuration", "seed 0 and 1")


def test_a_checkpoint_of_other_settings(keras: Runs, single: Callable, place: Place) -> None:
    assert single(place.saving(epochs=1)).code == 0
    done = keras(place.saving(resume=True, hidden=24))
    assert_refused(done.code, done.err, "it is of another run", "--hidden was 16, now 24")
    done = keras(place.saving())
    assert_refused(done.code, done.err, "already holds the checkpoint of a run: add --resume")


def test_a_loss_that_is_no_number_fails_the_run(keras: Runs, place: Place) -> None:
    done: Outcome = keras(place.flags(lr=1e30, precision="fp32"))
    assert (done.code, done.err) == (1, "")
    assert done.out.count("failed: the loss is ") == 1
    assert place.record().status == "failed"


KERAS_ONLY = {"--strategy": "one", "--replicas": 2}


@pytest.mark.parametrize("flag", KERAS_ONLY)
def test_the_other_trainers_refuse_flags_of_keras(
    single: Callable, run_cli: Callable, place: Place, flag: str
) -> None:
    name = flag[2:].replace("-", "_")
    done = single(place.flags(**{name: KERAS_ONLY[flag]}))
    assert_refused(
        done.code, done.err, f"{flag}: the single strategy ignores it", "tf_mirrored/train.py"
    )


@pytest.mark.needs_horovod
def test_horovod_refuses_flags_of_keras(run_cli: Callable, place: Place) -> None:
    done = run_cli(["python", TRAIN, *place.flags(strategy="one", replicas=2)])
    assert_refused(
        done.returncode,
        done.stderr,
        *(f"{flag}: the horovod strategy ignores it" for flag in KERAS_ONLY),
    )
