"""What does not fit on the disk or in memory is refused before anything is made of it."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import datasets, room
from gnn_core.data.pieces import csv_pieces, npz_pieces
from gnn_core.data.store import GraphWriter
from gnn_core.data.torch_file import read_arrays
from gnn_core.usage import UsageError


def test_a_graph_larger_than_the_disk_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        datasets.load("synthetic:papers=2e9,num_features=100000", cache_dir=tmp_path)
    line = str(caught.value)
    assert re.search(
        r"expected [4-6]\d.\d GB of memory and 80\d.\d TB of disk, got .* memory", line
    )
    assert not list(tmp_path.glob("graphs/synthetic*"))


def test_both_rooms_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_memory_bytes", lambda: 10_000_000)
    with pytest.raises(UsageError, match="of memory and .*, got 10.0 MB of memory and"):
        datasets.load("synthetic:papers=1e6", cache_dir=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(room, "free_bytes", lambda path: 1000)
    with pytest.raises(UsageError, match="of disk, got .* and 1.0 kB of disk free for"):
        datasets.load("synthetic:papers=1000", cache_dir=tmp_path)
    expected = pytest.raises(UsageError, match="of disk, got")
    with GraphWriter(tmp_path / "g", "g") as writer, expected:
        writer.put("years", np.zeros(1000, np.int32))


def _a_long_line(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        for _ in range(40):
            file.write(b"1" * (1 << 20))


def _empty_lines(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\n" * (40 << 20)))


@pytest.mark.parametrize("write", [_a_long_line, _empty_lines])
def test_text_that_expands_is_refused_after_its_first_pieces(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "edge.csv.gz")
    assert (tmp_path / "edge.csv.gz").stat().st_size < 100_000
    with pytest.raises(UsageError, match="a row of more than|bytes of empty lines"):
        list(csv_pieces(tmp_path / "edge.csv.gz"))


def test_rows_that_cross_pieces_of_text_stay_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).integers(0, 10**6, (500, 3))
    text = "".join(f"{a},{b},{c}\r\n" for a, b, c in rows).rstrip()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    for size in (24, 100, 1 << 20):
        monkeypatch.setattr("gnn_core.data.pieces._TEXT_BYTES", size)
        found = np.concatenate(list(csv_pieces(tmp_path / "a.csv.gz")))
        np.testing.assert_array_equal(found, rows)


def forged_npz(path: Path, shape: str, data: bytes, dtype: str = "<i8") -> Path:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (len(header) + 10) % 64) + "\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ("(1000000000000,)", "<i8"),
        ("(1, 1000000000000)", "<i8"),
        ("(-8,)", "<i8"),
        ("(8,)", "|O"),
        ("(1,)", "<U1000000000"),
        ("(8,)", "<c16"),
        ("(8,", "<i8"),
        ("(2, 4)", "|V8"),
    ],
)
def test_an_archive_that_claims_more_than_it_holds_is_refused(
    tmp_path: Path, shape: str, dtype: str
) -> None:
    path = forged_npz(tmp_path / "a.npz", shape, bytes(64), dtype)
    with pytest.raises(UsageError, match="a.npz: expected "):
        list(npz_pieces(path, "a", 1 << 20))


def test_a_row_of_an_archive_is_bounded(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((1, 9 << 20)))
    with pytest.raises(UsageError, match="rows of at most"):
        next(npz_pieces(tmp_path / "a.npz", "a", 1 << 20))


TENSOR = (
    "(S'a'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nLongStorage\nS'0'\n"
    "S'cpu'\nI1\ntQI0\n(I{size}\nt(I{stride}\ntI00\nccollections\nOrderedDict\n(tRtRd."
)


@pytest.mark.parametrize("case", ["compressed", "repeated"])
def test_a_small_torch_file_cannot_fill_the_memory(tmp_path: Path, case: str) -> None:
    size, stride = (1 << 20, 1) if case == "compressed" else (10**9, 0)
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if case == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/data.pkl", TENSOR.format(size=size, stride=stride))
        archive.writestr("a/data/0", bytes(8 * (size if case == "compressed" else 1)))
    (tmp_path / "a.pt").write_bytes(file.getvalue())
    with pytest.raises(UsageError, match="compressed members|more elements than"):
        read_arrays(tmp_path / "a.pt")
