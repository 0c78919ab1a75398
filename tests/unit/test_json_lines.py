"""Output as JSON: each line is one object, whatever was printed, also a traceback."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from gnn_core.measure.json_lines import JsonLines

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from gnn_core.measure.json_lines import log_as_json, name_run
log_as_json(3)
print("before")
name_run("abc")
print("two\\nlines", flush=True)
print("note       a", file=sys.stderr)
print("rank 1 failed: b", file=sys.stderr)
raise ValueError("a \\"reason\\"")
"""


def test_a_line_is_an_object_when_it_is_whole() -> None:
    stream, facts = io.StringIO(), {"rank": 1}
    lines = JsonLines(stream, False, facts)
    assert lines.write("a") == 1 and stream.getvalue() == ""
    print(" b\n\nc", file=lines)
    objects = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["message"] for one in objects] == ["a b", "c"]
    assert [list(one) for one in objects] == [["time", "level", "rank", "message"]] * 2
    assert datetime.fromisoformat(objects[0]["time"]).tzinfo is not None
    assert not lines.isatty()


def test_a_process_prints_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    out, err = (
        [json.loads(line) for line in text.splitlines()] for text in (done.stdout, done.stderr)
    )
    assert [(one["level"], one["run_id"], one["message"]) for one in out] == [
        ("info", None, "before"),
        ("info", "abc", "two"),
        ("info", "abc", "lines"),
    ]
    assert [one["level"] for one in err] == ["warning", "error", "error"]
    assert {(one["rank"], one["run_id"]) for one in err} == {(3, "abc")}
    traceback = err[-1]["message"]
    assert traceback.startswith("Traceback") and traceback.endswith('ValueError: a "reason"')
    assert "\n" in traceback
