"""Metrics and logs of whole runs: a real Prometheus scrapes two ranks, and each line is JSON."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from gnn_core.measure.records import read_records
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "mpi-operator" / "monitoring"
SMALL = ["--dataset", "synthetic:papers=2000", "--progress", "lines"]


def free_ports(count: int) -> int:
    """The first of so many ports in a row where nobody listens."""
    for port in range(21_000, 30_000, count):
        try:
            for one in range(port, port + count):
                socket.create_server(("", one)).close()
        except OSError:
            continue
        return port
    raise RuntimeError("no free ports")


@pytest.mark.needs_torch
def test_every_line_of_a_run_is_json(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    program = ["python", "baselines/single.py", *SMALL, "--epochs", "2", "--log-format", "json"]
    done = run_cli([*program, "--records", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (record,), problems = read_records(tmp_path)
    assert not problems
    assert {line["run_id"] for line in lines} <= {None, record.run_id}
    epochs = [line for line in lines if line["message"].startswith("epoch ")]
    assert len(epochs) == 2 and {line["run_id"] for line in epochs} == {record.run_id}
    for line in lines:
        assert (line["level"], line["rank"], line["host"]) == ("info", 0, record.hosts[0])


@pytest.mark.needs_torch
@pytest.mark.needs_prometheus_client
def test_a_port_that_is_taken_ends_the_run_before_it_begins(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        program = ["python", "baselines/single.py", *SMALL, "--metrics-port", port]
        done = run_cli([*program, "--records", str(tmp_path)])
    assert (done.returncode, done.stdout.count("epoch ")) == (2, 0)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --metrics-port: rank 0 is to listen at port {port}, and cannot")


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.needs_prometheus_client
def test_prometheus_scrapes_two_ranks(tmp_path: Path) -> None:
    """What alerts and the dashboard ask has answers, while the ranks train."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    port = free_ports(3)
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    targets = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "ringsage", "static_configs": [{"targets": targets}]}],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    flags = [*SMALL, "--epochs", "1000000", "--records", str(tmp_path)]
    mpirun = str(Path(sys.executable).parent / "mpirun")
    train = [mpirun, "-np", "2", sys.executable, "horovod_gnn/train.py", *flags]
    server = ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data"]
    server += [f"--web.listen-address=127.0.0.1:{port + 2}"]
    started = [
        subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
        for words, folder, log in (
            ([*train, "--metrics-port", str(port)], ROOT, (tmp_path / "run.log").open("w")),
            (server, tmp_path, (tmp_path / "prometheus.log").open("w")),
        )
    ]
    try:
        _ask_what_the_monitoring_asks(f"http://127.0.0.1:{port + 2}", tmp_path)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(patient(30))


def _ask_what_the_monitoring_asks(url: str, folder: Path) -> None:
    def ask(query: str) -> list[Any]:
        with urlopen(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found

    deadline = time.monotonic() + patient(60)
    while True:
        try:
            if all(
                len(ask(f"rate(ringsage_{name}[10s])")) == 2
                for name in ("steps_total", "step_seconds_count")
            ):
                break
        except OSError:  # it has not begun to listen
            pass
        assert time.monotonic() < deadline, (folder / "run.log").read_text()
        time.sleep(1)
    assert {one["metric"]["rank"] for one in ask("ringsage_loss")} == {"0", "1"}
    assert {one["value"][1] for one in ask("ringsage_world_size")} == {"2"}
    (info,) = {one["metric"]["dataset"] for one in ask("ringsage_run")}
    assert info.startswith("synthetic")
    board = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for query in queries:
        filled = query.replace("$__rate_interval", "10s").replace("$run", ".*")
        if "valid_score" not in query:  # which comes with an evaluation
            assert ask(filled), query
    with urlopen(f"{url}/api/v1/rules", timeout=10) as answer:
        (group,) = json.load(answer)["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
