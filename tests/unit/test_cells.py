"""Cells: which settings tell rows apart, and in which digits a number is shown."""

from __future__ import annotations

import pandas as pd
import pytest

from gnn_core.number_text import three_digits
from gnn_core.report.table import Table, differing_settings


def test_only_what_differs_within_a_data_set_is_shown_by_short_names() -> None:
    rows = [
        {"hidden": 128, "global_batch_size": 64, "aggregator": "none", "weight_decay": 0.0},
        {"hidden": 128, "global_batch_size": 32, "aggregator": "mean", "weight_decay": 1e-4},
        {"hidden": 16, "global_batch_size": 8, "aggregator": "mean", "weight_decay": 0.0},
    ]
    assert differing_settings(rows, ["cora", "cora", "other"]) == [
        "aggregator=none, batch=64, decay=0",
        "aggregator=mean, batch=32, decay=0.0001",
        "",
    ]


def test_seeds_and_paths_and_the_precision_never_tell_rows_apart() -> None:
    one = {"seed": 0, "records": "/a", "checkpoint_dir": None, "precision": "fp32", "pin": True}
    other = {"seed": 1, "records": "/b", "checkpoint_dir": "/c", "precision": "bf16", "pin": False}
    assert differing_settings([one, other], ["x", "x"]) == ["pin=on", "pin=off"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0.0123, "0.0123"), (1.5, "1.50"), (15.25, "15.2"), (1234.5, "1234")),
        *((-1.5, "-1.50"), (-0.25, "-0.25"), (0, "0")),
    ],
)
def test_three_digits_count(value: float | None, text: str) -> None:
    assert three_digits(value) == text


def test_signed_numbers_stand_to_the_right_and_a_lone_minus_does_not() -> None:
    cells = (("-", "+0.10"), ("a", "-0.20"))
    rule = Table(("left", "right"), cells, (), pd.DataFrame()).markdown().splitlines()[1]
    assert rule == "| ---- | ----: |"
