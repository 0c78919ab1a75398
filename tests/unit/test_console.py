"""What a run says: whole lines from one rank, a bar on a terminal only."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace

import pytest

from gnn_core.measure.console import Console, epochs_between_lines


class Stream(io.StringIO):
    """Remembers each write, as a launcher sees them, and is a terminal or not."""

    def __init__(self, is_terminal: bool = False) -> None:
        super().__init__()
        self.writes: list[str] = []
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stop the console's clock; `clock.now` sets it."""
    clock = SimpleNamespace(now=5000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("gnn_core.measure.console.time", clock)
    return clock


@pytest.mark.parametrize("mode", ["auto", "lines", "off"])
def test_a_line_is_one_write(mode: str) -> None:
    """mpirun puts the rank's tag before each write: a line end of its own is a line of its own."""
    stream = Stream()
    console = Console(True, mode, stream)
    console.say("epoch 1  loss 0.5")
    console.say("epoch 2  loss 0.4")
    assert stream.writes == ["epoch 1  loss 0.5\n", "epoch 2  loss 0.4\n"]


@pytest.mark.parametrize("mode", ["auto", "bar", "lines", "off"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_other_ranks_are_silent(mode: str, is_terminal: bool, clock: SimpleNamespace) -> None:
    stream = Stream(is_terminal)
    console = Console(False, mode, stream)
    console.say("epoch 1")
    with console.steps("epoch 1", 0, 3) as steps:
        for _ in range(3):
            clock.now += 60
            steps.advance(0.5)
    assert stream.writes == []


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    stream = Stream(is_terminal=True)
    console = Console(True, "auto", stream)
    with console.steps("epoch 7", 2, 5) as steps:
        for _ in range(3):
            steps.advance(0.25)
        console.say("a word in between")
    shown = stream.getvalue()
    assert "epoch 7" in shown
    assert "2/5" in shown  # a resumed epoch begins where it was left
    assert "\r" in shown
    assert "a word in between\n" in shown
    assert shown.rsplit("\r", 1)[1].strip() == ""  # the last thing written wipes the bar


@pytest.mark.parametrize(("mode", "is_terminal"), [("auto", False), ("lines", True), ("off", True)])
def test_anywhere_else_there_is_no_bar(mode: str, is_terminal: bool) -> None:
    """In a log file a bar is a thousand lines."""
    stream = Stream(is_terminal)
    with Console(True, mode, stream).steps("epoch 7", 0, 500) as steps:
        for _ in range(500):
            steps.advance(0.25)
    assert stream.writes == []


def test_a_long_epoch_tells_every_ten_seconds(clock: SimpleNamespace) -> None:
    stream = Stream()
    with Console(True, "lines", stream).steps("epoch 2", 100, 200) as steps:
        for _ in range(100):
            clock.now += 1
            steps.advance(0.125)
    assert len(stream.writes) == 10
    assert stream.writes[0] == "epoch 2  step 110/200  loss 0.1250  90 s to go\n"
    assert stream.writes[4] == "epoch 2  step 150/200  loss 0.1250  50 s to go\n"


def test_a_long_step_tells_every_thirty_seconds(clock: SimpleNamespace) -> None:
    stream = Stream()
    console = Console(True, "lines", stream)
    with console.steps("epoch 2", 0, 200) as steps:
        for _ in range(20):
            clock.now += 5
            console.tell_if_silent()
        steps.advance(0.125)
        clock.now += 29
        console.tell_if_silent()
    clock.now += 100
    console.tell_if_silent()
    lines = [f"epoch 2  step 0/200  {taken} s in the next so far\n" for taken in (30, 60, 90)]
    assert stream.writes == [*lines, "epoch 2  step 1/200  loss 0.1250  19900 s to go\n"]


def test_silence_is_broken_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnn_core.measure.console._SILENT_SECONDS", 0.01)
    monkeypatch.setattr("gnn_core.measure.console._SECONDS_BETWEEN_LOOKS", 0.01)
    stream, told = Stream(), threading.Event()

    def line() -> str:
        told.set()
        return "warming up"

    with Console(True, "lines", stream).telling(line):
        assert told.wait(60)
    stream.writes.clear()
    told.clear()
    with Console(True, "off", stream).telling(line):
        assert not told.wait(0.2)


def test_without_progress_only_results_are_reported(clock: SimpleNamespace) -> None:
    stream = Stream()
    console = Console(True, "off", stream)
    with console.steps("epoch 2", 0, 100) as steps:
        for _ in range(100):
            clock.now += 60
            steps.advance(0.125)
    console.say("test accuracy 0.7")
    assert stream.writes == ["test accuracy 0.7\n"]


@pytest.mark.parametrize(
    ("mode", "heard"),
    [("lines", ["meanwhile\n", "result\n"]), ("off", ["result\n"]), ("quiet", [])],
)
def test_how_much_is_said(mode: str, heard: list[str]) -> None:
    stream = Stream()
    console = Console(True, mode, stream)
    console.progress("meanwhile")
    console.say("result")
    assert stream.writes == heard


def epochs_printed(mode: str, epochs: int, clock: SimpleNamespace, seconds: float = 0) -> list[int]:
    """The epochs of a run whose lines are printed, when each of them takes so long."""
    stream = Stream()
    console = Console(True, mode, stream)
    for number in range(1, epochs + 1):
        clock.now += seconds
        console.epoch(f"{number}", number, epochs, is_last=number == epochs)
    return [int(line) for line in stream.writes]


def test_of_many_epochs_some_are_reported(clock: SimpleNamespace) -> None:
    assert epochs_printed("auto", 20, clock) == [*range(1, 21)]
    assert epochs_printed("auto", 203, clock) == [1, 2, 3, 4, 5, *range(25, 201, 25), 203]
    assert epochs_printed("lines", 203, clock) == [*range(1, 204)]
    assert epochs_printed("off", 203, clock) == []


@pytest.mark.parametrize("epochs", [21, 30, 61, 99, 151, 299, 750, 1001, 99_999, 3_000_000])
def test_no_more_than_twenty_epochs_and_the_last_are_reported(epochs: int) -> None:
    assert 5 < 5 + epochs // epochs_between_lines(epochs) <= 20


def test_long_epochs_are_all_reported(clock: SimpleNamespace) -> None:
    assert epochs_printed("auto", 203, clock, seconds=11) == [*range(1, 204)]
    assert epochs_printed("auto", 203, clock, seconds=6)[5:8] == [7, 9, 11]


def test_a_run_that_stops_early_tells_its_last_epoch(clock: SimpleNamespace) -> None:
    stream = Stream()
    console = Console(True, "auto", stream)
    for number in (5, 6, 7):
        console.epoch(f"{number}", number, 1000, is_last=number == 7)
    assert stream.writes == ["5\n", "7\n"]


def test_a_rank_of_a_launcher_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """mpirun gives its ranks a terminal, which is not the user's."""
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    stream = Stream(is_terminal=True)
    with Console(True, "auto", stream).steps("epoch 1", 0, 5) as steps:
        steps.advance(0.5)
    assert stream.writes == []


def test_a_failing_epoch_takes_its_bar_along() -> None:
    stream = Stream(is_terminal=True)
    with pytest.raises(ValueError, match="nan"):
        with Console(True, "bar", stream).steps("epoch 1", 0, 5) as steps:
            steps.advance(0.5)
            raise ValueError("nan")
    assert stream.getvalue().rsplit("\r", 1)[1].strip() == ""


def test_it_speaks_to_whatever_standard_output_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    Console(True).say("hello")
    assert capsys.readouterr().out == "hello\n"
