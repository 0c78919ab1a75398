"""The data benchmark: it measures what it says, tells it in a table, and keeps it in a record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gnn_core.bench import sampling as bench
from gnn_core.bench.sampling_figures import Round, make_record, text_of
from gnn_core.data.loader import Loader

SMALL = "synthetic:papers=600,num_features=8"


@pytest.fixture(autouse=True)
def out_of_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGSAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RINGSAGE_DATA", raising=False)


def measure(file: Path, *argv: str) -> dict[str, Any]:
    """Run the benchmark on a small graph and read its record."""
    words = ["--dataset", SMALL, "--rounds", "2", "--global-batch-size", "50", *argv]
    assert bench.main([*words, "--json", str(file)]) == 0
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def test_it_draws_what_it_was_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = measure(tmp_path / "b.json", "--batches", "3", "--fanouts", "4,2", "--seed", "5")
    said = capsys.readouterr().out
    assert list(record["rounds"]) == ["the sampler", "the loader", "the loader, prefetch 2"]
    loader = Loader(bench.datasets.load(SMALL), "train", (4, 2), 50, seed=5, prefetch=0)
    last = [batch.num_edges for batch in loader.batches(0)][-3:]
    for name in ("the loader", "the loader, prefetch 2"):
        assert [one["edges"] for one in record["rounds"][name]] == [sum(last)] * 2
        assert name in said
    assert {one["batches"] for way in record["rounds"].values() for one in way} == {3}
    assert record["settings"] == {
        "dataset": SMALL,
        "fanouts": [4, 2],
        "global_batch_size": 50,
        "batches": 3,
        "rounds": 2,
        "seed": 5,
    }
    for word in ("machine ", "software ", "graph ", "600 nodes", "warm-up", "M edges/s", "range"):
        assert word in said


def test_by_default_a_round_is_an_epoch_if_that_is_short(tmp_path: Path) -> None:
    record = measure(tmp_path / "b.json")
    num_train = len(bench.datasets.load(SMALL).split("train"))
    assert record["settings"]["batches"] == -(-num_train // 50)


def test_its_record_can_be_shown_as_a_table_of_a_document(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: `make install`")
    from gnn_core.report.tables.benches import bench_table, read_benches

    measure(tmp_path / "b.json", "--batches", "2")
    benches, problems = read_benches(tmp_path / "b.json")
    assert problems == []
    assert "the loader, prefetch 2" in bench_table(benches[0]).markdown()


def made_record(*rounds: Round, load: float = 0.1) -> dict[str, Any]:
    hardware = {"cpu_model": "Abacus", "cores_available": 2, "load_average": load}
    graph = {"name": "made", "nodes": 10, "edges": 20}
    settings = {
        "fanouts": [2],
        "global_batch_size": 4,
        "batches": 5,
        "rounds": len(rounds),
        "seed": 0,
    }
    return make_record(hardware, graph, settings, 1.5, {"the sampler": rounds})


def test_rates_are_medians_over_rounds_and_show_their_spread() -> None:
    """8 M edges in 2 s of CPU time are 4 M a second, also when another program took the core."""
    slow, fast, usual = (
        Round(8_000_000, 1000, 5, elapsed_seconds, cpu_seconds)
        for elapsed_seconds, cpu_seconds in ((10.0, 4.0), (2.0, 1.0), (2.5, 2.0))
    )
    record = made_record(slow, fast, usual)
    assert record["rows"] == [["the sampler", 4.0, "2.0 .. 8.0", 3.2, "0.8 .. 4.0", 2.0]]
    assert record["edges_per_batch"] == 1_600_000
    assert record["input_nodes_per_batch"] == 200
    assert "the sampler                     4.0" in text_of(record)


def test_what_took_no_time_has_no_rate() -> None:
    record = made_record(Round(100, 10, 1, 0.0, 0.0))
    assert record["rows"] == [["the sampler", None, None, None, None, None]]
    assert text_of(record)


def test_a_busy_machine_is_pointed_out() -> None:
    took = Round(100, 10, 1, 1.0, 1.0)
    assert "other programs" in text_of(made_record(took, load=1.7))
    assert "other programs" not in text_of(made_record(took, load=0.2))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--batches", "9000"], "an epoch of .* batches of 50 targets, got 9,000; lower --batches"),
        (["--batches", "0"], "--batches: expected a whole number from 1, got 0"),
        (["--fanouts", "5,x"], "--fanouts: expected whole numbers .* such as 15,10,5, got '5,x'"),
        (["--fanouts", "0"], "fan"),
        (["--json", "/nowhere/at/all.json"], "--json: expected a file in a folder that is there"),
        (["--dataset", "synthetik"], "did you mean synthetic"),
        (["--batch", "5", "--speed"], "--speed"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", SMALL, "--rounds", "1", "--global-batch-size", "50", *argv]
    assert bench.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error = [line for line in err.splitlines() if "preparing it" not in line]
    assert len(error) == 1
    assert re.match(f"error: .*{said}", error[0])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for word in ("examples:", "taskset", "--fanouts", "default: 15,10,5", "prefetch thread"):
        assert word in said
