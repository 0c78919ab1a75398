"""The formats of predictions, read by other programs."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from gnn_core.config import UsageError
from gnn_core.data.ids import TextIds
from gnn_core.inference.tables import (
    Table,
    require_parquet,
    write_csv,
    write_ids,
    write_npy,
    write_parquet,
)

NAMES = ['a "quoted", one', "two\nlines", "=3", "é"]
RAW = [name.encode() for name in NAMES]
IDS = TextIds(np.cumsum([0, *map(len, RAW)]), np.frombuffer(b"".join(RAW), np.uint8))
DTYPE = np.dtype([("node", np.int64), ("class", np.int64), ("logit", np.float32, (2,))])
ROWS = np.array([(2, 1, (1.5, -2e-9)), (0, 0, (1 / 3, np.inf)), (1, 1, (0, 7))], DTYPE)
TABLE = Table(DTYPE, IDS, ["no", "yes"])
BLOCKS = (ROWS[:2], ROWS[2:])


def test_csv(tmp_path: Path) -> None:
    write_csv(TABLE, BLOCKS, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        header, *found = list(csv.reader(file))
    assert header == ["node", "class", "logit_0", "logit_1"]
    assert found[0] == ["=3", "yes", "1.5", "-2e-09"]
    assert found[1] == ['a "quoted", one', "no", "0.3333333", "inf"]
    assert found[2][0] == "two\nlines"


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(TABLE, BLOCKS, tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column("node").to_pylist() == [NAMES[2], NAMES[0], NAMES[1]]
    assert table.column("class").to_pylist() == ["yes", "no", "yes"]
    assert np.array_equal(table.column("logit").to_pylist(), ROWS["logit"])


def test_no_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_csv(TABLE, [ROWS[:0]], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "node,class,logit_0,logit_1\n"
    write_parquet(TABLE, [ROWS[:0]], tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert str(table.schema.field("node").type) == "string" and len(table) == 0
    write_npy([ROWS[:0]], tmp_path / "t.npy", "logit", (0, 2))
    assert np.load(tmp_path / "t.npy").shape == (0, 2)


def test_arrays(tmp_path: Path) -> None:
    write_npy(BLOCKS, tmp_path / "t.npy", "logit", (3, 2))
    loaded = np.load(tmp_path / "t.npy")
    assert loaded.dtype == np.float32 and np.array_equal(loaded, ROWS["logit"])
    write_ids(IDS, ROWS["node"], tmp_path / "ids.npy", most_rows=2)
    assert np.load(tmp_path / "ids.npy").tolist() == [NAMES[2], NAMES[0], NAMES[1]]
    write_ids(None, ROWS["node"], tmp_path / "ids.npy", most_rows=2)
    assert np.load(tmp_path / "ids.npy").tolist() == [2, 0, 1]


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="expected pyarrow.*`pip install pyarrow`, or write .csv"):
        require_parquet()
