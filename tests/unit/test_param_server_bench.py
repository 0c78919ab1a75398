"""The bench of the parameter server: what it makes of records, without the runs themselves."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time

import psutil

from baselines import param_server_bench as bench
from gnn_core.bench.frame import Variant
from gnn_core.measure.run_record import ParameterServerRecord
from tests.patience import patient
from tests.unit.made_records import run

SERVED = ParameterServerRecord(
    servers=1,
    chunks=[256],
    staleness="3",
    compress="none",
    pushes=4,
    bytes_pulled=3_000_000,
    bytes_pushed=1_000_000,
    unfinished_steps={"0": 3, "2": 1},
    updates_between={"0": 4},
    lost_workers=0,
    lost_servers=0,
    repeated_parts=0,
)


def test_the_record_has_a_row_for_each_variant() -> None:
    made = run("param-server", 2, 4.0, 0.75, step_losses=[1.0, 0.5])
    made = dataclasses.replace(made, parameter_server=SERVED)
    variants = [Variant("server", lambda: made, [made]), Variant("one", run, [run("single")])]
    options = argparse.Namespace(dataset="cora", workers=2, epochs=3, rounds=1)
    record = bench._record(options, variants, {"load_average": 0.0})
    assert [row[0] for row in record["rows"]] == ["server", "one"]
    assert record["rows"][0][2:] == ["75.00", "2.000", "0:3 2:1"]
    assert all(len(row) == len(record["columns"]) for row in record["rows"])
    json.dumps(record)


def test_a_worker_is_stopped_half_of_the_time() -> None:
    words = [sys.executable, "-c", "import time; time.sleep(600)", "--role", "worker"]
    with subprocess.Popen(words) as child:
        try:
            seen: set[str] = set()
            deadline = time.monotonic() + patient(20)
            with bench._slowed():
                while not seen >= {"stopped", "sleeping"} and time.monotonic() < deadline:
                    seen.add(psutil.Process(child.pid).status())
                    time.sleep(0.01)
            assert {"stopped", "sleeping"} <= seen
            assert psutil.Process(child.pid).status() != "stopped"
        finally:
            child.kill()
