"""What runs used: summed over ranks, nothing that ranks share counted twice, gaps left as gaps."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.resources.record import ProcessResources
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.tables.memory import resource_table, use_of
from tests.patience import patient
from tests.unit.made_records import CLUSTER, run, used

COLUMNS = slice(4, 10)


def of_ranks(*ranks: ProcessResources | None, hosts: int = 1, **changes: Any) -> RunRecord:
    """A run of Horovod, three epochs long, on hosts of 2 cores."""
    each = [len(ranks) // hosts] * hosts
    names = [f"h{host}" for host in range(hosts)]
    record = run("horovod", len(ranks), resources=list(ranks), **changes)
    return dataclasses.replace(record, hosts=names, ranks_per_host=each)


def cells(*records: RunRecord) -> list[tuple[str, ...]]:
    return [line[COLUMNS] for line in resource_table(records).cells]


def test_cores_and_files_add_up_and_what_ranks_share_counts_once() -> None:
    """Two ranks of one pod read the same counters of memory, network and throttling."""
    (line,) = cells(of_ranks(used((0.5, 1.0)), used((0.25, 0.25))))
    assert line == ("1.00 of 2", "2.00 of 8.00", "3.00 / 2.00", "10.0", "6.00 / 2.00", "0.5")


def test_pods_of_a_job_are_added_up() -> None:
    """Throttling is of a cgroup, traffic of a network; cores are those of both hosts."""
    other = used(cgroup_mark="c1", network_mark="a1", cgroup_memory_bytes_peak=6 * 2**30)
    (line,) = cells(of_ranks(used(), other, hosts=2))
    assert line == ("1.50 of 4", "6.00 of 8.00", "6.00 / 4.00", "20.0", "6.00 / 2.00", "1.00")
    one_network = dataclasses.replace(other, network_mark="a0", network_sent_bytes=9_300_000)
    found = use_of(of_ranks(used(), one_network, hosts=2))
    assert found.sent_bytes_per_epoch == 3_100_000, "the largest of those that began a bit apart"
    assert found.throttled_seconds == 1.0


def test_the_cgroup_that_came_nearest_to_its_limit_is_reported() -> None:
    small = used(cgroup_mark="c1", cgroup_memory_bytes_peak=2**30, memory_limit_bytes=2**30)
    assert cells(of_ranks(used(), small, hosts=2))[0][1] == "1.00 of 1.00"


def test_a_sum_without_one_of_its_ranks_is_unknown() -> None:
    (line,) = cells(of_ranks(used(), None))
    assert line == ("- of 2", "2.00 of 8.00", "-", "-", "-", "-")
    (line,) = cells(of_ranks(used(), used(throttled_seconds=None, cgroup_mark="c1")))
    assert line[-1] == "-"
    (line,) = cells(of_ranks(used(memory_limit_bytes=None, throttled_seconds=0.0)))
    assert (line[1], line[-1]) == ("-", "0")


def test_runs_share_a_row_by_their_median_and_failed_ones_are_left_out() -> None:
    records = [of_ranks(used((cores,)), config={"seed": cores}) for cores in (0.5, 0.75, 2.0)]
    failed = of_ranks(used((9.0,)), status="failed", error="x")
    table = resource_table([*records, failed])
    assert [line[3:5] for line in table.cells] == [("3", "0.75 of 2")]
    assert table.numbers.loc[0, ["cores", "cores_min", "cores_max"]].tolist() == [0.75, 0.5, 2.0]
    assert table.notes[-1] == "left out, not ended well: 1 run"


def test_machines_are_told_apart_where_there_are_several() -> None:
    table = resource_table([of_ranks(used()), of_ranks(used(), machine=CLUSTER)])
    assert table.headings[-1] == "machine" and [line[-1] for line in table.cells] == ["M1", "M2"]
    assert sum(note.startswith("machine M") for note in table.notes) == 2
    assert "machine" not in resource_table([of_ranks(used())]).headings


def test_runs_without_samples_stay_and_are_counted() -> None:
    table = resource_table([run(), of_ranks(used())])
    assert [line[1:] for line in table.cells][0] == ("single", "1", "0", *["-"] * 6)
    assert "not sampled: 1 run" in table.notes


def test_the_command_line_shows_it_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run(), tmp_path)
    assert main([str(tmp_path), "--table", "resources"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("wanted: runs that ended well and were sampled (--sample-seconds above 0)")
    write_record(of_ranks(used()), tmp_path)
    for kind in ("text", "markdown", "csv", "latex"):
        assert main([str(tmp_path), "--table", "resources", "--format", kind]) == 0
    assert "2.00 of 8.00" in capsys.readouterr().out


def test_training_needs_nothing_of_the_table() -> None:
    """In a fresh interpreter: what samples imports neither pandas nor matplotlib."""
    ask = (
        "import sys; import gnn_core.training.trainer;"
        "print(sorted({'pandas', 'matplotlib', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(60),
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
