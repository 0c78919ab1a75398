"""An allreduce begins when a rank asks for it, not at the next tick of Horovod's clock.

What is held here is the effect of `gnn_core/env/horovod_wake.patch`: a clock that ticks twice
a second, and ten allreduces that would need ten ticks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.small import LAUNCHING, ROOT
from tests.patience import patient

pytestmark = pytest.mark.needs_horovod

_STEPS = 10
_TICK_SECONDS = 0.5
_SCRIPT = f"""
import time
import torch, horovod.torch as hvd
torch.set_num_threads(1)
hvd.init()
for _ in range(2):  # the first is negotiated at length, and remembered from then on
    hvd.allreduce(torch.ones(1000), op=hvd.Sum, name="step")
begun = time.monotonic()
for step in range({_STEPS}):
    if hvd.rank() == step % 2:
        time.sleep(0.01)  # ranks that are ready at different times wait for each other
    total = hvd.allreduce(torch.full((1000,), 1.0 + step), op=hvd.Sum, name="step")
    assert total.tolist() == [2.0 * (1.0 + step)] * 1000
if hvd.rank() == 0:
    print("seconds", time.monotonic() - begun)
hvd.shutdown()
"""


def seconds(tmp_path: Path, wakes: int, *launcher: str) -> float:
    script = tmp_path / "steps.py"
    script.write_text(_SCRIPT)
    command = [str(Path(sys.executable).parent / launcher[0]), *launcher[1:], sys.executable]
    clock = {"HOROVOD_CYCLE_TIME": str(1000 * _TICK_SECONDS), "HOROVOD_WAKE_ON_ENQUEUE": str(wakes)}
    ended = subprocess.run(
        [*command, str(script)],
        env={**os.environ, **LAUNCHING, **clock},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=patient(180),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return float(ended.stdout.rpartition("seconds ")[2].split()[0])


@pytest.mark.parametrize("controller", ["--mpi", pytest.param("--gloo", marks=pytest.mark.long)])
def test_steps_are_not_quantised_to_the_cycle(tmp_path: Path, controller: str) -> None:
    assert seconds(tmp_path, 1, "horovodrun", controller, "-np", "2") < _STEPS * _TICK_SECONDS / 2


@pytest.mark.long  # that the other test measures what it means to
def test_without_waking_each_step_takes_a_tick_at_least(tmp_path: Path) -> None:
    assert seconds(tmp_path, 0, "mpirun", "-np", "2") > (_STEPS - 1) * _TICK_SECONDS
