"""TensorBoard: what was added is in the event file, point by point."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnn_core.config import RunConfig, UsageError
from gnn_core.measure.tensorboard import TensorBoard, folder_of_run
from gnn_core.training.observers import observers_of
from tests.unit.made_records import run

Point = tuple[str, int, float]


def read_points(folder: Path) -> Iterator[Point]:
    """Read the only event file of a folder: records of (length, check, event, check)."""
    event_pb2 = pytest.importorskip(
        "tensorboardX.proto.event_pb2", reason="tensorboardX is not installed: `make install`"
    )
    (file,) = folder.glob("events.out.tfevents.*")
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
        data = data[16 + length :]


@pytest.fixture
def needs_writer() -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: `make install`")


@pytest.mark.usefixtures("needs_writer")
def test_every_point_is_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    curves = TensorBoard(str(folder))
    curves.add(0, {"loss/train": 1.5, "accuracy/valid": 0.25})
    curves.add(3, {"loss/train": 0.75})
    curves.close()
    assert list(read_points(folder)) == [
        ("loss/train", 0, 1.5),
        ("accuracy/valid", 0, 0.25),
        ("loss/train", 3, 0.75),
    ]


@pytest.mark.usefixtures("needs_writer")
def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    """A gap in the curve, and not a zero."""
    curves = TensorBoard(str(tmp_path))
    curves.add(1, {"accuracy/valid": None, "loss/train": 0.0})
    curves.close()
    assert list(read_points(tmp_path)) == [("loss/train", 1, 0.0)]


def test_without_a_folder_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where a writer without a folder would put its `runs`
    record = run("single", 1)
    assert observers_of(RunConfig(), record, 0) == []
    assert observers_of(RunConfig(tensorboard="curves"), record, 1) == [], "rank 0 writes"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("needs_writer")
def test_a_folder_that_cannot_be_is_a_mistake_reported_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--tensorboard .*file/curves: expected") as caught:
        TensorBoard(str(tmp_path / "file" / "curves"))
    assert "\n" not in str(caught.value)


def test_without_the_package_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match="tensorboardX"):
        TensorBoard(str(tmp_path))


def test_each_run_has_a_folder_of_its_own() -> None:
    one = folder_of_run("curves", "single", "synthetic:papers=1e6", "0123456789ab")
    assert one == "curves/single-synthetic-papers-1e6-01234567"


@pytest.mark.usefixtures("needs_writer")
def test_a_disk_that_is_full_at_the_end_costs_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = TensorBoard(str(tmp_path))
    curves.add(1, {"loss/train": 0.5})
    writer = curves._writer
    assert writer is not None

    def fail() -> None:
        raise OSError(28, "No space left on device")

    writer.close, close = fail, writer.close
    curves.close()
    close()
    assert "the TensorBoard curves are cut: [Errno 28] No space left" in capsys.readouterr().err
