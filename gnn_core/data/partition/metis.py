"""Parts by METIS, through the optional package pymetis, in a process of its own.

METIS ends the whole process where it fails, and takes much memory: what it will take is asked for
before it begins, and its end is reported in one line.

    python -m gnn_core.data.partition.metis FOLDER K SEED      # what the child runs
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.data.graph import Graph
from gnn_core.data.partition.hashed import Parts, part_dtype
from gnn_core.data.room import require_room
from gnn_core.usage import UsageError, one_line

BYTES_PER_ENTRY = 150
"""Of memory that METIS takes for each entry of the adjacency, with 64-bit ids."""


def require_metis(method: str) -> None:
    """Raise UsageError where pymetis is not installed."""
    if importlib.util.find_spec("pymetis") is None:
        raise UsageError(
            f"--method {method}: expected the package pymetis, got none; install it "
            "(pip install 'ringsage[partition]') or choose --method refine"
        )


def metis_parts(graph: Graph, num_parts: int, seed: int = 0) -> Parts:
    """Cut a graph by METIS; its edges have to go both ways.

    Raises:
        UsageError: pymetis is not installed, the memory does not suffice, or METIS failed.
    """
    require_metis("metis")
    arrays = {"starts": np.asarray(graph.indptr), "columns": np.asarray(graph.indices)}
    return run_metis(graph.name, arrays, num_parts, seed)


def run_metis(name: str, arrays: dict[str, npt.NDArray], num_parts: int, seed: int) -> Parts:
    """Run METIS in a child process.

    Args:
        name: of the graph, for messages.
        arrays: `starts` int64 `[n + 1]` and `columns` `[m]`, perhaps with `node_weights` `[n]` and
            `edge_weights` `[m]`, positive integers.
        num_parts: k.
        seed: of METIS.

    Raises:
        UsageError: the memory does not suffice, or METIS failed.
    """
    num_nodes, num_entries = len(arrays["starts"]) - 1, len(arrays["columns"])
    if num_parts == 1 or num_entries == 0 or num_parts >= num_nodes:
        return (np.arange(num_nodes) % num_parts).astype(part_dtype(num_parts))
    require_room(f"METIS on {name}", memory_bytes=BYTES_PER_ENTRY * num_entries)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for key, array in arrays.items():
            if isinstance(array, np.memmap) or isinstance(array.base, np.memmap):
                (folder / f"{key}.npy").symlink_to(_file_of(array))
            else:
                np.save(folder / f"{key}.npy", array)
        command = [sys.executable, "-m", __name__, str(folder), str(num_parts), str(seed)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode or not (folder / "parts.npy").is_file():
            said = one_line(child.stderr.strip().rpartition("\n")[2])[:200]
            how = f"exit code {child.returncode}" + (f" ({said})" if said else "")
            raise UsageError(
                f"METIS on {name}: expected {num_parts} parts, got {how}; its edges have to go "
                "both ways and its memory must suffice; choose --method refine, which needs neither"
            )
        parts: Parts = np.load(folder / "parts.npy").astype(part_dtype(num_parts))
    return parts


def _file_of(array: npt.NDArray) -> Path:
    mapped = array if isinstance(array, np.memmap) else array.base
    return Path(str(mapped.filename)).absolute()  # type: ignore[union-attr]


def main(folder: Path, num_parts: int, seed: int) -> None:
    """Cut the graph of the arrays in `folder`, and leave `parts.npy` there."""
    import pymetis

    names = ("starts", "columns", "node_weights", "edge_weights")
    files = {name: folder / f"{name}.npy" for name in names}
    arrays = {name: np.load(file) for name, file in files.items() if file.exists()}
    starts, columns = arrays["starts"], arrays["columns"].astype(np.int64)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    edge_weights = arrays.get("edge_weights")
    if (loops := rows == columns).any():  # METIS takes none
        columns = columns[~loops]
        starts = np.concatenate(
            [[0], np.cumsum(np.bincount(rows[~loops], minlength=len(starts) - 1))]
        )
        edge_weights = None if edge_weights is None else edge_weights[~loops]
    del rows, loops
    _, parts = pymetis.part_graph(
        num_parts,
        adjacency=pymetis.CSRAdjacency(starts, columns),
        vweights=arrays.get("node_weights"),
        eweights=edge_weights,
        options=pymetis.Options(seed=seed),
    )
    np.save(folder / "parts.npy", np.array(parts, np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
