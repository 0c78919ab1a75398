"""The report's page, made from records as a user makes it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
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
    assert not list(NOTEBOOK.parents[1].glob("kernel-*"))  # sockets of the notebook's kernel
    said = capsys.readouterr()
    assert "3 runs" in said.out
    assert said.err.count("not used:") == 1
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<strong>5.00 s per epoch</strong>, 1.60 times as fast" in text
    assert "not used: " in text
    assert text.count('src="data:image/svg+xml;base64,') >= 3
    assert 'alt="No description' not in text
    assert not re.search(r"<script|<link|@import|(src|href)=\"(?!#|data:)", text)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    for one in psutil.Process().children(recursive=True):  # no kernel among them
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which another test has left
            assert "ipykernel_launcher" not in " ".join(one.cmdline())


def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main([str(tmp_path), "--output", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err.startswith("error: expected run records (*.jsonl) in ")
    assert not (tmp_path / "r.html").exists()


def test_no_notebook(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "n.ipynb").write_text("{", "utf-8")
    for name in ("n.ipynb", "missing.ipynb"):
        assert page.main([str(records), "--notebook", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()[1:]  # after the cut record
        assert line.startswith("error: --notebook: expected a notebook, but ")


def test_a_cell_that_fails(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "n.ipynb")
    arguments = ["--notebook", str(tmp_path / "n.ipynb"), "--output", str(tmp_path / "r.html")]
    assert page.main([str(records), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()[1:]  # after the cut record
    assert line.startswith("error: a cell of ") and "ZeroDivisionError: division by zero" in line
    assert not (tmp_path / "r.html").exists()


def test_a_kernel_that_dies(
    records: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deadly = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os._exit(3)")])
    nbformat.write(deadly, tmp_path / "n.ipynb")
    arguments = ["--notebook", str(tmp_path / "n.ipynb"), "--output", str(tmp_path / "r.html")]
    assert page.main([str(records), *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()[1:]
    assert line.startswith("error: the notebook's kernel did not start within ")
    assert "died" in line and not (tmp_path / "r.html").exists()


def test_a_kernel_that_does_not_start(records: Path, tmp_path: Path) -> None:
    """In a process, since it may not fail at its end; its kernel sleeps before it starts."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'ipykernel_launcher' in sys.orig_argv:\n    time.sleep(20)\n"
    )
    program = "from gnn_core.report import page; page._START_SECONDS = 0; exit(page.main())"
    words = [sys.executable, "-c", program, str(records), "--output", str(tmp_path / "r.html")]
    done = subprocess.run(
        words,
        cwd=NOTEBOOK.parents[1],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith("error: the notebook's kernel did not start within 0 s, or died: ")


@pytest.mark.parametrize("missing", ["nbconvert", "nbformat", "nbclient", "ipykernel"])
def test_what_executes_a_notebook_is_not_installed(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # how Python is told that there is none
    assert page.main([str(records)]) == 2
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert line.startswith("error: expected nbclient, nbconvert and ipykernel")
    assert "`make install`" in line


def test_warnings_of_libraries_are_not_on_the_page(records: Path, tmp_path: Path) -> None:
    """Such as matplotlib's, where it has no folder to write its settings to."""
    said = "import sys; print('shown'); print('warned', file=sys.stderr)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(said)])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    arguments = ["--notebook", str(tmp_path / "n.ipynb"), "--output", str(tmp_path / "r.html")]
    assert page.main([str(records), *arguments]) == 0
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "shown" in text and "warned" not in text


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
