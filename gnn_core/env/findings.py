"""One thing the doctor found, and how findings are shown to people and to machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Finding", "Status", "as_json", "as_text", "ok", "problem", "warning"]

Status = Literal["ok", "warning", "problem"]

_COLOURS: dict[Status, str] = {"ok": "\033[32m", "warning": "\033[33m", "problem": "\033[31;1m"}
_PLAIN = "\033[0m"


@dataclass(frozen=True)
class Finding:
    """`name` is what was looked at, `text` what was seen, `advice` what to do about it."""

    status: Status
    name: str
    text: str
    advice: str = ""


def ok(name: str, text: str) -> Finding:
    """Something is as it should be."""
    return Finding("ok", name, text)


def warning(name: str, text: str, advice: str) -> Finding:
    """Something works, but not as well as it could, or only for some uses."""
    return Finding("warning", name, text, advice)


def problem(name: str, text: str, advice: str) -> Finding:
    """Something that keeps the trainers from running."""
    return Finding("problem", name, text, advice)


def as_text(findings: Iterable[Finding], colours: bool = False, width: int = 100) -> str:
    """Lines for people: status, name, what was seen; advice on lines of its own."""
    lines = []
    for finding in findings:
        status = f"{finding.status:<8}"
        if colours:
            status = f"{_COLOURS[finding.status]}{status}{_PLAIN}"
        indent = " " * 27
        body = textwrap.wrap(
            finding.text, max(20, width - 27), break_long_words=False, break_on_hyphens=False
        )
        lines.append(f"{status} {finding.name:<17} {body[0] if body else ''}".rstrip())
        lines += [f"{indent}{line}" for line in body[1:]]
        if finding.advice:
            lines += textwrap.wrap(
                finding.advice,
                max(40, width),
                initial_indent=f"{indent}-> ",
                subsequent_indent=f"{indent}   ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """One JSON object: `findings` as above and `counts` of each status."""
    counts = {status: sum(f.status == status for f in findings) for status in _COLOURS}
    return json.dumps({"counts": counts, "findings": [asdict(f) for f in findings]}, indent=2)
