"""Predictions from records and probes: what they amount to, what is said and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.prediction.allreduce import Cost
from gnn_core.report.prediction.work import predict, work_in
from gnn_core.report.scaling import main
from gnn_core.usage import UsageError
from tests.unit.made_records import CLUSTER, MACHINE, epoch, run

BYTES = 100_000
COST = Cost(2e-3, 1e-4, 1e-8)
# One step an epoch: the made data set has 140 targets to train on.
BATCH = {"global_batch_size": 140}


def timed(strategy: str, ranks: int, seconds: float, communicate: float, **more: Any) -> RunRecord:
    """A run whose steps take so many seconds, of which that share is spent communicating."""
    made = run(strategy, ranks, config={**BATCH, **more.pop("config", {})}, **more)
    epochs = [epoch(0, 100.0), epoch(1, seconds, communicate), epoch(2, seconds, communicate)]
    return dataclasses.replace(made, epochs=epochs, allreduce_bytes_per_step=BYTES)


@pytest.fixture
def probe(tmp_path: Path) -> Callable[..., Path]:
    """Write the file of a probe on so many ranks, exact by COST unless `seconds` are given."""

    def write(ranks: int, **changes: Any) -> Path:
        sizes = [4**power for power in range(1, 13)]
        seconds = COST.seconds(ranks, sizes)
        made = {
            "strategy": "horovod",
            "controller": "mpi",
            "num_ranks": ranks,
            "hosts": [f"h{number}" for number in range(ranks)],
            "ranks_per_host": [1] * ranks,
            "message_bytes": sizes,
            "repetitions": [9] * 12,
            "lower_quartile_seconds": (0.8 * seconds).tolist(),
            "median_seconds": seconds.tolist(),
            "upper_quartile_seconds": (1.5 * seconds).tolist(),
        }
        machine = changes.pop("machine", MACHINE)
        path = tmp_path / f"probe-{ranks}.json"
        content = {"machine": machine, "commit": None, "probe": {**made, **changes}}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., str]:
    """Write records, and give the folder."""

    def keep(*records: RunRecord) -> str:
        for record in records:
            write_record(record, tmp_path / "records")
        return str(tmp_path / "records")

    return keep


def test_strong_and_weak_steps_are_made_of_their_parts() -> None:
    work = work_in([timed("single", 1, 0.8, 0.0), timed("horovod", 2, 0.5, 0.1)], "horovod", None)
    # Two ranks took 0.45 s without communicating: 0.1 s of the 0.8 s did not divide.
    assert work.fixed_seconds == pytest.approx(0.1) and work.alone_seconds == pytest.approx(0.8)
    sent = float(COST.seconds(8, BYTES))
    strong, weak = predict(work, COST, 8), predict(work, COST, 8, weak=True)
    assert strong.communicate_seconds == weak.communicate_seconds == pytest.approx(sent)
    assert strong.step_seconds == pytest.approx(0.1 + 0.7 / 8 + sent)
    assert strong.speedup == pytest.approx(0.8 / strong.step_seconds)
    assert weak.step_seconds == pytest.approx(0.8 + sent)
    assert weak.efficiency == pytest.approx(0.8 / weak.step_seconds)
    assert weak.speedup == pytest.approx(8 * weak.efficiency)


def test_efficiency_falls_with_the_ranks_and_a_free_network_costs_nothing() -> None:
    work = work_in([timed("horovod", 1, 0.8, 0.0)], "horovod", None)
    assert work.fixed_seconds is None
    for weak in (False, True):
        falling = [predict(work, COST, 2**power, weak=weak).efficiency for power in range(10)]
        assert falling == sorted(falling, reverse=True) and falling[0] <= 1
        free = predict(work, Cost(0, 0, 0), 512, weak=weak)
        assert free.efficiency == pytest.approx(1)


def test_the_one_rank_run_is_single_before_the_strategys_own() -> None:
    own, single = timed("horovod", 1, 0.6, 0.1), timed("single", 1, 0.8, 0.0)
    assert work_in([own, single], "horovod", None).base.strategy == "single"
    assert work_in([own], "horovod", None).alone_seconds == pytest.approx(0.54)


def test_crowded_ranks_do_not_tell_what_does_not_divide() -> None:
    two = timed("horovod", 2, 0.9, 0.0, config={"threads": 2})  # four threads on two cores
    work = work_in([timed("single", 1, 0.8, 0.0), two], "horovod", None)
    assert work.fixed_seconds is None and [one.crowded for one in work.runs] == [True]


def test_the_table_tells_prediction_from_measurement(
    kept: Callable[..., str], probe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(timed("single", 1, 0.8, 0.0), timed("horovod", 2, 0.5, 0.1))
    assert main([folder, "--probe-file", str(probe(2)), str(probe(1))]) == 0
    said = capsys.readouterr().out
    rows = [line.split("|")[1:4] for line in said.splitlines() if line.startswith("| ")][2:]
    reported = [(what.strip(), int(ranks)) for what, _, ranks in rows]
    # 256 ranks would have no target each in a batch of 140.
    assert reported == [
        ("measured", 1),
        ("measured", 2),
        *(("PREDICTED", ranks) for ranks in (2, 8, 16, 32, 64, 128)),
    ]
    assert said.startswith("PREDICTION of strong scaling: horovod on cora")
    for note in (
        "not measured",
        "ring: fixed part 2.00 ms, alpha 100",
        "not modelled: ranks that wait",
        "of a step 100",
        "more ranks than the 140 targets",
        "1 rank on 1 host, 2 ranks on 2 hosts",
    ):
        assert note in said
    assert "shared a host" not in said and "other programs" not in said
    busy = probe(2, machine={**MACHINE, "load_average": 3.0}, hosts=["h"], ranks_per_host=[2])
    assert main([folder, "--probe-file", str(busy)]) == 0
    said = capsys.readouterr().out
    assert "shared a host" in said and "other programs ran beside the probe" in said
    assert "cannot be told from alpha" in said  # no probe of 1 rank


def test_weak_scaling(
    kept: Callable[..., str], probe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(timed("single", 1, 0.8, 0.0))
    probes = [str(probe(ranks)) for ranks in (1, 2, 4)]
    assert main([folder, "--weak", "--probe-file", *probes]) == 0
    said = capsys.readouterr().out
    assert "no measured weak scaling" in said
    assert said.count("| PREDICTED |") == 7 and "| measured" not in said


def test_the_figure_is_drawn(
    kept: Callable[..., str], probe: Callable[..., Path], tmp_path: Path
) -> None:
    folder = kept(timed("single", 1, 0.8, 0.0), timed("horovod", 2, 0.5, 0.1))
    for way, name in (
        ("--strong", "scaling-horovod-cora.png"),
        ("--weak", "weak-horovod-cora.png"),
    ):
        drawn = tmp_path / "figures"
        assert main([folder, way, "--probe-file", str(probe(2)), "--figures", str(drawn)]) == 0
        assert (drawn / name).read_bytes()[1:4] == b"PNG"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command is refused."""
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_ranks": 1}, "expected a probe of 2 ranks or more, got 1 rank"),
        ({"strategy": "ddp"}, "expected a probe of horovod, got one of ddp"),
        ({"machine": CLUSTER}, "expected a probe of the records' machine"),
        ({"median_seconds": [float("nan")] * 12}, "holds NaN"),
        ({"median_seconds": [0.0] * 12}, "finite and above 0"),
        ({"median_seconds": [1e-3]}, "as many repetitions"),
        ({"message_bytes": [4] * 12}, "two message sizes"),
        ({"colour": "red"}, "unknown field probe.colour"),
    ],
)
def test_a_probe_that_cannot_serve_is_refused(
    kept: Callable[..., str],
    probe: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    expected: str,
) -> None:
    folder = kept(timed("single", 1, 0.8, 0.0))
    assert expected in refused(capsys, folder, "--probe-file", str(probe(2, **changes)))


def test_another_machine_can_be_forced_and_is_named(
    kept: Callable[..., str], probe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(timed("single", 1, 0.8, 0.0))
    assert main([folder, "--force", "--probe-file", str(probe(2, machine=CLUSTER))]) == 0
    assert "probe and records are of different machines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([timed("horovod", 2, 0.5, 0.1)], "expected a run of 1 rank, of single or of horovod"),
        ([run()], "expected records with one allreduce_bytes_per_step, got none"),
        ([timed("ddp", 2, 0.5, 0.1)], "expected runs of horovod or single that ended well"),
        (
            [timed("single", 1, 0.8, 0.0), timed("single", 1, 0.8, 0.0, machine=CLUSTER)],
            "expected runs of one kind of machine",
        ),
        (
            [timed("single", 1, 0.8, 0.0), timed("single", 1, 0.8, 0.0, config={"hidden": 7})],
            "expected runs of one set of settings, got 2",
        ),
    ],
)
def test_records_that_cannot_serve_are_refused(records: list[RunRecord], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        work_in(records, "horovod", None)
    assert "\n" not in str(caught.value)


def test_mistakes_on_the_command_line(
    kept: Callable[..., str], probe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = kept(timed("single", 1, 0.8, 0.0)), str(probe(2))
    assert "one of the arguments --probe --probe-file" in refused(capsys, folder)
    assert "--probe-ranks: expected a whole number from 2" in refused(
        capsys, folder, "--probe", "--probe-ranks", "1"
    )
    assert "there is no /nowhere" in refused(capsys, "/nowhere", "--probe-file", file)
    assert "cannot read" in refused(capsys, folder, "--probe-file", "/nowhere")
    wrong = Path(folder) / "x.json"
    wrong.write_text('{"machine": {}}', encoding="utf-8")
    assert "of something else" in refused(capsys, folder, "--probe-file", str(wrong))
    assert "not allowed" in refused(capsys, folder, "--probe-file", file, "--strong", "--weak")
    said = refused(capsys, folder, "--dataset", "pubmed", "--probe-file", file)
    assert "on pubmed, got none" in said
