"""Node classification and link prediction never share a table or a chart, in any format."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gnn_core.config import RunConfig
from gnn_core.measure.records import write_record
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.analysis import main
from gnn_core.report.generated_blocks import TABLES, tables
from gnn_core.report.rows import ReportOptions, by_task
from gnn_core.report.table import settings_beside_ranks
from gnn_core.report.tables.side_by_side import side_by_side_table
from gnn_core.report.tables.speed import speed_table
from tests.unit.made_records import run

LINK = RunConfig(dataset="cora", task="link").to_dict()
CAPTIONS = ["node classification", "link prediction"]


def both() -> list[RunRecord]:
    """Two runs of each task; those of links took other seconds."""
    nodes = [run(step_losses=[2.0]), run("horovod", 2, 5.0, step_losses=[2.0])]
    links = [
        run(seconds=80.0, config=LINK, step_losses=[3.0]),
        run("horovod", 2, 50.0, config=LINK, step_losses=[3.0]),
    ]
    return [*nodes, *links]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in both():
        write_record(record, tmp_path / "runs")
    return tmp_path / "runs"


def test_records_of_one_task_have_no_caption() -> None:
    assert [caption for caption, _ in by_task(both()[:2])] == [""]
    assert [caption for caption, _ in by_task(both()[2:])] == [""]
    assert [(caption, len(runs)) for caption, runs in by_task(both())] == [
        (caption, 2) for caption in CAPTIONS
    ]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_of_one_task(name: str) -> None:
    """What is made of both is what is made of each alone, one below the other."""
    options = ReportOptions(price=1.0, target=0.1)
    records = both()
    alone = [tables(name, runs, options)[0][1] for _, runs in by_task(records)]
    shown = [table.cells for table in alone if table.cells]
    assert [table.cells for _, table in tables(name, records, options)] == (shown or [()])


def test_text_has_two_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    node, link = capsys.readouterr().out.split("link prediction:\n")
    assert node.startswith("node classification:\n")
    assert "5.00" in node and "50.0" not in node and "test MRR" not in node
    assert "50.0" in link and "5.00" not in link and "test MRR" in link


def test_latex_has_two_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert [text.count(rf"\textbf{{{caption}}}") for caption in CAPTIONS] == [1, 1]
    assert text.count(r"\begin{tabular}") == 2


def test_csv_files_hold_one_task_each(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "speed.csv"
    assert main([str(folder), "--format", "csv", "--output", str(file)]) == 0
    named = [tmp_path / f"speed-{caption.replace(' ', '-')}.csv" for caption in CAPTIONS]
    seconds = [
        [float(line["seconds_per_epoch"]) for line in csv.DictReader(one.open())] for one in named
    ]
    assert seconds == [[8.0, 5.0], [80.0, 50.0]]
    assert not file.exists()


def test_sections_of_a_document_hold_a_table_for_each(folder: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:speed runs begin -->\n<!-- figures:speed end -->\n")
    assert main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert [text.count(f"**{caption}**") for caption in CAPTIONS] == [1, 1]


def test_charts_are_of_one_task_and_say_which() -> None:
    gallery = pytest.importorskip("gnn_core.report.figures.gallery", exc_type=ImportError)
    drawn = [one for one in gallery.figures(both(), ReportOptions()) if one[2] is not None]
    assert {dataset for _, dataset, _ in drawn} == {f"cora, {caption}" for caption in CAPTIONS}
    for _, dataset, figure in drawn:
        title = figure.get_suptitle() or figure.axes[0].get_title(loc="left")
        assert dataset in " ".join(title.split())
    kinds = [what for what, _, _ in drawn]
    assert kinds.count("loss") == kinds.count("time") == kinds.count("speedup") == 2


def test_settings_stand_beside_the_ranks() -> None:
    table = speed_table([run(config={"hidden": 8}), run(config={"hidden": 16})])
    moved = settings_beside_ranks(table)
    assert table.headings[-1] == "settings"
    assert moved.headings[:4] == ("dataset", "strategy", "ranks", "settings")
    assert sorted(moved.headings) == sorted(table.headings)
    assert [line[3] for line in moved.cells] == ["hidden=16", "hidden=8"]
    assert moved.numbers is table.numbers


def test_scores_of_links_are_no_percentages() -> None:
    links = [
        run(strategy, ranks, config=LINK, final={"test_mrr": mrr})
        for strategy, ranks, mrr in (("single", 1, 0.5), ("horovod", 2, 0.505), ("ddp", 2, 0.45))
    ]
    agreed, apart = side_by_side_table(links[:2]).notes, side_by_side_table(links).notes
    assert "test MRRs agree: all 2 lie between 0.5000 and 0.5050, no more than 0.01" in str(agreed)
    assert "`ddp` at 2 ranks has 0.4500, `horovod` at 2 ranks 0.5050, more than 0.01" in str(apart)
