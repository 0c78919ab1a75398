"""Small published files for the tests of readers."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt


def write_csv(path: Path, rows: npt.NDArray) -> None:
    """Write rows as the Open Graph Benchmark does: gzip, commas, no header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(rows).reshape(len(rows), -1)
    text = "\n".join(",".join(str(value.item()) for value in row) for row in rows)
    with gzip.open(path, "wt") as file:
        file.write(text + "\n")
