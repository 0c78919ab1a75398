"""The look at a graph: what is counted is right, and every figure is drawn."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from baselines import eda
from baselines.citation_plots.measures import (
    ball,
    class_names,
    measure_classes,
    measure_words,
    well_connected,
)
from gnn_core.data.catalog import PUBLISHED
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.synthetic_spec import PRESETS, SyntheticSpec
from gnn_core.launch import guarded


@pytest.fixture
def chain() -> Graph:
    """0 - 1 - 2 - 3: classes 0, 0, 1, 1; words 0 and 1 of three."""
    return Graph.from_arrays(
        "chain",
        [0, 1, 3, 5, 6],
        [1, 0, 2, 1, 3, 2],
        [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]],
        [0, 0, 1, 1],
        [1, 2, 3, 0],
    )


def test_classes_are_counted(chain: Graph) -> None:
    classes = measure_classes(chain)
    assert classes.sizes.tolist() == [2, 2]
    assert classes.in_split.tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    np.testing.assert_allclose(classes.mixing, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    np.testing.assert_allclose(classes.by_chance, [0.5, 0.5])


def test_words_are_counted(chain: Graph) -> None:
    words = measure_words(chain)
    assert words.per_paper.tolist() == [1, 2, 1, 1]
    assert words.papers_with.tolist() == [2, 3, 0]
    assert words.likeliest_class[:2].tolist() == [0, 1]
    np.testing.assert_allclose(words.lift, [2, 4 / 3, 0])


def test_a_ball_knows_distances(chain: Graph) -> None:
    assert ball(chain, 0, 2) == {0: 0, 1: 1, 2: 2}
    assert well_connected(chain, hops=1, at_most=3) == 1
    assert class_names(chain) == ["class 0", "class 1"]


def _look(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["eda.py", *words])
    return guarded(eda.main)


def test_every_figure_is_drawn(
    tiny_graph: Graph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("networkx")
    folder = write_graph(tiny_graph, tmp_path / "graph").folder
    assert _look(monkeypatch, "--dataset", str(folder), "--output", str(tmp_path / "figures")) == 0
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    parts = ("classes", "degrees", "homophily", "neighbourhood", "words")
    assert drawn == [f"tiny-{part}.png" for part in parts]
    said = capsys.readouterr().out
    assert "words per paper" in said
    assert "class 3" in said


@pytest.fixture
def no_cora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags of a place without Cora, on a machine that cannot fetch it."""
    monkeypatch.delenv("RINGSAGE_DATA", raising=False)
    away = dataclasses.replace(PUBLISHED["cora"], part_url="http://127.0.0.1:9")
    monkeypatch.setitem(PUBLISHED, "cora", away)
    return ["--cache-dir", str(tmp_path / "cache"), "--output", str(tmp_path / "figures")]


def test_without_cora_a_generated_graph_is_shown(
    no_cora: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("networkx")
    monkeypatch.setitem(PRESETS, "synthetic", SyntheticSpec(papers=2000, num_features=16))
    assert _look(monkeypatch, *no_cora) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no cora here, so this is --dataset synthetic: http://127.0.0.1:9/")
    assert "put ind.cora.x" in lines[0]
    assert lines[-1].endswith("synthetic-neighbourhood.png")


def test_cora_that_was_asked_for_is_not_replaced(
    no_cora: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _look(monkeypatch, "--dataset", "cora", *no_cora) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: http://127.0.0.1:9/ind.cora.x: ")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--hops", "9"], "--hops"),
        (["--paper", "120"], "--paper: expected a paper from 0 to 119, got 120"),
        (["--most", "1"], "--most: expected room for some paper's 2-hop neighbourhood, got 1"),
        (["--output", "/dev/null/figures"], "--output: expected a folder"),
    ],
)
def test_mistakes_are_reported_in_a_line(
    words: list[str],
    reported: str,
    tiny_graph: Graph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_graph(tiny_graph, tmp_path / "graph").folder
    assert _look(monkeypatch, "--dataset", str(folder), *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reported in line


def test_a_graph_without_words_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_graph(Graph.from_arrays("bare", [0, 1, 2], [1, 0]), tmp_path / "graph").folder
    assert _look(monkeypatch, "--dataset", str(folder)) == 2
    assert "expected words, classes and splits" in capsys.readouterr().err
