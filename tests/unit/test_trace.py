"""The trace of a rank: its epochs, steps and sections, in a file that viewers of traces read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gnn_core.measure import trace
from gnn_core.measure.timing import Stopwatch
from gnn_core.measure.trace import Trace
from gnn_core.usage import UsageError
from tests.unit.made_records import epoch


def spans(file: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for event in json.loads(file.read_text())["traceEvents"]:
        if event["ph"] == "X":
            found.setdefault(event["name"], []).append(event)
    return found


def lies_within(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    slack = 1.0  # of the rounding, in microseconds
    ends = [span["ts"] + span["dur"] for span in (inner, outer)]
    return inner["ts"] >= outer["ts"] - slack and ends[0] <= ends[1] + slack


def test_sections_lie_in_steps_and_steps_in_epochs(tmp_path: Path) -> None:
    file, watch, began = tmp_path / "deep" / "run.json", Stopwatch(), time.time()
    made = Trace(file, "ab" * 16, 3, watch)
    for step in range(2):
        with watch.section("compute"):
            time.sleep(0.002)
            with watch.section("communicate"):
                time.sleep(0.001)
        now = time.perf_counter()
        watch.add("sample", 0.001, ended=now)  # by the loader's thread
        watch.add("sample", 0.001)  # nobody knows when
        made.step(0, step, [0.5, float("nan")][step])
    made.epoch(epoch(0, 8.0))
    made.close()
    with watch.section("compute"):
        pass
    found = spans(file)
    assert {name: len(all_of_it) for name, all_of_it in found.items()} == {
        **{"compute": 2, "communicate": 2, "sample": 2, "step": 2, "epoch 1": 1}
    }
    for inner, outer in (("communicate", "compute"), ("compute", "step")):
        pairs = zip(found[inner], found[outer], strict=True)
        assert all(lies_within(*pair) for pair in pairs)
    assert all(lies_within(step, found["epoch 1"][0]) for step in found["step"])
    assert found["communicate"][0]["dur"] >= 1000 and found["compute"][0]["dur"] >= 3000
    assert began - 0.1 <= found["step"][0]["ts"] / 1e6 <= time.time() + 0.1
    assert [step["args"] for step in found["step"]] == [
        {"epoch": 1, "step": 1, "loss": 0.5},
        {"epoch": 1, "step": 2, "loss": None},
    ]
    threads = {name: found[name][0]["tid"] for name in ("compute", "step", "sample")}
    assert threads["compute"] == threads["step"] != threads["sample"]
    whole = json.loads(file.read_text())
    assert {event["pid"] for event in whole["traceEvents"]} == {3}
    assert whole["otherData"] == {"run_id": "ab" * 16, "events_left_out": 0}


def test_a_long_run_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_MOST_EVENTS", 3)
    made = Trace(tmp_path / "run.json", "ab", 0, Stopwatch())
    for step in range(5):
        made.step(0, step, 1.0)
    made.close()
    whole = json.loads((tmp_path / "run.json").read_text())
    assert len(spans(tmp_path / "run.json")["step"]) == 3
    assert whole["otherData"]["events_left_out"] == 2


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--trace: cannot write .* give a name in another folder"):
        Trace(tmp_path / "file" / "run.json", "ab", 0, Stopwatch())


def test_a_trace_that_is_lost_at_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Trace(tmp_path / "run.json", "ab", 0, Stopwatch())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace, "replace_file", full)
    made.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"the trace {tmp_path / 'run.json'} is lost: [Errno 28] No space left on device"
