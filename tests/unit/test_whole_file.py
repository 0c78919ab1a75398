"""A file of results is there whole, or is what it was; what cannot be written is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "made" / "a.txt"
    write_whole(file, "Maß\n")
    assert file.read_bytes() == "Maß\n".encode()
    write_whole(file, b"\0\1")
    assert file.read_bytes() == b"\0\1" and list(tmp_path.rglob("*.*")) == [file]


@pytest.mark.parametrize("name", ["folder", ".", "file/a.txt", "x" * 999])
def test_what_cannot_be_written_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(UsageError, match="^cannot write "):
        write_whole(Path(name), "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
