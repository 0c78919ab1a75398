"""Texts of records in every medium: shown as they are, never obeyed."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gnn_core.markup import csv_cell, markdown_cell, markdown_text, without_math
from gnn_core.measure.records import read_records, write_record
from gnn_core.measure.run_record import DatasetInfo
from gnn_core.report import page
from gnn_core.report.analysis import main
from gnn_core.report.table import Table, latex_text
from gnn_core.usage import printable
from tests.unit.made_records import MACHINE, run

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(1)>[c](javascript:alert(1))'
CONTROL = "a\x1b[31mred\x07\u202egnp.exe\nb\r\x9b2J\u2028c\x00"


def test_control_characters_become_visible() -> None:
    assert printable(CONTROL) == r"a\x1b[31mred\x07\u202egnp.exe\nb\r\x9b2J\u2028c\x00"
    assert printable("Zürich ± 日本 a_b") == "Zürich ± 日本 a_b"
    assert printable("👩\u200d🔬") == "👩\u200d🔬"


def html_of(markdown: str) -> str:
    module = pytest.importorskip("markdown_it")
    return str(module.MarkdownIt("commonmark").enable("table").render(markdown))


class Live(HTMLParser):
    """Everything in a page that acts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "form", "svg", "style", "link", "base"):
            self.found.append(tag)
        for name, value in attributes:
            target = re.sub(r"\s", "", value or "").lower()
            acts = target.startswith(("javascript:", "data:text", "vbscript:"))
            if name.startswith("on") or acts:
                self.found.append(f"{name}={value}")
            if name == "src" and not target.startswith("data:image/"):
                self.found.append(f"{name}={value}")


ATTACKS = [
    ATTACK,
    "<svg onload=alert(1)>",
    "<iframe src=//x.y></iframe>",
    "![i](javascript:alert(1))",
    "<javascript:alert(1)>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "[x]: javascript:alert(1)",
    "</details></main><style>*{display:none}</style>",
    "&lt;script&gt;",
    "`</code><script>`<b>",
    "a|b\n|--|\n<script>alert(1)</script>",
    "<div style='position:fixed;inset:0'>x</div>",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_markdown_of_ours_holds_no_markup_of_a_record(text: str) -> None:
    table = Table(("name", "seconds"), ((text, "1.0"),), (), pd.DataFrame())
    for markdown in (table.markdown(), markdown_text(f"## {text}\n\n- note: {text}")):
        assert Live(html_of(markdown)).found == []
        assert "<b>" not in html_of(markdown) and "<div style" not in html_of(markdown)
    assert len(table.markdown().splitlines()) == 3
    assert len(re.findall(r"(?<!\\)\|", table.markdown().splitlines()[2])) == 3


@pytest.mark.parametrize("text", ATTACKS)
def test_the_page_holds_nothing_that_acts(text: str) -> None:
    table = Table((text, "seconds"), ((text, "1.0"),), (text,), pd.DataFrame())
    section = page.Section(text, [page.Part("heading", text), page.Part("list", [text])])
    section.say(text)
    section.show(table)
    figure = Figure()
    figure.suptitle(text)
    figure.subplots()
    section.draw([figure])
    made = page.html([section])
    assert Live(made).found == []
    assert made.count("<b>") == made.count("<div style") == made.count("<svg") == 0


def test_the_page_keeps_emphasis_and_code_of_ours() -> None:
    section = page.Section("a & b")
    section.say("**1.60 times** as fast as `single`\n\nnext")
    made = page.html([section])
    assert "<h2>a &amp; b</h2>" in made
    assert "<p><strong>1.60 times</strong> as fast as <code>single</code></p>\n<p>next</p>" in made


def test_a_terminal_obeys_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = DatasetInfo(f"x{CONTROL}", fingerprint="ab", splits={"train": 140, "test": 1000})
    machine = {**MACHINE, "cpu_model": f"cpu{CONTROL}"}
    for record in (run(dataset=evil, machine=machine), run("horovod", 2, dataset=evil)):
        write_record(record, tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"schema_version": 1, "\\u001b[2J": 3}\n')
    for form in ("text", "markdown", "latex", "csv"):
        assert main([str(tmp_path), "--format", form]) == 0
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert not set(text) & set("\x1b\x07\u202e\r\x9b\u2028\x00")
            assert "\\x1b" in text or "x1b" in text or text is captured.err
    records, problems = read_records(tmp_path)
    assert len(records) == 2 and "\\x1b[2J" in problems[0]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", " ="])
def test_a_spreadsheet_obeys_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    name = f"{sign}cmd|' /C calc'!A0"
    evil = DatasetInfo(name, fingerprint="ab", splits={"train": 140, "test": 1000})
    write_record(run(dataset=evil), tmp_path)
    assert main([str(tmp_path), "--format", "csv"]) == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["dataset"] == f"'{name}"


@pytest.mark.parametrize("value", ["-1", "+1e-3", "-inf", "-", "a=b", -1.5, None])
def test_numbers_and_plain_text_stay_in_csv(value: object) -> None:
    assert csv_cell(value) == value


def test_latex_text_is_one_line() -> None:
    assert "\n" not in latex_text("a\n\\end{tabular}\x1b") and "\x1b" not in latex_text("\x1b")


def test_a_cell_of_a_table_is_one_cell() -> None:
    assert markdown_cell("a|b`c\nd<e>[f]") == r"a\|b\`c\nd&lt;e&gt;\[f\]"
    assert markdown_cell("12.3 (11.0..14.1)") == "12.3 (11.0..14.1)"


def test_figures_show_dollars(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.plot([1, 2], [1, 1000], label=r"$\frac$ b $")
    axes.set_xticks([1, 2], [r"$\undefined$", "$x$"])
    axes.set_title(r"cost $\sum$ and $")
    axes.legend()
    without_math(figure)
    figure.savefig(tmp_path / "a.svg")  # text that is no math would raise
    assert any(text.get_parse_math() for text in figure.findobj(Text)), "powers of ten stay"
