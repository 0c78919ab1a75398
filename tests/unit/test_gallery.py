"""Pictures of scaling: their points are those of the table, and what is missing is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import ProcessMemory, RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.rows import ReportOptions, rows_with_runs, summarize
from gnn_core.report.series import scaling_series
from gnn_core.report.tables.target import target_rows
from tests.unit.made_records import epoch, run, used

gallery = pytest.importorskip(
    "gnn_core.report.figures.gallery", reason="needs matplotlib", exc_type=ImportError
)
bars = pytest.importorskip(
    "gnn_core.report.figures.bars", reason="needs matplotlib", exc_type=ImportError
)
lines = pytest.importorskip(
    "gnn_core.report.figures.scaling_lines", reason="needs matplotlib", exc_type=ImportError
)


def measured(strategy: str, ranks: int, seconds: float, **more: Any) -> RunRecord:
    scores = ((0, 0.5), (1, 0.7), (2, 0.8))
    epochs = [
        dataclasses.replace(epoch(number, 100.0 if not number else seconds), valid_accuracy=score)
        for number, score in scores
    ]
    return run(
        strategy,
        ranks,
        seconds,
        epochs=epochs,
        training_seconds=100 + 2 * seconds,
        evaluation_seconds=1.0,
        memory=[ProcessMemory(2**30, 2**29)] * ranks,
        resources=[used()] * ranks,
        **more,
    )


def weak_run(ranks: int) -> RunRecord:
    batch = 10 * ranks
    return measured("ddp", ranks, 8.0, config={"global_batch_size": batch})


def drawn_lines(figure: Any, colour: str) -> list[tuple[float, float]]:
    """The points of a colour on the first panel, without the shift that keeps lines apart."""
    return [
        (round(x), round(float(y), 6))
        for line in figure.axes[0].lines
        if line.get_color() == colour and line.get_marker() == "o"
        for x, y in line.get_xydata()
    ]


def strong_lines(records: list[RunRecord]) -> Any:
    rows, _ = summarize(records)
    return lines.labelled([one.line for one in scaling_series(rows).strong])


def test_everything_is_drawn_that_records_can_fill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in (measured("single", 1, 8.0), measured("horovod", 2, 5.0), weak_run(1)):
        write_record(record, tmp_path / "runs")
    write_record(weak_run(2), tmp_path / "runs")
    command = [str(tmp_path / "runs"), "--figures", str(tmp_path / "figures"), "--price", "1"]
    assert main([*command, "--currency", "EUR"]) == 0
    kinds = {file.name.split("-")[0] for file in (tmp_path / "figures").iterdir()}
    assert kinds == {
        *("loss", "time", "speedup", "efficiency", "communication", "score"),
        *("weak", "target", "memory", "resources", "cost"),
    }
    assert "not drawn" not in capsys.readouterr().err


def test_what_cannot_be_drawn_is_said_in_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run(), tmp_path / "runs")
    assert main([str(tmp_path / "runs"), "--figures", str(tmp_path / "figures")]) == 0
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == ["loss-cora.png", "time-cora.png"]
    reported = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("not drawn: ")
    ]
    assert [line.split()[2] for line in reported] == [
        "speedup",
        "efficiency",
        "communication",
        "score",
        "weak",
        "target",
        "memory",
        "resources",
    ]
    assert all("of cora: no " in line for line in reported)


def test_svg_is_equal_from_one_drawing_to_the_next(tmp_path: Path) -> None:
    write_record(run(), tmp_path / "runs")
    for folder in ("a", "b"):
        arguments = ["--figures", str(tmp_path / folder), "--figures-format", "svg"]
        assert main([str(tmp_path / "runs"), *arguments]) == 0
    first = (tmp_path / "a" / "time-cora.svg").read_text()
    assert "<svg" in first and first == (tmp_path / "b" / "time-cora.svg").read_text()


def test_points_are_the_speed_ups_of_the_table() -> None:
    """8 s by single; medians of 5 s and 4 s are 1.6 and 2 times as fast; 4 ranks on 2 cores."""
    records = [
        measured("single", 1, 8.0),
        measured("horovod", 1, 10.0),
        measured("horovod", 2, 5.0),
        measured("horovod", 4, 3.0),
        measured("horovod", 4, 4.0),
        measured("horovod", 4, 5.0),
    ]
    figure = lines.speedup_lines(strong_lines(records), "title")
    blue = lines.strategy_colour("horovod")
    assert drawn_lines(figure, blue) == [(1, 0.8), (2, 1.6), (4, 2.0)]
    faces = [
        line.get_markerfacecolor()
        for line in figure.axes[0].lines
        if line.get_color() == blue and line.get_marker() == "o"
    ]
    assert faces == [blue, blue, "white"]
    (ideal,) = [line for line in figure.axes[0].lines if line.get_color() == "#777777"]
    assert ideal.get_xydata().tolist() == [[1, 1], [4, 4]]
    share = lines.efficiency_lines(strong_lines(records), "title")
    assert drawn_lines(share, blue) == [(1, 80.0), (2, 80.0), (4, 50.0)]
    talk = lines.communication_lines(strong_lines(records), "title")
    assert drawn_lines(talk, blue) == [(1, 25.0), (2, 25.0), (4, 25.0)]


def test_a_speed_up_that_costs_accuracy_is_marked_beside_its_score() -> None:
    poor = measured("ddp", 2, 4.0)
    poor = dataclasses.replace(poor, final={**poor.final, "test_accuracy": 0.6})
    figure = lines.score_panels(strong_lines([measured("single", 1, 8.0), poor]), "title")
    above, below = figure.axes
    assert [text.get_text() for text in above.texts] == ["!"]
    assert above.get_shared_x_axes().joined(above, below)
    assert "test score unknown or lost" in [text.get_text() for text in figure.legends[0].texts]
    assert 60.0 in [float(y) for line in below.lines for y in line.get_ydata()]


def test_strong_and_weak_are_in_figures_of_their_own(tmp_path: Path) -> None:
    strong = measured("ddp", 2, 5.0, config={"global_batch_size": 10})
    records = [weak_run(1), weak_run(2), weak_run(4), strong]
    rows, _ = summarize(records)
    scaling = scaling_series(rows)
    orange = lines.strategy_colour("ddp")
    weak = lines.weak_lines(scaling.weak, "title")
    assert drawn_lines(weak, orange) == [(1, 100.0), (2, 50.0), (4, 25.0)]
    talk = lines.communication_lines(lines.labelled([one.line for one in scaling.strong]), "t")
    assert [x for x, _ in drawn_lines(talk, orange)] == [1, 2]


def test_a_target_that_was_not_reached_is_written_where_its_bar_would_be() -> None:
    records = [measured("single", 1, 8.0), measured("ddp", 2, 4.0)]
    poor = dataclasses.replace(epoch(0, 9.0), valid_accuracy=0.2)
    records.append(run("horovod", 2, epochs=[poor]))
    figure = bars.target_bars(target_rows(records, 0.75), "title")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["116", "not reached (best 20.00)", "108"]
    assert [round(bar.get_width()) for bar in figure.axes[0].patches] == [116, 108]


def test_memory_is_that_of_a_process_and_unknown_stays_unknown() -> None:
    mirrored = measured("mirrored", 2, 8.0)
    mirrored = dataclasses.replace(mirrored, memory=[ProcessMemory(4 * 2**30, None)])
    ranks = measured("ddp", 2, 8.0)
    memory = [ProcessMemory(2**30, 2**29), ProcessMemory(3 * 2**30, 2**29)]
    ranks = dataclasses.replace(ranks, memory=memory)
    figure = bars.memory_bars(rows_with_runs([ranks, mirrored]), "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["3.00", "0.5", "4.00", "unknown"]
    assert bars.memory_bars(rows_with_runs([run()]), "title") is None


def test_works_of_one_data_set_have_files_of_their_own(tmp_path: Path) -> None:
    records = [
        measured(strategy, ranks, 8.0 / ranks, config={"hidden": hidden})
        for strategy, ranks in (("single", 1), ("ddp", 2))
        for hidden in (8, 16)
    ]
    files, _ = gallery.draw_figures(records, tmp_path, ReportOptions())
    names = {file.name for file in files}
    assert {"speedup-cora.png", "speedup-cora-2.png", "loss-cora.png"} <= names
    assert "loss-cora-2.png" not in names
