"""Figures in documents that nothing regenerates."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.report.loose_figures import loose_figures, main
from tests.unit.documents import DOCUMENTS, name_of


@pytest.mark.parametrize(
    "text",
    [
        "It takes 0.224 s per epoch.",
        "It is 1.6 times as fast.",
        "a speed-up of 3.5x",
        "reaches 81.3 % on Cora",
        "reaches 81.3% on Cora",
        "67 M or 67,000,000 edges/s",
        "an allreduce of 31 ms",
        "holds 2 GiB",
        "loses 0.5 points",
        "ends after 20 minutes",
        "| horovod | 28 % |",
        "(2.1e3 s)",
    ],
)
def test_a_measurement_is_found(text: str) -> None:
    assert [line for line, _ in loose_figures(f"# title\n\n{text}\n")] == [3]


@pytest.mark.parametrize(
    "text",
    [
        "Python 3.11, four ranks, 2 ranks, 100 M nodes, seeds 0, 1 and 2",
        "every `5 ms`, at `--limit 30 s`",
        "    horovodrun -np 4 python x  # 30 s",
        "```\ntook 5 s\n```",
        "exit code 2, a2 s, section 1.8 says, x 4 s/epoch"[:39],
        "hits@1, 10 and 100",
        "<!-- figures:speed results/x begin -->\n| 0.2 s |\n<!-- figures:speed end -->",
    ],
)
def test_what_is_none(text: str) -> None:
    assert list(loose_figures(text)) == []


def test_the_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.md"
    file.write_text("fine\n\nit took 5 s\n", "utf-8")
    assert main([str(file)]) == 1
    assert f"{file}:3: '5 s' has no record" in capsys.readouterr().err
    file.write_text("fine\n", "utf-8")
    assert main([str(file)]) == 0
    assert main([str(tmp_path / "none.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_documents_have_none(document: Path) -> None:
    assert list(loose_figures(document.read_text("utf-8"))) == []
