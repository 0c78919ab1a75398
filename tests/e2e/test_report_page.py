"""The report's page, made from records as a user makes it, and the notebook of the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure.records import write_record
from gnn_core.report import page
from tests.unit.made_records import run

NOTEBOOK = Path(__file__).resolve().parents[2] / "results" / "report.ipynb"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    for made in (run(), run("horovod", 2, 5.0), run("one", 1, 11.0)):
        write_record(made, folder)
    (folder / "cut.jsonl").write_text('{"schema_version": 1, "run_id": "ab\n', "utf-8")
    return folder


def test_the_page_holds_everything(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page.main([str(records), "--output", str(tmp_path / "report.html")]) == 0
    said = capsys.readouterr()
    assert "3 runs" in said.out
    assert said.err.count("not used:") == 1
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<strong>5.00 s per epoch</strong>, 1.60 times as fast" in text
    assert "not used: " in text
    assert text.count('src="data:image/svg+xml;base64,') >= 3
    assert 'alt=""' not in text
    assert not re.search(r"<script|<link|@import|(src|href)=\"(?!#|data:)", text)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main([str(tmp_path), "--output", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err.startswith("error: expected run records (*.jsonl) in ")
    assert not (tmp_path / "r.html").exists()


def test_the_template_engine_is_not_installed(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # how Python is told that there is none
    assert page.main([str(records)]) == 2
    (line,) = capsys.readouterr().err.splitlines()[1:]  # after the cut record
    assert line.startswith("error: expected the package jinja2")


def test_the_notebook_shows_what_the_page_shows(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[Any] = []
    monkeypatch.setattr(display, "display", shown.append)
    monkeypatch.setenv("RINGSAGE_RECORDS", str(records))
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    *sections, frame = shown
    text = "".join(section.data for section in sections)
    assert "<strong>5.00 s per epoch</strong>" in text and "<h2>Where the time goes</h2>" in text
    assert list(frame["strategy"]) == ["single", "horovod", "one"]


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
