"""Measured figures in a document that no record stands behind: those outside its made sections.

    python -m gnn_core.report.loose_figures README.md docs/*.md

A figure is a number with a unit of measurement (seconds, shares, bytes, rates, times as fast).
Code is none: settings and limits that a document names stand in backticks or in words. Exit code 0,
1 when there are such figures, 2 for a file that cannot be read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_UNIT = (
    r"(?:%|(?:milli|micro)?sec(?:ond)?s?\b|ms\b|s\b|min(?:ute)?s?\b|hours?\b|h\b|[kMG]i?B\b|bytes\b"
    r"|times\b|x\b|-?fold\b|(?:percentage )?points?\b|G?FLOP\S*|\w+/s\b|MRR\b)"
)
_FIGURE = re.compile(rf"(?<![\w.,/=-])\d[\d.,]*(?:e-?\d+)?\s?{_UNIT}")
_MARKER = re.compile(r"^\s*<!--\s*figures:.*?\b(begin|end)\s*-->\s*$")
_CODE = re.compile(r"`[^`]*`")


def loose_figures(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, figure) for each figure outside code and made sections."""
    made = fenced = False
    for number, line in enumerate(text.split("\n"), start=1):
        if marker := _MARKER.match(line):
            made = marker[1] == "begin"
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if made or fenced or line.startswith("    "):
            continue
        for figure in _FIGURE.findall(_CODE.sub("``", line)):
            yield number, figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Name the loose figures of the files on the command line (None: of this process)."""
    files = sys.argv[1:] if arguments is None else list(arguments)
    if not files or files[0].startswith("-"):
        print(__doc__, file=sys.stderr if files[:1] not in (["-h"], ["--help"]) else sys.stdout)
        return 0 if files else 2
    code = 0
    for file in files:
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            print(f"error: expected a document, but cannot read {file}: {problem}", file=sys.stderr)
            return 2
        for number, figure in loose_figures(text):
            code = 1
            print(
                f"{file}:{number}: {figure!r} has no record behind it: put it in a section that is "
                "made, or say it without a number",
                file=sys.stderr,
            )
    return code


if __name__ == "__main__":
    raise SystemExit(main())
