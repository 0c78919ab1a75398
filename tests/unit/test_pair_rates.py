"""The bench of pairs: which pairs, and what its record holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gnn_core.bench import pair_rates
from gnn_core.data.candidates import Candidates
from tests.unit.made_links import linked_graph


def test_pairs_are_those_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = linked_graph(tmp_path)
    monkeypatch.setattr(pair_rates, "CHUNK_PAIRS", 3 * 11)
    parts = pair_rates.pairs_of(graph, 10)
    assert {len(papers) for papers, _ in parts[:-1]} == {3}
    edges = np.asarray(graph.valid_edges)
    candidates = Candidates(graph, "valid", 10).of(np.arange(len(edges)))
    np.testing.assert_array_equal(np.concatenate([papers for papers, _ in parts]), edges[:, 0])
    others = np.concatenate([others for _, others in parts])
    np.testing.assert_array_equal(others, np.concatenate([edges[:, 1:], candidates], axis=1))


def test_the_record_has_the_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: `make install`")
    file = tmp_path / "made" / "pairs.json"
    words = ["--dataset", "synthetic:papers=500", "--cache-dir", str(tmp_path), "--rounds", "2"]
    assert pair_rates.main([*words, "--candidates", "30", "--json", str(file)]) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [row[0] for row in record["rows"]] == ["common neighbours", "structure"]
    for _, median, least, most in record["rows"]:
        assert 0 < least <= median <= most
    assert record["settings"]["candidates"] == 30
    assert "common neighbours" in capsys.readouterr().out
    assert pair_rates.main([*words, "--candidates", "0"]) == 2
    assert "--candidates: expected a whole number from 1, got 0" in capsys.readouterr().err
