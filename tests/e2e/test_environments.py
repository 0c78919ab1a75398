"""Runs in odd places: two at once, odd names, no reader, no home, a clock that runs out."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.jobs import job
from tests.e2e.small import DATASET, ROOT, SINGLE, Place, plain_json
from tests.somebody import open_folder, somebody_else

pytestmark = pytest.mark.needs_torch
LAST = "last.safetensors"
ENDLESS = {"epochs": 1_000_000, "checkpoint_every_steps": 3, "progress": "off"}


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, pytest.param(signal.SIGUSR2, marks=pytest.mark.long)]
)
def test_what_batch_systems_send_saves_and_ends_the_run(
    single: Callable, place: Place, number: signal.Signals
) -> None:
    with job(["python", SINGLE, *place.saving(**ENDLESS)], place.folder) as started:
        started.wait_until((place.saved / LAST).exists)
        os.kill(started.pid, number)
        assert started.end() == 128 + number
        assert "Traceback" not in started.err
    assert place.record().status == "interrupted"
    epochs = 1 + _epochs_in(place.saved / LAST)
    assert single(place.saving(epochs=epochs, resume=True)).code == 0


def test_nohup_is_respected(place: Place) -> None:
    words = ["nohup", "python", SINGLE, *place.saving(**ENDLESS)]
    words[1] = sys.executable
    with job(words, place.folder) as started:
        started.wait_until((place.saved / LAST).exists)
        os.kill(started.pid, signal.SIGHUP)
        before = (place.saved / LAST).stat().st_mtime_ns
        started.wait_until(lambda: (place.saved / LAST).stat().st_mtime_ns > before)
        os.kill(started.pid, signal.SIGTERM)
        assert started.end() == 128 + signal.SIGTERM


def _epochs_in(file: Path) -> int:
    from gnn_core.training.checkpoint import state_of

    return state_of(file.read_bytes()).progress.epoch + 1


def test_a_folder_of_checkpoints_is_one_run_s_at_a_time(single: Callable, place: Place) -> None:
    with job(["python", SINGLE, *place.saving(**ENDLESS)], place.folder) as first:
        first.wait_until((place.saved / LAST).exists)
        second = single(place.saving(epochs=1, resume=True))
        assert second.code == 2 and second.err.count("\n") == 1
        assert "is in use by run" in second.err and f"process {first.pid}" in second.err
        os.kill(first.pid, signal.SIGKILL)  # it could not give the folder back
        first.end()
    assert single(place.saving(epochs=_epochs_in(place.saved / LAST) + 1, resume=True)).code == 0
    assert not list(place.saved.glob("*unfinished*"))


def test_runs_with_one_tensorboard_folder_have_a_folder_each(
    single: Callable, place: Place
) -> None:
    pytest.importorskip("tensorboardX")
    curves = place.folder / "curves"
    for seed in (0, 1):
        assert single(place.flags(tensorboard=curves, seed=seed, epochs=1)).code == 0
    folders = sorted(folder.name for folder in curves.iterdir())
    runs = sorted(file.stem[-8:] for file in place.records.glob("*.jsonl"))
    assert sorted(name[-8:] for name in folders) == runs and len(runs) == 2
    assert all(len(list((curves / name).glob("events.*"))) == 1 for name in folders)


def run(words: list[Any], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; all it said."""
    return subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=180, cwd=ROOT, **more
    )


def test_names_that_are_no_utf_8_cost_no_record(place: Place, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    words = [os.fsencode(word) for word in place.flags(epochs=1, checkpoint_dir=None)]
    at = words.index(b"--records")
    words[at + 1] = odd + b"/records"
    words += [b"--checkpoint-dir", odd + b"/saved"]
    done = run([sys.executable, SINGLE, *words])
    assert done.returncode == 0, done.stderr
    (file,) = Path(os.fsdecode(odd), "records").glob("*.jsonl")
    assert plain_json(file)["config"]["records"].encode("utf-8", "surrogateescape") == (
        odd + b"/records"
    )
    table = run([sys.executable, "-m", "gnn_core.report.analysis", odd, "--table", "accuracy"])
    assert table.returncode == 0 and "Traceback" not in table.stderr, table.stderr


@pytest.mark.parametrize(
    "where",
    [
        ">/dev/full 2>/dev/full",
        pytest.param("| head -1", marks=pytest.mark.long),
        pytest.param(">&- 2>&-", marks=pytest.mark.long),
    ],
)
def test_a_run_without_a_reader_leaves_its_record(place: Place, where: str) -> None:
    words = shlex.join([sys.executable, SINGLE, *map(str, place.flags())])
    done = run(["bash", "-c", f"set -o pipefail; {words} {where}"])
    assert done.returncode == 0, done.stderr
    assert place.record().status == "ok"


ABSURD = {
    "hidden": "2000000000",
    "global_batch_size": "1" + "0" * 30,
    "fanouts": "999999999999,5",
    "epochs": "9" * 5000,
    "threads": "1000000",
    "lr": "1" + "0" * 400,
    "layers": "²",
    "data_root": "~nosuchuser/x",
    "records": "a" * 300,
    "checkpoint_dir": "b/" * 3000,
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_values_are_refused_in_a_line(single: Callable, place: Place, name: str) -> None:
    done = single(place.flags(**{name: ABSURD[name]}))
    flag = "--" + name.replace("_", "-")
    assert done.code == 2, done.out
    assert done.err.startswith(f"error: {flag}") and done.err.count("\n") == 1, done.err
    assert len(done.err) < 500
    assert not place.records.exists() or not list(place.records.glob("*.jsonl"))


@pytest.fixture
def unknown() -> Iterator[tuple[list[str], Path, dict[str, str]]]:
    """Words that make a command somebody else's, a folder of hers, and her environment."""
    become = somebody_else()
    with open_folder() as folder:
        (folder / "mine").mkdir()
        (folder / "mine").chmod(0o777)
        yield become, folder / "mine", {"PATH": os.environ["PATH"], "TMPDIR": str(folder / "mine")}


Unknown = tuple[list[str], Path, dict[str, str]]


def train_as(unknown: Unknown, *more: str) -> subprocess.CompletedProcess[str]:
    """As in `docker run --user 12345` on an image whose files are another one's."""
    become, mine, env = unknown
    words = ["--dataset", DATASET, "--epochs", "1", "--records", str(mine / "records")]
    words += ["--cache-dir", str(mine / "cache"), *more]
    return run([*become, sys.executable, SINGLE, *words], env=env)


def test_somebody_without_a_name_or_a_home_is_answered(unknown: Unknown) -> None:
    done = train_as(unknown, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    done = train_as(unknown, "--cache-dir", "/proc/x")
    assert done.returncode == 2 and "another one with --cache-dir" in done.stderr, done.stderr


@pytest.mark.long  # every kernel is compiled
def test_somebody_without_a_name_or_a_home_can_train(unknown: Unknown) -> None:
    done = train_as(unknown)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((unknown[1] / "records").glob("*.jsonl"))) == 1
