"""What ranks use is sampled beside the training, gathered, and never in the way."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.feature_store import TableStore
from gnn_core.data.graph import Graph
from gnn_core.measure.metrics import Tally
from gnn_core.measure.records import read_records, write_record
from gnn_core.measure.resources.counters import Counters
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import RunRecord
from gnn_core.measure.soundness import checked
from gnn_core.measure.strict_json import build
from gnn_core.measure.timing import Stopwatch
from gnn_core.report.rows import settings_of
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.trainer import Trainer
from gnn_core.training.world import World
from tests.unit.made_ranks import on_ranks
from tests.unit.made_records import run

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux")
TALLY = Tally(0.5, 1, 1)


class IdleLearner:
    """Learns nothing, and lets a test say when its one epoch is over."""

    interrupted, num_steps, num_parameters, allreduce_bytes_per_step = False, 1, 1, 0
    device, bf16_products, parameter_server = "cpu", None, None
    store = TableStore(np.zeros((1, 1), np.float32))

    def __init__(self, in_epoch: Any = lambda: None) -> None:
        self.watch, self._in_epoch = Stopwatch(), in_epoch
        self.work: list[Any] = []

    def train_epoch(self, progress: Any, after_step: Any) -> Tally:
        self._in_epoch()
        after_step(0.5)
        return TALLY

    def evaluate(self, splits: tuple[str, ...], whole: bool = True) -> dict[str, Tally]:
        return dict.fromkeys(splits, TALLY)

    def notes(self) -> list[str]:
        return []

    def weights(self) -> dict[str, Any]:
        return {}

    load_weights = load_optimizer_state = lambda self, weights: None
    optimizer_state = weights

    def warm_up(self) -> None:
        self.threads_before = threading.active_count()


def trained(
    graph: Graph, world: World, sample_seconds: float, in_epoch: Any = lambda: None
) -> RunRecord:
    """The record of one epoch on one of the ranks."""
    config = RunConfig(
        dataset="tiny", epochs=1, eval_every=1, sample_seconds=sample_seconds, quiet=True
    )
    trainer = Trainer("horovod", config, graph, world, IdleLearner(in_epoch))
    return trainer.run(ElasticState(ResourceSampler(sample_seconds)))


def threads_of_samplers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "resource sampler"]


def summary_of(sampler: ResourceSampler) -> ProcessResources | None:
    sampler.start()
    sampler.stop()
    return sampler.summary()


@LINUX
def test_every_rank_is_in_the_record_of_each(tiny_graph: Graph, tmp_path: Path) -> None:
    records = on_ranks(["a", "a", "b"], lambda world: trained(tiny_graph, world, 1.0))
    used = records[0].resources
    assert len(used) == 3
    assert [record.resources for record in records] == [used] * 3
    for one in used:
        assert one.num_samples >= 2 and one.rss_bytes_peak > 2**20
        assert one.seconds == one.series.seconds[-1]
        assert 0 < one.sampler_cpu_seconds < 1
        assert one.cpu_source in ("cgroup v2", "cgroup v1", "host")
    record = dataclasses.replace(records[0], hosts=["a", "b"], ranks_per_host=[2, 1])
    write_record(record, tmp_path)
    (again,), problems = read_records(tmp_path)
    assert (again.resources, problems) == (used, [])


@LINUX
def test_it_sees_what_the_training_uses(tiny_graph: Graph) -> None:
    """Samples are taken while an epoch goes on: here until the thread has burnt a tenth."""
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.extend(threads_of_samplers())
        end = time.process_time() + 0.6
        while time.process_time() < end:
            pass

    (used,) = trained(tiny_graph, World(), 0.05, work).resources
    assert used is not None and used.cpu_cores_mean is not None
    assert used.num_samples >= 3
    assert used.cpu_cores_mean * used.seconds > 0.2
    assert 0 < used.cpu_cores_mean <= used.cpu_cores_peak
    assert [one.daemon for one in seen] == [True], "a run that dies is not held up"
    assert threads_of_samplers() == []


def test_switched_off_there_is_no_thread_and_no_field_filled(tiny_graph: Graph) -> None:
    seen: list[threading.Thread] = []
    record = trained(tiny_graph, World(), 0, lambda: seen.extend(threads_of_samplers()))
    assert (seen, record.resources) == ([], [])
    assert [rank.peak_rss_bytes is None for rank in record.memory] in ([False], [True])


def test_a_kernel_that_writes_something_else_costs_samples_but_no_run() -> None:
    class Broken(Counters):
        def read(self, at_seconds: float) -> Any:
            raise ValueError("no such number")

    assert summary_of(ResourceSampler(1.0, Broken)) is None

    def no_counters() -> Counters:
        raise PermissionError("no /proc for you")

    assert summary_of(ResourceSampler(1.0, no_counters)) is None


def test_no_more_threads_are_no_reason_not_to_train(
    tiny_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert trained(tiny_graph, World(), 1.0).resources == []


@LINUX
def test_the_last_sample_is_taken_when_the_training_fails(tiny_graph: Graph) -> None:
    def fail() -> None:
        raise KeyError

    (used,) = trained(tiny_graph, World(), 1.0, fail).resources
    assert used is not None and used.num_samples >= 2
    assert threads_of_samplers() == []


def test_a_rank_that_could_not_sample_is_none_among_the_others(tmp_path: Path) -> None:
    known = ProcessResources(num_samples=1, seconds=0.0, sampler_cpu_seconds=0.0)
    record = run("horovod", 2, resources=[known, None])
    write_record(record, tmp_path)
    assert read_records(tmp_path) == ([record], [])


def test_records_from_before_are_read() -> None:
    values, remarks = checked(run())
    assert remarks == [] and values.pop("resources") == []
    del values["config"]["sample_seconds"]
    old = build(RunRecord, values)
    assert old.resources == []
    assert settings_of(old) == settings_of(run()), "they are still repetitions of each other"


def test_how_often_is_no_setting_of_the_curve(parse: Any) -> None:
    assert parse("--sample-seconds", "0").digest() == parse().digest()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.001", "expected 0 (no samples) or at least 0.05, so that looking does not slow down"),
        ("-1", "expected a finite number at least 0 and at most 3600, got -1.0"),
        ("nan", "expected a finite number at least 0"),
        ("1e9", "at most 3600"),
        ("often", "expected a number, got 'often'"),
    ],
)
def test_what_cannot_be_sampled_is_refused(complaint: Any, given: str, expected: str) -> None:
    message = complaint("--sample-seconds", given)
    assert message.startswith("--sample-seconds: ") and expected in message
