"""Metrics of a rank: what a scrape and the file say, and that nothing in them ends a run."""

from __future__ import annotations

import dataclasses
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from gnn_core.config import UsageError
from gnn_core.files import file_of_rank
from gnn_core.measure.exporter import Exporter, Watched
from gnn_core.measure.run_record import ParameterServerRecord
from gnn_core.measure.timing import Stopwatch
from gnn_core.training.process_state import threads
from tests.unit.made_records import epoch, run

MONITORING = Path(__file__).resolve().parents[2] / "mpi-operator" / "monitoring"
pytestmark = pytest.mark.needs_prometheus_client
SERVED = ParameterServerRecord(
    servers=1,
    chunks=[256],
    staleness="2",
    compress="none",
    pushes=5,
    bytes_pulled=70,
    bytes_pushed=30,
    unfinished_steps={"0": 3, "2": 2},
    updates_between={},
    lost_workers=0,
    lost_servers=0,
    repeated_parts=0,
)


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(clock: Clock) -> Watched:
    return Watched(
        record=run("horovod", 2, config={"global_batch_size": 64}),
        rank=1,
        targets=140,
        watch=Stopwatch(clock),
        bytes_per_step=1000,
        exchanged=lambda: None,
        served=lambda: None,
    )


@pytest.fixture
def scraped(watched: Watched) -> Iterator[Any]:
    """Give `scraped(**changes)`: an exporter, and what asks it for its values."""
    opened = []

    def make(**changes: Any) -> tuple[Exporter, Any]:
        port = free_port()
        exporter = Exporter(dataclasses.replace(watched, **changes), port, None)
        opened.append(exporter)

        def read() -> dict[str, float]:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return values(answer.read().decode())

        return exporter, read

    yield make
    for exporter in opened:
        exporter.close()


def values(text: str) -> dict[str, float]:
    """Name and own labels -> value, such as `bytes_total what=allreduce`; all of rank 1."""
    found = {}
    for name, labels, value in re.findall(r"^ringsage_(\w+)\{(.*)\} (\S+)$", text, re.M):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert pairs.pop("rank") == "1" and len(pairs.pop("run_id")) == 32
        own = " ".join(f"{key}={one}" for key, one in pairs.items())
        found[f"{name} {own}".strip()] = float(value)
    return found


def test_a_scrape_tells_where_the_run_stands(scraped: Any, watched: Watched, clock: Clock) -> None:
    exporter, read = scraped()
    before = read()
    assert (before["running"], before["world_size"], before["steps_total"]) == (1, 2, 0)
    assert before["run dataset=cora strategy=horovod"] == 1
    assert before["memory_bytes"] > 1e6
    for step, seconds in enumerate((1.0, 2.0, 3.0)):
        with watched.watch.section("compute"):
            clock.now += seconds
        exporter.step(0, step, 2.5 - step)
    got = read()
    assert (got["steps_total"], got["loss"], got["epoch"]) == (3, 0.5, 1)
    assert got["targets_total"] == 140  # 64, 64 and the 12 that are left
    assert got["section_seconds_total section=compute"] == 6
    assert got["bytes_total what=allreduce"] == 3000
    assert got["step_seconds_count"] == 2
    watched.watch.lap()
    exporter.epoch(dataclasses.replace(epoch(0, 6.0), valid_accuracy=0.75, lr=0.5))
    with watched.watch.section("compute"):
        clock.now += 1.5  # less than in the lap before: a new one has begun
    exporter.step(1, 0, 0.25)
    got = read()
    assert got["section_seconds_total section=compute"] == 7.5
    assert (got["valid_score name=accuracy"], got["learning_rate"], got["epoch"]) == (0.75, 0.5, 2)
    exporter.finished(watched.record)
    assert read()["running"] == 0


def test_counts_of_others_grow_by_what_is_new(scraped: Any) -> None:
    sent = {"bytes_sent": 100, "sampling_bytes": 10}
    exporter, read = scraped(exchanged=lambda: sent, served=lambda: SERVED)
    exporter.epoch(epoch(0, 1.0))
    exporter.epoch(epoch(1, 1.0))
    sent["bytes_sent"] = 150
    exporter.epoch(epoch(2, 1.0))
    got = read()
    assert got["bytes_total what=features"] == 150 and got["bytes_total what=sampling"] == 10
    assert got["bytes_total what=pulled"] == 70 and got["bytes_total what=pushed"] == 30
    assert got["slices_total unfinished_steps=0"] == 3
    assert got["slices_total unfinished_steps=2"] == 2


def test_the_file_has_the_same(watched: Watched, tmp_path: Path) -> None:
    file = file_of_rank("--metrics-textfile", str(tmp_path / "run.prom"), ".prom", 1)
    assert file.name == "run.rank1.prom"
    exporter = Exporter(watched, 0, file)
    assert values(file.read_text())["steps_total"] == 0
    assert len(exporter.threads) == 1 and set(exporter.threads) < threads()
    exporter.step(0, 0, 1.0)
    exporter.close()
    assert values(file.read_text())["steps_total"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["run.rank1.prom"]


def test_what_fails_later_is_said_once(scraped: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise RuntimeError("no\nsuch thing")

    exporter, read = scraped(exchanged=broken)
    exporter.epoch(epoch(0, 1.0))
    exporter.epoch(epoch(1, 1.0))
    exporter.step(2, 0, 1.0)
    assert read()["steps_total"] == 1
    assert capsys.readouterr().err == "note       the metrics are cut: no such thing\n"


def test_a_port_or_a_file_that_cannot_be_used_is_one_line(watched: Watched, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"rank 1 is to listen at port {port}, and cannot"):
            Exporter(watched, port, None)
    with pytest.raises(UsageError, match="--metrics-port: .* port 65536"):
        Exporter(watched, 65_536, None)
    with pytest.raises(UsageError, match="--metrics-textfile .*: cannot write it"):
        Exporter(watched, 0, tmp_path / "none" / "run.prom")
    with pytest.raises(UsageError, match="ends with .prom"):
        file_of_rank("--metrics-textfile", "run.txt", ".prom", 0)


def test_a_closed_exporter_gives_its_port_back(watched: Watched) -> None:
    port = free_port()
    for _ in range(2):  # as when the ranks of an elastic run have changed
        Exporter(watched, port, None).close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool of Prometheus")
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    ranks = ['ringsage_running{run_id="a",rank="0"}', 'ringsage_running{run_id="a",rank="1"}']
    at = 'ringsage_last_step_timestamp_seconds{run_id="a",rank="0"}'
    cases = [
        # Both run on; rank 1 is gone after ten minutes; both say that the run has ended.
        (["1x40", "1x40"], "0+60x40", 30, []),
        (["1x40", "1x10 stale"], "0+60x40", 15, ["RingsageRankGone"]),
        (["1x40", "1x10 0x30"], "0+60x40", 15, []),
        (["1x10 0x5 stale", "1x10 0x5 stale"], "0+60x15 stale", 20, []),
        (["1x10 stale", "1x10 stale"], "0+60x10 stale", 15, ["RingsageRankGone"]),
        (["1x40", "1x40"], "0+60x10 600x30", 25, ["RingsageStalled"]),
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": [
                *({"series": name, "values": one} for name, one in zip(ranks, shown, strict=True)),
                {"series": at, "values": steps},
            ],
            "alert_rule_test": [
                {
                    "eval_time": f"{minute}m",
                    "alertname": rule["alert"],
                    "exp_alerts": [
                        {
                            "exp_labels": {"run_id": "a", **rule["labels"]},
                            "exp_annotations": {
                                "summary": rule["annotations"]["summary"].replace(
                                    "{{ $labels.run_id }}", "a"
                                )
                            },
                        }
                    ]
                    * (rule["alert"] in fired),
                }
                for rule in rules["groups"][0]["rules"]
            ],
        }
        for shown, steps, minute, fired in cases
    ]
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
