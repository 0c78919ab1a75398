"""The file that a benchmark leaves: where its figures come from, and how it is written.

`benches` reads it; this side needs no pandas.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gnn_core.measure import machine
from gnn_core.whole_file import write_whole


def origin(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """When and where figures were measured, and with which versions and source.

    `hardware` was asked before the benchmark began to be a load of its own.
    """
    commit, is_dirty = machine.commit()
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(hardware),
        "versions": machine.versions(),
        "commit": commit,
        "dirty": is_dirty,
    }


def spread_text(values: Sequence[float], digits: int = 2) -> str:
    """The median of a figure's rounds and their range, as in `1.05 (1.03 .. 1.11)`."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} .. {most:.{digits}f})"


def write_bench(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record as JSON, whole or not at all. Raises UsageError."""
    write_whole(path, json.dumps(record, indent=1) + "\n")
