"""Training with a parameter server: the curve of one process, or a bounded distance from it."""

# ruff: noqa: E402
from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from baselines.server_roles import run_worker, version
from baselines.server_world import ServerWorld
from gnn_core.config import RunConfig, UsageError
from gnn_core.param_server import control_pb2 as messages
from gnn_core.param_server.coordinator import Coordinator, Job
from gnn_core.param_server.journal import Journal, read_journal
from gnn_core.param_server.rpc import Peer, Service
from gnn_core.training.checkpoint import state_of
from gnn_core.training.trainer import Trainer
from tests.golden.curve import SETTINGS, train
from tests.patience import patient
from tests.unit.made_server_runs import SECRET, Threads, replayed, take_a_part_and_go, trained

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


@pytest.mark.parametrize("staleness", ["2", pytest.param("inf", marks=pytest.mark.long)])
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


def test_what_a_lost_worker_held_is_computed_by_another(cache: Path, alone: dict[str, Any]) -> None:
    config = config_of(cache, workers=2, collective_timeout=5.0)

    def with_ghost(threads: Threads, config: RunConfig) -> None:
        threads.start(lambda: take_a_part_and_go(config))

    record = trained(config, with_ghost)
    assert record.status == "ok", record.error
    assert record.step_losses == pytest.approx(alone["step_losses"], rel=1e-12)
    server = record.parameter_server
    assert server is not None
    assert server.lost_workers >= 1 and server.repeated_parts >= 1
    assert server.pushes == 2 * len(alone["step_losses"])


def test_a_worker_more_takes_part(cache: Path, alone: dict[str, Any]) -> None:
    found: list[int] = []

    def with_another(threads: Threads, config: RunConfig) -> None:
        for _ in range(2):
            threads.start(lambda: run_worker(dataclasses.replace(config, role="worker")))

    def look(trainer: Trainer) -> None:
        assert isinstance(trainer.world, ServerWorld) and trainer.world.coordinator is not None
        found.append(len(trainer.world.coordinator.work))

    record = trained(config_of(cache, workers=2), with_another, look)
    assert record.step_losses == pytest.approx(alone["step_losses"], rel=1e-12)
    assert found[0] > 2


def test_a_checkpoint_is_resumed_on_other_servers_and_workers(
    cache: Path, tmp_path: Path, alone: dict[str, Any]
) -> None:
    folder = str(tmp_path / "saved")
    first = trained(config_of(cache, workers=2, servers=2, epochs=1, checkpoint_dir=folder))
    assert first.status == "ok", first.error
    then = trained(config_of(cache, workers=1, servers=1, checkpoint_dir=folder, resume=True))
    losses = [*(first.step_losses or ()), *(then.step_losses or ())]
    assert losses == pytest.approx(alone["step_losses"], rel=1e-12)
    assert then.final == pytest.approx(alone["final"], rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.long)])
def test_an_asynchronous_run_is_replayed_bit_for_bit(
    cache: Path, tmp_path: Path, optimizer: str
) -> None:
    """Also where a worker was lost, whose part another one computed."""
    file = tmp_path / "journal.json"
    changes = {"workers": 3, "servers": 2, "staleness": "inf", "optimizer": optimizer}
    config = config_of(cache, **changes, collective_timeout=5.0)

    def with_ghost(threads: Threads, config: RunConfig) -> None:
        threads.start(lambda: take_a_part_and_go(config))

    saved = {name: tmp_path / name for name in ("run", "replay")}
    run = dataclasses.replace(config, journal=str(file), checkpoint_dir=str(saved["run"]))
    first = trained(run, with_ghost)
    assert first.status == "ok", first.error
    again = dataclasses.replace(config, replay=str(file), checkpoint_dir=str(saved["replay"]))
    second = replayed(again)
    assert second.status == "ok", second.error
    assert second.final == first.final
    weights = [state_of((one / "last.safetensors").read_bytes()) for one in saved.values()]
    for name, array in weights[0].weights.items():
        assert np.array_equal(array, weights[1].weights[name]), name
    for name, array in weights[0].optimizer.items():
        assert np.array_equal(array, weights[1].optimizer[name]), name
    assert second.step_losses == first.step_losses
    damaged = json.loads(file.read_text())
    some = damaged["epochs"][0][0]
    some[0], some[-1] = some[-1], some[0]
    file.write_text(json.dumps(damaged))
    other = replayed(dataclasses.replace(config, replay=str(file)))
    assert other.status == "failed" and "the journal is damaged" in str(other.error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected the journal of a run"),
        ("[]", "expected an object"),
        ('{"digest": 1}', "expected the journal of a run"),
        ("x" * 100, "expected the journal of a run"),
    ],
)
def test_another_file_is_no_journal(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_journal(tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": [[[[0, 0, 1, 0]]]]}, "updates of 1 servers, where there are 2"),
        ({"epochs": [[[[0, 9, 1, 0, 0]], []]]}, r"the update \[0, 9, 1, 0, 0\]"),
        ({"chunks": [[0], [1]]}, "each of 256 chunks"),
        ({"format": 2}, "format 2"),
    ],
)
def test_a_damaged_journal_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    journal = Journal("d", "f", "v", 3, [list(range(200)), list(range(200, 256))])
    journal.write(tmp_path / "journal")
    assert read_journal(tmp_path / "journal") == journal
    dataclasses.replace(journal, **changes).write(tmp_path / "journal")
    with pytest.raises(UsageError, match=words):
        read_journal(tmp_path / "journal")


@pytest.mark.parametrize("compress", [pytest.param("fp16", marks=pytest.mark.long), "topk:0.1"])
def test_a_checkpoint_has_what_was_not_sent(
    cache: Path, tmp_path: Path, alone: dict[str, Any], compress: str
) -> None:
    """One worker sends the same, whether it was interrupted or not."""
    config = config_of(cache, workers=1, servers=2, compress=compress)
    whole = trained(config)
    folder = str(tmp_path / "saved")
    first = trained(dataclasses.replace(config, epochs=1, checkpoint_dir=folder))
    then = trained(dataclasses.replace(config, checkpoint_dir=folder, resume=True))
    assert first.status == then.status == "ok", (first.error, then.error)
    losses = [*(first.step_losses or ()), *(then.step_losses or ())]
    assert losses == pytest.approx(whole.step_losses, rel=1e-12)
    assert then.final == pytest.approx(whole.final, rel=1e-12)
    assert losses != pytest.approx(alone["step_losses"], rel=1e-6) and not whole.same_curve
    server, size = whole.parameter_server, whole.allreduce_bytes_per_step
    assert server is not None and size is not None
    # float64: 2 of 8 bytes; or a tenth of the entries, of 8 + 4 bytes each
    share = {"fp16": 0.25, "topk:0.1": 0.15}[compress]
    assert server.bytes_pushed == pytest.approx(share * size * server.pushes, rel=0.01)
    assert server.bytes_pulled == size * server.pushes


def test_compressed_pushes_of_several_workers_learn(cache: Path) -> None:
    config = config_of(cache, workers=2, staleness="1", compress="topk:0.05", epochs=4)
    record = trained(config)
    assert record.status == "ok", record.error
    assert record.step_losses is not None
    assert sum(record.step_losses[-5:]) < 0.8 * sum(record.step_losses[:5])


JOINED = {"role": "worker", "version": version(), "host": "here", "pid": 1}


@pytest.fixture
def coordinator() -> Iterator[Callable[..., Any]]:
    """Gives `call(method, request, secret=SECRET)` to a coordinator of one server."""
    job = Job(version(), "digest of the settings", "fingerprint of the graph")
    service = Service("Coordinator", Coordinator(job, 2, 1, 0, 60), "127.0.0.1", 0, SECRET)

    def call(method: str, request: Any, secret: str = SECRET) -> Any:
        peer = Peer("Coordinator", service.address, secret, "the coordinator", patient(10))
        try:
            return peer.call(method, request)
        finally:
            peer.close()

    yield call
    service.stop(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "protocol 0"}, "expected a worker of version .*, got protocol 0 on here"),
        ({"role": "spy"}, "expected a server or a worker, got 'spy'"),
    ],
)
def test_a_stranger_is_refused(
    coordinator: Callable[..., Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        coordinator("Join", messages.JoinRequest(**{**JOINED, **changes}))


def test_a_wrong_secret_is_refused(coordinator: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="expected the secret of the coordinator at .*--secret-f"):
        coordinator("Join", messages.JoinRequest(**JOINED), "another secret of sixteen")


def test_a_server_too_many_is_refused(coordinator: Callable[..., Any]) -> None:
    request = messages.JoinRequest(**{**JOINED, "role": "server", "address": "127.0.0.1:1"})
    assert coordinator("Join", request).member == 0
    with pytest.raises(
        UsageError, match="expected 1 servers, as the coordinator's --servers and --standby"
    ):
        coordinator("Join", request)


@pytest.mark.parametrize("differs", ["digest", "fingerprint"])
def test_a_worker_of_other_settings_or_another_graph_is_refused(
    coordinator: Callable[..., Any], differs: str
) -> None:
    same = {"digest": "digest of the settings", "fingerprint": "fingerprint of the graph"}
    assert coordinator("Ready", messages.ReadyRequest(worker=0, **same)).term == 0
    what = {"digest": "settings", "fingerprint": "graph"}[differs]
    with pytest.raises(UsageError, match=f"expected the {what} of the coordinator .*got others"):
        coordinator("Ready", messages.ReadyRequest(worker=0, **{**same, differs: "other"}))


def test_a_second_coordinator_at_the_same_port_is_refused() -> None:
    coordinator = Coordinator(Job("", "", ""), 1, 1, 0, 60)
    service = Service("Coordinator", coordinator, "127.0.0.1", 0, "s")
    try:
        with pytest.raises(UsageError, match="expected a free port, got .*another coordinator"):
            Service("Coordinator", coordinator, "127.0.0.1", service.port, "s")
    finally:
        service.stop(0)
