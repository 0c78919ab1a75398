"""The parent's side of the fuzzer: a child that takes case after case, replaced when it dies."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
_SECONDS, _FIRST_SECONDS = patient(10), patient(60)  # of an input; of one that imports and compiles


@dataclass(frozen=True)
class Case:
    """One input."""

    program: str
    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)  # by path in the folder that it runs in

    def __repr__(self) -> str:
        """As it can be pasted into a test."""
        return f"Case({self.program!r}, {self.words!r}, {self.files!r})"


class Worker:
    """Runs cases in a child process; says what is wrong with how one ended."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._is_warm: set[str] = set()

    def problem(self, case: Case) -> str | None:
        """What is wrong: a traceback, a crash, a hang, no word; None if nothing is."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            for name, content in case.files.items():
                file = place / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            return self._problem(case, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _problem(self, case: Case, place: Path) -> str | None:
        child = self._started()
        asked = {"program": case.program, "words": list(case.words), "folder": str(place)}
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        child.stdin.flush()
        limit = _SECONDS if case.program in self._is_warm else _FIRST_SECONDS
        if not select.select([child.stdout], [], [], limit)[0]:
            self.close()
            return f"still running after {limit:g} s"
        line = child.stdout.readline()
        if not line:
            child.wait()
            said = (self._folder / "e").read_text(errors="replace")[-3000:]
            self.close()
            return f"the process ended with {child.returncode}: {said}"
        self._is_warm.add(case.program)
        return _judged(json.loads(line))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._is_warm.clear()
            # No network, no settings of the user, and a cache of its own.
            env = {
                **os.environ,
                "RINGSAGE_CACHE": str(self._folder / "cache"),
                "HOME": str(self._folder),
                "http_proxy": "http://127.0.0.1:9",
                "https_proxy": "http://127.0.0.1:9",
            }
            env.pop("RINGSAGE_DATA", None)
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.programs", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=env,
            )
        return self._child


def _judged(answer: dict[str, Any]) -> str | None:
    code, err = answer["code"], answer["err"]
    if "Traceback (most recent call last)" in err:
        return err
    if code not in (0, 1, 2):
        return f"exit code {code}: {err}"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if code == 2 and not errors:
        return f"exit code 2 without a word: {err}"
    return None
