"""Strategies that took turns: ratios by round, and no sentence that the numbers do not bear out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import ProcessMemory, RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.rounds import comparisons
from gnn_core.report.table import GIB
from gnn_core.report.tables.side_by_side import side_by_side_table
from tests.unit.made_records import MACHINE, run


def one_round(slowness: float = 1.0) -> list[RunRecord]:
    """Each contender once; `slowness` is that of the machine meanwhile."""
    return [
        run(seconds=8.0 * slowness),
        run("horovod", 2, 5.0 * slowness),
        run("one", seconds=10.0 * slowness),
        run("mirrored", 2, 12.0 * slowness),
    ]


def cells(records: list[RunRecord], heading: str) -> dict[tuple[str, str], str]:
    table = side_by_side_table(records)
    lines = [dict(zip(table.headings, line, strict=True)) for line in table.cells]
    return {(line["strategy"], line["ranks"]): line[heading] for line in lines}


def notes(records: list[RunRecord]) -> list[str]:
    said = side_by_side_table(records).notes
    return [note.removeprefix("cora: ") for note in said if note.startswith("cora: ")]


def test_a_machine_slow_for_a_round_changes_no_ratio() -> None:
    records = [*one_round(), *one_round(3.0), *one_round(1.0)]
    assert cells(records, "min..max")["horovod", "2"] == "5.00..15.0"
    assert cells(records, "x own") == {
        ("single", "1"): "1.00",
        ("horovod", "2"): "1.60 (1.60..1.60)",
        ("one", "1"): "1.00",
        ("mirrored", "2"): "0.83 (0.83..0.83)",
    }
    assert cells(records, "x fastest")["one", "1"] == "0.80 (0.80..0.80)"
    numbers = side_by_side_table(records).numbers.set_index("strategy")
    assert numbers.loc["horovod", "speedup_own_max"] == pytest.approx(1.6)
    assert numbers.loc["mirrored", "speedup_fastest"] == pytest.approx(8 / 12)


def test_the_sentences_say_what_the_numbers_say() -> None:
    assert notes([*one_round(), *one_round(2.0)]) == [
        "`horovod` at 2 ranks is the fastest with 7.50 s per epoch, 1.60 (1.60..1.60) times as "
        "fast as `single` at 1 rank, the fastest run of one rank",
        "`single` at 1 rank, times as fast at as many ranks: 1.25 (1.25..1.25) as `one`",
        "`horovod` at 2 ranks, times as fast at as many ranks: 2.40 (2.40..2.40) as `mirrored`",
        "`horovod` at 2 ranks beats its own `single`: 1.60 (1.60..1.60) times as fast as it",
        "`mirrored` at 2 ranks does not beat its own `one`: 0.83 (0.83..0.83) times as fast as it",
        "2 ranks of `mirrored` do not pay: 0.83 times as fast as `one`, an efficiency of 42 %. "
        "25 % of an epoch is communication; give a step more work (a wider model, a larger graph) "
        "or train in one process.",
        "share of an epoch spent communicating: `horovod` at 2 ranks 25 % and `mirrored` at 2 "
        "ranks 25 %",
        "the test accuracies agree: all 4 lie between 80.00 and 80.00 %, no more than 1 point "
        "apart",
    ]


def test_a_speed_up_in_some_rounds_is_reported_as_such() -> None:
    records = [run(seconds=8.0), run("horovod", 2, 7.0), run(seconds=8.0), run("horovod", 2, 9.0)]
    (reported,) = [note for note in notes(records) if "its own" in note]
    assert reported.startswith(
        "`horovod` at 2 ranks does not always beat its own `single`: 1.02 (0.89"
    )
    (reported,) = [note for note in notes(records[:2]) if "its own" in note]
    assert reported.endswith("1.14 times as fast as it, in one round")


def test_accuracies_that_do_not_agree_are_reported() -> None:
    records = [run(accuracy=0.8), run("horovod", 2, 5.0, accuracy=0.7)]
    assert notes(records)[-1] == (
        "the test accuracies do not agree: `horovod` at 2 ranks has 70.00 %, `single` at 1 rank "
        "80.00 %, more than 1 point apart"
    )


def test_a_run_that_failed_has_no_ratio_and_is_reported() -> None:
    records = [
        run(seconds=8.0),
        run("horovod", 2, 1.0, status="failed", error="x"),
        run(seconds=16.0),
        run("horovod", 2, 8.0),
    ]
    assert cells(records, "x own")["horovod", "2"] == "2.00"
    assert cells(records, "not ok")["horovod", "2"] == "1 failed"
    assert notes(records)[-1] == "of 2 rounds, `horovod` at 2 ranks 1 ended well"


def test_a_run_that_left_no_record_is_compared_with_no_other_round() -> None:
    """Horovod of round 2 is set against the single run of round 2, not of round 1."""
    records = [run(seconds=80.0), run("one"), run(seconds=9.0), run("horovod", 2, 3.0), run("one")]
    (comparison,) = comparisons(records)
    rounds = {one.row.strategy: sorted(one.by_round) for one in comparison.contenders}
    assert rounds == {"single": [0, 1], "horovod": [1], "one": [0, 1]}
    assert cells(records, "x own")["horovod", "2"] == "3.00"


def test_runs_with_a_long_pause_between_them_are_no_round() -> None:
    at = "2026-01-02T0{}:00:00.000000+00:00"
    records = [
        run(seconds=8.0, started_at=at.format(1), finished_at=at.format(2)),
        run("horovod", 2, 4.0, started_at=at.format(5), finished_at=at.format(6)),
    ]
    assert cells(records, "x own")["horovod", "2"] == "-"
    assert comparisons(records)[0].rounds == 2


def test_without_a_single_run_there_is_no_speed_up() -> None:
    records = [run("horovod", 2, 5.0), run("mirrored", 2, 10.0)]
    assert set(cells(records, "x own").values()) == {"-"}
    assert set(cells(records, "x fastest").values()) == {"-"}
    said = notes(records)
    assert said[0] == "`horovod` at 2 ranks is the fastest with 5.00 s per epoch"
    assert said[-2:] == [
        "no run of `single` to measure its framework against",
        "no run of `one` to measure its framework against",
    ]


def test_records_without_a_time_make_a_table_without_sentences() -> None:
    records = [run(status="failed", error="x", epochs=[]), run("horovod", 2, epochs=[])]
    assert cells(records, "s/epoch") == {("single", "1"): "-", ("horovod", "2"): "-"}
    assert notes(records) == [
        "of 1 round, `single` at 1 rank 0 and `horovod` at 2 ranks 0 ended well"
    ]


def test_memory_is_of_all_processes_of_a_run() -> None:
    """Two replicas of `mirrored` share a process, and with it one entry."""
    both = [ProcessMemory(3 * GIB, GIB), ProcessMemory(2 * GIB, GIB)]
    records = [
        run("horovod", 2, memory=both),
        run("mirrored", 2, memory=both[:1]),
        run("multiworker", 2, memory=[both[0], ProcessMemory(2 * GIB, None)]),
    ]
    assert list(cells(records, "PSS").values()) == ["2.00", "1.00", "-"]
    assert list(cells(records, "peak RSS").values()) == ["3.00", "3.00", "3.00"]


def test_more_threads_than_cores_are_marked() -> None:
    records = [run(), run("horovod", 4, 5.0)]
    assert ("horovod", "4*") in cells(records, "runs")
    table = side_by_side_table(records)
    assert any(note.startswith("`*` more threads than cores") for note in table.notes)
    assert any("`horovod` at 4 ranks*" in note for note in table.notes)


def test_graphs_machines_and_settings_are_compared_apart() -> None:
    other = {**MACHINE, "cpu_model": "Other CPU"}
    wide = {"hidden": 512}
    records = [
        run(seconds=8.0),
        run("horovod", 2, 4.0, machine=other),
        run("horovod", 2, 2.0, config=wide),
        run(seconds=3.0, config=wide),
    ]
    table = side_by_side_table(records)
    assert len(comparisons(records)) == 3
    assert table.headings[-2:] == ("settings", "machine")
    own = [line[table.headings.index("x own")] for line in table.cells]
    assert sorted(own) == ["-", "1.00", "1.00", "1.50"]
    assert any(note.startswith("cora, hidden=512: ") for note in table.notes)


def test_the_table_is_reached_from_the_command_line_and_from_a_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in one_round():
        write_record(record, tmp_path / "some")
    assert main([str(tmp_path / "some"), "--table", "compare"]) == 0
    assert "| x own |" in capsys.readouterr().out
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:compare some begin -->\n<!-- figures:compare end -->\n")
    assert main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert "| x own |" in text and "\n- cora: `horovod` at 2 ranks is the fastest" in text


def test_bars_show_the_median_and_how_far_the_rounds_reach(tmp_path: Path) -> None:
    bars = pytest.importorskip("gnn_core.report.figures.bars", reason="needs matplotlib")
    records = [*one_round(), *one_round(2.0), run(status="failed", error="x")]
    (axes,) = bars.second_bars(comparisons(records)[0]).axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [12.0, 15.0, 7.5, 18.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "single, 1 rank",
        "one, 1 rank",
        "horovod, 2 ranks",
        "mirrored, 2 ranks",
    ]
    (file,) = bars.draw_bars(records, tmp_path)
    assert file.name == "seconds-cora.png" and file.read_bytes().startswith(b"\x89PNG")
    assert bars.draw_bars([run(status="failed", error="x", epochs=[])], tmp_path) == []


def test_what_tells_comparisons_apart_stands_in_table_and_titles() -> None:
    """Precision and graph have no column here."""
    other = dataclasses.replace(run().dataset, fingerprint="cd")
    records = [
        *(
            run(strategy, ranks, config={"precision": precision})
            for precision in ("fp32", "fp64")
            for strategy, ranks in (("single", 1), ("ddp", 2))
        ),
        run(dataset=other),
    ]
    table = side_by_side_table(records)
    reported = {line[table.headings.index("settings")] for line in table.cells}
    assert reported == {
        "precision=fp32, graph=ab",
        "precision=fp64, graph=ab",
        "precision=fp32, graph=cd",
    }
    bars = pytest.importorskip("gnn_core.report.figures.bars", exc_type=ImportError)
    titles = [figure.get_suptitle() for _, figure in bars.all_bars(records)]
    assert sorted(titles) == sorted(f"Side by side on cora\n{one}" for one in reported)
