"""The rules of thumb: scored by hand on a small graph, and as a command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from baselines.heuristics import heuristics, ranked
from gnn_core.data.graph import Graph
from gnn_core.report.tables.benches import read_benches

#   0 - 1 - 3,  0 - 2 - 3,  4 alone; the test edge is 0 -> 3
TRAIN = np.array([[1, 0], [2, 0], [3, 1], [3, 2]], np.int32)
INDPTR, INDICES = [0, 2, 4, 6, 8, 8], [1, 2, 0, 3, 0, 3, 1, 2]


def graph() -> Graph:
    return dataclasses.replace(
        Graph.from_arrays("square", INDPTR, INDICES),
        train_edges=TRAIN,
        valid_edges=TRAIN[:0],
        test_edges=np.array([[0, 3]], np.int32),
        test_candidates=np.array([[4, 1]], np.int32),
    )


def test_scores() -> None:
    rules = heuristics(graph())
    papers, others = np.array([0, 4]), np.array([[3, 4, 1], [0, 1, 2]])
    common = rules["common neighbours"](papers, others)
    assert common.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert rules["Jaccard"](papers, others).tolist() == [[1, 0, 0], [0, 0, 0]]
    adamic_adar = rules["Adamic-Adar"](papers, others)
    np.testing.assert_allclose(adamic_adar, [[2 / np.log(2), 0, 0], [0, 0, 0]])
    assert rules["resource allocation"](papers, others).tolist() == [[1, 0, 0], [0, 0, 0]]
    preferential = rules["preferential attachment"](papers, others)
    assert preferential.tolist() == [[4, 0, 4], [0, 0, 0]]


def test_ranks_among_the_candidates() -> None:
    found = {name: ranked(graph(), "test", 2, rule) for name, rule in heuristics(graph()).items()}
    assert found["common neighbours"].fields()["mrr"] == 1.0
    assert found["preferential attachment"].fields()["mrr"] == 1 / 1.5  # a tie with one of two
    assert found["preferential attachment"].fields()["auc"] == 0.75


def test_the_command(tmp_path: Path, run_cli) -> None:
    made = tmp_path / "some" / "heuristics.json"
    done = run_cli(
        ["python", "baselines/heuristics.py", "--dataset", "synthetic:papers=2000", "--json"]
        + [str(made), "--cache-dir", str(tmp_path), "--seeds", "0-1"]
    )
    assert done.returncode == 0, done.stderr
    assert "100 references of the test split among 1,000 candidates each (newest)" in done.stdout
    (bench,), problems = read_benches(made)
    assert not problems
    counted = ["common neighbours", "Jaccard", "Adamic-Adar", "resource allocation"]
    assert [row[0] for row in bench.rows] == [*counted, "preferential attachment", "oracle"]
    mrr = {row[0]: row[1] for row in bench.rows}
    assert mrr.pop("oracle") > max(mrr.values())
    assert all(0 < row[1] < 1 for row in bench.rows)
    assert json.loads(made.read_text())["settings"]["seeds"] == 2


def test_mistakes_are_one_line(run_cli) -> None:
    for flags, expected in (
        (["--seeds", "x"], "expected seeds such as 3 or 0-2, got 'x'"),
        (["--dataset", "pubmed-nowhere"], "unknown data set"),
        (["--dataset", "synthetic:papers=500"], "--candidates 1000"),
    ):
        done = run_cli(["python", "baselines/heuristics.py", *flags])
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr and "Traceback" not in done.stderr


def test_the_oracle_can_be_left_out(tmp_path: Path, run_cli) -> None:
    words = ["python", "baselines/heuristics.py", "--dataset", "synthetic:papers=2000"]
    done = run_cli([*words, "--cache-dir", str(tmp_path), "--no-oracle"])
    assert done.returncode == 0, done.stderr
    assert "Adamic-Adar" in done.stdout and "oracle" not in done.stdout
