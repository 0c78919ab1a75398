"""Training with a parameter server: the curve of one process, or a bounded distance from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from gnn_core.config import RunConfig
from tests.golden.curve import SETTINGS, train
from tests.unit.made_server_runs import SECRET, trained

pytestmark = pytest.mark.needs_torch


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def alone(cache: Path) -> dict[str, Any]:
    """The run of one process."""
    return train(cache)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGSAGE_JOB_SECRET", SECRET)


def config_of(cache: Path, **changes: Any) -> RunConfig:
    return RunConfig(**{**SETTINGS, "cache_dir": str(cache), **changes})


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (2, 3), (4, 2)])
def test_synchronous_it_has_the_curve_of_one_process(
    cache: Path, alone: dict[str, Any], workers: int, servers: int
) -> None:
    record = trained(config_of(cache, workers=workers, servers=servers))
    assert record.status == "ok", record.error
    assert record.step_losses == pytest.approx(alone["step_losses"], rel=1e-12)
    assert [one.valid_accuracy for one in record.epochs] == alone["valid_accuracy"]
    assert record.final == pytest.approx(alone["final"], rel=1e-12)
    assert record.world_size == workers and record.same_curve
    server = record.parameter_server
    assert server is not None
    assert server.pushes == workers * len(alone["step_losses"])
    assert server.unfinished_steps == {"0": server.pushes}
    assert sum(server.chunks) == 256 and len(server.chunks) == servers
    assert record.allreduce_bytes_per_step is not None
    assert server.bytes_pushed == server.pushes * record.allreduce_bytes_per_step


@pytest.mark.parametrize("staleness", ["2", "inf"])
def test_asynchronous_it_learns_within_its_bound(
    cache: Path, alone: dict[str, Any], staleness: str
) -> None:
    record = trained(config_of(cache, workers=3, servers=2, staleness=staleness, epochs=4))
    assert record.status == "ok", record.error
    assert record.step_losses is not None and not record.same_curve
    assert len(record.step_losses) == 2 * len(alone["step_losses"])
    assert sum(record.step_losses[-5:]) < 0.8 * sum(record.step_losses[:5])
    server = record.parameter_server
    assert server is not None
    assert server.pushes == 3 * len(record.step_losses)
    assert max(map(int, server.unfinished_steps)) <= float(staleness)
    assert sum(server.updates_between.values()) == server.pushes
    # Each target counts once in each epoch.
    assert {one.num_targets for one in record.epochs} == {record.dataset.splits["train"]}
    assert math.isfinite(record.final["test_accuracy"] or math.nan)
