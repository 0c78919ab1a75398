"""The picture of what ranks used: their samples, drawn as they are, and gaps as gaps."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.rows import ReportOptions
from tests.unit.made_records import run, used

gallery = pytest.importorskip(
    "gnn_core.report.figures.gallery", reason="needs matplotlib", exc_type=ImportError
)
figures = pytest.importorskip(
    "gnn_core.report.figures.runs", reason="needs matplotlib", exc_type=ImportError
)


def steps(axes: Any) -> list[list[float]]:
    return [patch.get_data().values.tolist() for patch in axes.patches]


def of_ranks(*ranks: Any, strategy: str = "horovod", **changes: Any) -> RunRecord:
    return run(strategy, len(ranks), resources=list(ranks), **changes)


def test_each_rank_has_a_line_and_each_network_one() -> None:
    figure = figures.resource_lines(of_ranks(used((0.5, 1.0)), used((0.25, 2.0))))
    cores, memory, network, files = figure.axes
    assert steps(cores) == [[0.5, 1.0], [0.25, 2.0]]
    assert steps(memory) == [[1.0, 1.0]] * 2
    assert steps(network) == [[2.0, 2.0], [5.0, 5.0]], "once for both, and over loopback"
    assert steps(files) == [[1.0, 1.0]] * 2
    assert cores.patches[0].get_data().edges.tolist() == [0.0, 1.0, 2.0]
    (key,) = figure.legends
    assert [text.get_text() for text in key.texts] == ["rank 0", "rank 1", "over loopback"]
    other = dataclasses.replace(used(), network_mark="a1")
    assert len(figures.resource_lines(of_ranks(used(), other)).axes[2].patches) == 4


def test_a_gap_is_a_gap_and_what_no_rank_tells_is_said() -> None:
    gap = used((0.5, None))
    nothing = dataclasses.replace(gap.series, file_bytes_per_second=[None, None])
    figure = figures.resource_lines(of_ranks(dataclasses.replace(gap, series=nothing), None))
    (values,) = steps(figure.axes[0])
    assert values[0] == 0.5 and math.isnan(values[1])
    assert steps(figure.axes[3]) == []
    assert [text.get_text() for text in figure.axes[3].texts] == ["not reported by this system"]


def test_many_ranks_are_named_by_the_first_and_the_last() -> None:
    figure = figures.resource_lines(of_ranks(*[used()] * 20))
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names == ["rank 0", "rank 19", "over loopback"]
    replicas = run("mirrored", 2, resources=[used()])
    (key,) = figures.resource_lines(replicas).legends
    assert key.texts[0].get_text() == "one process, 2 replicas"


def test_the_largest_and_newest_good_run_of_each_strategy_is_drawn(tmp_path: Path) -> None:
    old, new = of_ranks(used(), used()), of_ranks(used(), used())
    failed = of_ranks(*[used()] * 4, status="failed", error="x")
    single = of_ranks(used(), strategy="single")
    records = [new, old, of_ranks(used()), failed, run("ddp", 2), single]
    assert old.started_at < new.started_at
    assert figures.drawn_runs(records) == [single, new]
    files, missing = gallery.draw_figures(records, tmp_path, ReportOptions())
    names = [file.name for file in files if file.name.startswith("resources")]
    assert names == ["resources-cora.png", "resources-cora-2.png"]
    assert not any(line.startswith("resources") for line in missing)
