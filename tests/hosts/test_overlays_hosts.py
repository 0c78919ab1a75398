"""The overlays of other strategies on pods: their ranks meet, and learn what one process learns."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts.mpijobs import REVISION, START_SECONDS, curve_here, end_of, ready_pods, record_of


@pytest.mark.parametrize(
    ("overlay", "strategy", "alone"),
    [
        pytest.param("ddp", "ddp", ["baselines/single.py"], marks=pytest.mark.needs_torch),
        pytest.param(
            "tf-multiworker",
            "multiworker",
            ["tf_mirrored/train.py", "--strategy=one"],
            marks=pytest.mark.needs_tensorflow,
        ),
    ],
)
def test_an_overlay_trains_on_both_workers_and_leaves_its_record(
    overlay: str,
    strategy: str,
    alone: list[str],
    tmp_path: Path,
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    flags = ["--precision=fp64", "--epochs=2"]
    log = tmp_path / "job.log"
    with ready_pods(overlay, "synthetic:papers=2000", tmp_path) as pods:
        assert end_of(pods.launch(log, *flags), log, START_SECONDS) == 0, log.read_text()
    record = record_of(pods)
    assert record.hosts == [worker.name for worker in pods.workers]
    assert (record.strategy, record.world_size) == (strategy, 2)
    assert (record.commit, record.dirty, record.status) == (REVISION, False, "ok")
    assert record.launch_command.startswith("mpirun ... python ")
    for kept in ("checkpoints", "tensorboard"):
        assert [file for file in (pods.shared / kept).rglob("*") if file.is_file()], kept
    program, *own = alone
    losses = curve_here(pods, run_cli, *flags, *own, program=program)
    assert len(losses) > 1 and record.step_losses == pytest.approx(losses, rel=1e-12)
