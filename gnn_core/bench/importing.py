"""How fast a table of edges is imported, and in how much memory: made here, imported by a child.

    python -m gnn_core.bench.importing                  # 100 million edges, some minutes
    python -m gnn_core.bench.importing --edges 5e6 --text

The file and the graph take some 3.5 GB of disk for 100 million edges, and are removed.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gnn_core.data.room import require_room, size_text
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.usage import Parser, UsageError, finite, whole

_PIECE = 1 << 20
_BYTES_PER_EDGE = 40  # of the table, the raw pairs and the graph


def make_edges(path: Path, num_edges: int, num_nodes: int, as_text: bool, seed: int = 0) -> None:
    """Write random edges as CSV with a header; ids of text are `n` and the number."""
    import pyarrow
    from pyarrow import compute, csv

    random = np.random.default_rng(seed)
    schema = pyarrow.schema([(name, pyarrow.int64()) for name in ("source", "target")])
    if as_text:
        schema = pyarrow.schema([(name, pyarrow.string()) for name in ("source", "target")])
    with csv.CSVWriter(path, schema, write_options=csv.WriteOptions(quoting_style="none")) as file:
        for low in range(0, num_edges, _PIECE):
            ends = random.integers(0, num_nodes, (2, min(_PIECE, num_edges - low)))
            columns = [pyarrow.array(end) for end in ends]
            if as_text:
                texts = [column.cast(pyarrow.string()) for column in columns]
                columns = [compute.binary_join_element_wise("n", text, "") for text in texts]
            file.write(pyarrow.record_batch(columns, schema=schema))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser.of(__doc__, prog="python -m gnn_core.bench.importing")
    parser.add_argument("--edges", type=finite(1, 1e10), default=1e8, help="how many (1e8)")
    parser.add_argument("--nodes", type=whole(2), default=10_000_000, help="ids (10 million)")
    parser.add_argument("--text", action="store_true", help="ids are text")
    parser.add_argument("--folder", type=path_argument, help="where to work (the system's)")
    options = parser.parse_args(argv)
    num_edges = int(options.edges)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        require_room(f"{num_edges:,} edges", folder, _BYTES_PER_EDGE * num_edges)
        table = folder / "edges.csv"
        make_edges(table, num_edges, options.nodes, options.text)
        start = time.perf_counter()
        command = [sys.executable, "-m", "gnn_core.data.datasets", "import", "bench"]
        command += ["--edges", str(table), "--cache-dir", str(folder)]
        if subprocess.run(command, check=False).returncode:
            raise UsageError("expected an import that succeeds, got the failure above")
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # there was one child
        print(
            f"{num_edges:,} edges, {size_text(table.stat().st_size)} of CSV: {seconds:.1f} s, "
            f"{num_edges / seconds / 1e6:.2f} million edges/s; {used.ru_utime + used.ru_stime:.1f} "
            f"s of CPU; at most {size_text(used.ru_maxrss * 1024)} resident"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
