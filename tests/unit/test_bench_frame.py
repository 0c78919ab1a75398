"""What the benchmarks share: who takes a turn when, and how figures are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gnn_core.bench.frame import (
    Variant,
    columns_text,
    median_and_range,
    ratios,
    require_place,
    run_training,
    table_text,
    take_turns,
    was_busy,
)
from gnn_core.measure import machine
from gnn_core.usage import UsageError


def test_every_round_starts_with_another_variant(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def variant(name: str) -> Variant[int]:
        def run() -> int:
            order.append(name)
            return len(order)

        return Variant(name, run)

    variants = [variant("a"), variant("bcd")]
    take_turns(variants, 3, "{} steps".format)
    assert order == ["a", "bcd", "bcd", "a", "a", "bcd"]
    assert [one.results for one in variants] == [[1, 4, 5], [2, 3, 6]]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[1:3] == ["round 1/3  bcd  2 steps", "round 2/3  bcd  3 steps"]


def test_figures_are_summed_up_over_rounds() -> None:
    assert median_and_range(ratios([2.0, 9.0, 4.0], [2.0, 3.0, 2.0])) == "2.00 (1.00 .. 3.00)"
    assert median_and_range([1.0], 1) == "1.0 (1.0 .. 1.0)"


def test_columns_are_as_wide_as_asked() -> None:
    assert columns_text([["way", "ms"], ["a", "1.5"]], (5, 6)) == "way      ms\na       1.5"


def test_a_busy_machine_is_noticed() -> None:
    assert was_busy({"load_average": 0.6})
    assert not was_busy({"load_average": 0.5})
    assert not was_busy({"load_average": None})


def test_the_place_of_the_record_is_made_before_anything_is_measured(tmp_path: Path) -> None:
    require_place(None)
    require_place(tmp_path / "new" / "bench.json")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(UsageError, match="--json: expected a folder"):
        require_place(Path("/dev/null/bench.json"))


def test_a_run_that_fails_is_named_with_its_reason() -> None:
    program = "import sys; sys.exit('error: no such graph')"
    with pytest.raises(UsageError, match="^single failed: no such graph$"):
        run_training([sys.executable, "-c", program], "single")
    with pytest.raises(UsageError, match="^single failed: it left no record that can be used$"):
        run_training([sys.executable, "-c", "pass"], "single")


def test_a_record_is_printed_as_a_table() -> None:
    record = {
        "benchmark": "made",
        **machine.origin(machine.hardware()),
        "settings": {"rounds": 3},
        "columns": ["way", "ms"],
        "rows": [["fast", 1.25]],
        "notes": ["ms: median"],
        "more": "left to other readers",
    }
    text, notes = table_text(record)
    assert "| fast | 1.25 |" in text
    assert notes[:2] == ("ms: median", "settings: rounds 3")
