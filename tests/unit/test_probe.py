"""The probe on one process: what it writes can be read again, what it cannot do is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gnn_core.measure.strict_json import build, parse
from gnn_core.report.prediction.probe_files import Probe
from gnn_core.report.tables.benches import read_benches
from gnn_core.usage import UsageError

pytestmark = pytest.mark.needs_torch


def probe(*argv: str) -> int:
    from horovod_gnn.parallel import SingleProcess
    from horovod_gnn.probe import main

    return main(SingleProcess, "ddp", argv)


def test_the_file_is_a_benchmark_and_a_probe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "probe.json"
    assert probe("--bytes", "4", "4096", "--repetitions", "7", "--json", str(file)) == 0
    (bench,), problems = read_benches(file)
    assert not problems and bench.benchmark == "allreduce, ddp, 1 rank on 1 host"
    assert "|  4096 |" in capsys.readouterr().out
    found = build(Probe, parse(file.read_text())["probe"])
    assert (found.num_ranks, found.message_bytes, found.repetitions) == (1, [4, 4096], [7, 7])
    low, middle, high = (
        np.array(some)
        for some in (
            found.lower_quartile_seconds,
            found.median_seconds,
            found.upper_quartile_seconds,
        )
    )
    assert (low > 0).all() and (low <= middle).all() and (middle <= high).all()
    assert [row[0] for row in bench.rows] == [4, 4096]
    assert [row[1] for row in bench.rows] == pytest.approx((1000 * middle).tolist())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--bytes", "4", "6"], "expected multiples of 4, got 6"),
        (["--bytes", "0"], "--bytes: expected a whole number from 4, got 0"),
        (["--repetitions", "1"], "--repetitions: expected a whole number from 5, got 1"),
        (["--seconds", "nan"], "--seconds: expected a finite number"),
        (["--json", "/nowhere/at/all.json"], "expected a folder that is there"),
        (["--sizes", "4"], "unrecognized arguments"),
    ],
)
def test_mistakes_are_reported_before_anything_is_measured(argv: list[str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        probe(*argv)
    assert "\n" not in str(caught.value)
