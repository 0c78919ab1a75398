"""Files of torch.save read without torch: every format, and whatever a file may hold instead."""

# ruff: noqa: E402
from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.data.torch_file import read_arrays
from gnn_core.usage import UsageError

pytestmark = pytest.mark.needs_torch
OLD = {"_use_new_zipfile_serialization": False}  # as torch wrote before 1.6
TABLE = np.arange(24).reshape(6, 4) - 3


def refused(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(UsageError) as caught:
        read_arrays(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: expected ")
    return line


@pytest.mark.parametrize("format_", [{}, OLD], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint16", ">i4"])
def test_arrays(tmp_path: Path, format_: dict[str, bool], protocol: int, dtype: str) -> None:
    arrays = {
        "table": TABLE.astype(dtype),
        "line": np.arange(1000).astype(dtype),
        "fortran": np.asfortranarray(TABLE.astype(dtype)),
        "columns": TABLE.astype(dtype)[::2, ::3],
        "none": np.zeros((0, 3), dtype),
        "number": np.array(7, dtype),
    }
    torch.save(arrays, tmp_path / "a.pt", pickle_protocol=protocol, **format_)
    found = read_arrays(tmp_path / "a.pt")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8"])
def test_tensors(tmp_path: Path, dtype: str) -> None:
    table = torch.from_numpy(TABLE.astype(dtype))
    tensors = {
        "table": table,
        "part": table[2:, 1:3],
        "turned": table.T,
        "again": table.clone(),
        "one": table[3],
        "repeated": table[0].expand(5, 4),
        "none": table[:0],
        "number": table[1, 1],
    }
    torch.save(tensors, tmp_path / "a.pt")
    found = read_arrays(tmp_path / "a.pt")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found[name].dtype == dtype


def test_tensors_of_another_byte_order(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(5)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["a/byteorder"] = b"big"
    members["a/data/0"] = np.arange(5).astype(">i8").tobytes()
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    np.testing.assert_array_equal(read_arrays(tmp_path / "b.pt")["a"], np.arange(5))


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(5), "b": np.arange(3)}, tmp_path / "a.pt")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from gnn_core.data.torch_file import read_arrays\n"
        f"print(read_arrays(Path({str(tmp_path / 'a.pt')!r}))['a'].sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "10\n"


class Malice:
    """Unpickled by a plain unpickler, it creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("format_", [{}, OLD], ids=["zip", "before 1.6"])
def test_a_pickle_cannot_call_what_it_likes(tmp_path: Path, format_: dict[str, bool]) -> None:
    bomb, path = {"source_node": Malice(tmp_path / "boom")}, tmp_path / "a.pt"
    torch.save(bomb, path, **format_)
    torch.load(path, weights_only=False)["source_node"].close()
    (tmp_path / "boom").unlink()  # so it would have worked
    assert re.search(r"got a pickle that asks for \S*open; fetch it again", refused(path))
    assert not (tmp_path / "boom").exists()


NAMES = ["os.system", "numpy.load", "numpy.core.multiarray.fromfile", "torch.load", "builtins.eval"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none_of_an_array_s_are_refused(tmp_path: Path, name: str) -> None:
    module, _, last = name.rpartition(".")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", f"c{module}\n{last}\n(S'x'\ntR.".encode())
    assert f"asks for {name};" in refused(tmp_path / "a.pt")


def forged(path: Path, *, size: str = "(I5\nt", stride: str = "(I1\nt", offset: str = "I0") -> Path:
    """Write a tensor of 5 numbers that claims to be otherwise."""
    storage = "(S'storage'\nctorch\nLongStorage\nS'0'\nS'cpu'\nI5\ntQ"
    hooks = "I00\nccollections\nOrderedDict\n(tR"
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}\n{size}{stride}{hooks}tR"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", f"(S'a'\n{tensor}d.".encode())
        archive.writestr("a/data/0", np.arange(5).tobytes())
    return path


def test_a_tensor_reaches_no_further_than_its_numbers(tmp_path: Path) -> None:
    assert read_arrays(forged(tmp_path / "a.pt"))["a"].tolist() == [0, 1, 2, 3, 4]
    far: list[dict[str, str]] = [
        {"size": "(I6\nt"},
        {"offset": "I1"},
        {"offset": "I-1"},
        {"stride": "(I2\nt"},
        {"stride": "(I-1\nt"},
        {"size": "(I3\nI3\nt", "stride": "(I1\nI1000\nt"},
        {"size": "(I1000000\nI1000000\nI1000000\nI1000000\nt", "stride": "(I0\nI0\nI0\nI1\nt"},
    ]
    for claim in far:
        refused(forged(tmp_path / "a.pt", **claim))


def saved(content: Any, **format_: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **format_)
    return file.getvalue()


GOOD = {"source_node": np.arange(9)}
CONTENTS = {
    "empty": (b"", "got another format"),
    "text": (b"1,2\n3,4\n", "got another format"),
    "a pickle of its own": (pickle.dumps(GOOD), "got another format"),
    "an archive of something else": (b"PK\x03\x04 and so on", "got File is not a zip file"),
    "cut": (saved(GOOD)[:300], "got File is not a zip file"),
    "cut, before 1.6": (saved(GOOD, **OLD)[:300], "got "),
    "a list": (saved([np.arange(3)]), "got a list"),
    "an array": (saved(np.arange(3)), "got an array"),
    "a list within": (saved({"edge": [1, 2]}), "got edge of type list"),
    "an array within": (saved({"edge": {"a": np.arange(3)}}), "got edge of type dict"),
    "fractions": (saved({"edge": np.ones(3)}), "numbers of type 'f8', which are not whole"),
    "objects": (saved({"edge": np.array([{}])}), "numbers of type 'O8', which are not whole"),
    "a tensor of fractions": (saved({"edge": torch.ones(3)}), "asks for torch.FloatStorage"),
    "a tensor before 1.6": (
        saved({"edge": torch.arange(3)}, **OLD),
        "got a tensor of an older one; load it and save it again with torch.save",
    ),
    "a module": (saved(torch.nn.Linear(2, 2)), "asks for torch.nn.modules.linear.Linear"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_other_files_are_refused(tmp_path: Path, case: str) -> None:
    content, words = CONTENTS[case]
    (tmp_path / "a.pt").write_bytes(content)
    assert words in refused(tmp_path / "a.pt")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert "got no such file" in refused(tmp_path / "a.pt")
