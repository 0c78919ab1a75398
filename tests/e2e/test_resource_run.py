"""A run as a user starts it has in its record what it used, and the report shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.report.analysis import main as analyse
from tests.e2e.small import Place

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux"),
]


def test_a_run_tells_what_it_used(
    single: Callable, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert single(place.flags(sample_seconds=0.05)).code == 0
    record = place.record()
    (used,) = record.resources
    assert used is not None and used.num_samples >= 2
    assert used.cpu_cores_mean is not None and used.cpu_cores_mean > 0
    # The clock of a sample may be read a moment before the counter, or after it.
    assert used.cpu_cores_mean < 1.5 * record.machine["cores_available"]
    assert used.seconds >= (record.training_seconds or 0.0)
    peak = record.memory[0].peak_rss_bytes
    assert peak is not None and 10e6 < (used.rss_bytes_peak or 0) < 1.1 * peak
    assert 0 < (used.cgroup_memory_bytes_peak or 0) <= (used.memory_limit_bytes or 0)
    assert used.sampler_cpu_seconds is not None
    assert used.sampler_cpu_seconds <= used.cpu_cores_mean * used.seconds + 0.1
    assert used.series.seconds[-1] == used.seconds
    assert analyse([str(place.records), "--table", "resources"]) == 0
    assert " of " in capsys.readouterr().out.splitlines()[2]


def test_a_run_that_does_not_look_has_the_same_curve(single: Callable, place: Place) -> None:
    assert single(place.flags(sample_seconds=0.05)).code == 0
    assert single(place.flags(sample_seconds=0)).code == 0
    looked, blind = place.all_records()
    assert (len(looked.resources), blind.resources) == (1, [])
    assert looked.config_digest == blind.config_digest
    assert looked.step_losses == blind.step_losses
