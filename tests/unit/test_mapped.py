"""Files of a graph folder: whatever a .npy may be instead of the array wanted is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data.graph import Graph, write_graph
from gnn_core.usage import UsageError
from tests.unit.test_room import forged_npz

NAMES = ("indptr", "indices", "features", "labels", "splits")
Change = Callable[[Path, np.ndarray], object]


def _save(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda path, array: np.save(path, change(array), allow_pickle=True)


def _claim(path: Path, array: np.ndarray) -> None:
    import zipfile

    forged_npz(path.with_suffix(".npz"), "(1000000000000,)", array.tobytes(), array.dtype.str)
    with zipfile.ZipFile(path.with_suffix(".npz")) as archive:
        path.write_bytes(archive.read("a.npy"))
    path.with_suffix(".npz").unlink()


CHANGES: dict[str, Change] = {
    "cut": lambda path, array: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path, array: path.write_bytes(path.read_bytes() + b"\0"),
    "half a header": lambda path, array: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path, array: path.write_bytes(b""),
    "a folder": lambda path, array: (path.unlink(), path.mkdir()),
    "a pipe": lambda path, array: (path.unlink(), os.mkfifo(path)),
    "one number": _save(lambda array: np.array(3, array.dtype)),
    "objects": _save(lambda array: array.astype(object)),
    "big-endian": _save(lambda array: array.astype(array.dtype.newbyteorder(">"))),
    "structured": _save(lambda array: np.zeros(array.shape, "i4,i4")),
    "complex": _save(lambda array: array.astype(complex)),
    "text": _save(lambda array: array.astype(str)),
    "another dimension": _save(lambda array: array[None]),
    "terabytes": _claim,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_is_no_such_array_is_one_line(
    tmp_path: Path, tiny_graph: Graph, name: str, case: str
) -> None:
    folder = write_graph(tiny_graph, tmp_path / "g").folder
    path = folder / f"{name}.npy"
    if case == "big-endian" and name == "splits":
        pytest.skip("bytes have no order")
    CHANGES[case](path, np.load(path))
    with pytest.raises(UsageError) as caught:
        Graph.open(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    assert f"{name}.npy: expected " in line and ", got " in line


def test_columns_one_after_the_other_are_refused(tmp_path: Path, tiny_graph: Graph) -> None:
    folder = write_graph(tiny_graph, tmp_path / "g").folder
    np.save(folder / "features.npy", np.asfortranarray(np.load(folder / "features.npy")))
    with pytest.raises(UsageError, match="features.npy: expected .* C order, got Fortran order"):
        Graph.open(folder)


def test_no_bit_of_a_folder_turns_without_a_word(tmp_path: Path, tiny_graph: Graph) -> None:
    folder = write_graph(tiny_graph, tmp_path / "g").folder
    random = np.random.default_rng(3)
    files = sorted(folder.iterdir())
    for _ in range(60):
        path = files[random.integers(len(files))]
        data = bytearray(before := path.read_bytes())
        place = random.integers(len(data))
        data[place] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            found = Graph.open(folder)
        except UsageError as error:
            assert "\n" not in str(error)
        else:  # the name of the entry that holds the checksum: nothing else may be different
            assert path.name == "meta.json" and found.fingerprint == tiny_graph.fingerprint
            assert found.name == tiny_graph.name
        path.write_bytes(before)
