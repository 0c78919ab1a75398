"""A table as LaTeX: text stays text, whatever signs are in it."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from gnn_core.measure.records import write_record
from gnn_core.report.analysis import main
from gnn_core.report.table import Table, latex_table, latex_text
from tests.unit.made_records import run


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 5 % of $x #1", r"a\_b \& 5 \% of \$x \#1"),
        ("{x}^2~y", r"\{x\}\textasciicircum{}2\textasciitilde{}y"),
        ("a\\b", r"a\textbackslash{}b"),
        ("<2 | >3", r"\textless{}2 \textbar{} \textgreater{}3"),
        ("81.30 ± 0.51", r"81.30 $\pm$ 0.51"),
        ("`single`, `mirrored`", r"\texttt{single}, \texttt{mirrored}"),
        ("4*", "4{*}"),
        ("[x]", "{[}x]"),
    ],
)
def test_signs_of_latex_are_escaped(text: str, escaped: str) -> None:
    assert latex_text(text) == escaped


def test_the_tabular_has_a_column_for_each_and_its_numbers_to_the_right() -> None:
    table = Table(("name", "s"), (("a_1", "1.5"), ("b", "-")), ("x & y",), pd.DataFrame())
    assert latex_table(table, table.notes).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\hline",
        r"name & s \\",
        r"\hline",
        r"a\_1 & 1.5 \\",
        r"b & - \\",
        r"\hline",
        r"\end{tabular}",
        "",
        r"\par\noindent\footnotesize",
        r"x \& y\par",
        r"\normalsize",
    ]


def test_the_command_writes_latex(tmp_path: Path) -> None:
    """Every line has as many cells, and no sign that LaTeX would read is left."""
    for record in (run(), run("horovod", 4, 4.0, 0.5)):
        write_record(record, tmp_path / "my_runs")
    file = tmp_path / "speed.tex"
    arguments = [str(tmp_path / "my_runs"), "--format", "latex", "--output", str(file)]
    assert main(arguments) == 0
    text = file.read_text()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and len({row.count("&") for row in rows}) == 1
    assert r"4{*}" in text and r"100 \%" in text and r"my\_runs" in text
    assert not re.search(r"(?<!\\)[%_#]", text)
