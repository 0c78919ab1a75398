"""Disk benchmark: rows at random places of a file that is not in memory, read in several ways.

    python -m gnn_core.bench.disk                                # 3 GiB of rows of 512 bytes
    python -m gnn_core.bench.disk --mib 8192 --folder /mnt/nvme  # another disk
    python -m gnn_core.bench.disk --json disk.json

A memory map as it is, one that was told to expect random reads, and `DiskStore` without a cache, on
1, 8, 32 and 128 threads and with queued reads, take turns. Before each turn the file is dropped
from the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.bench.frame import (
    Variant,
    add_json_flag,
    add_rounds_flag,
    median_and_range,
    require_place,
    table_text,
    take_turns,
    was_busy,
    write_bench,
)
from gnn_core.data.disk_store import DiskStore
from gnn_core.data.mapped import expect_random_reads
from gnn_core.data.room import require_room
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.measure import machine
from gnn_core.usage import Parser, whole

IntArray = npt.NDArray[np.int64]
_MAP = "memory map"
_RANDOM_MAP = "memory map, MADV_RANDOM"
_THREADS = (1, 8, 32, 128, None)  # None: queued by one
_PIECE_BYTES = 64 << 20


@dataclass(frozen=True)
class Turn:
    """One turn of one way to read."""

    rows: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a mistake reported in one line."""
    return guarded(lambda: _run(_parse(argv)))


def _run(options: argparse.Namespace) -> int:
    require_place(options.json)
    hardware = machine.hardware()  # before the benchmark is a load of its own
    with _made_table(options) as table:
        variants = _variants(table, options)
        variants[-1].run()  # compiles
        take_turns(variants, options.rounds, lambda turn: f"{turn.rate:,.0f} rows/s")
    record = _record(options, variants, hardware)
    text, notes = table_text(record)
    print("\n".join([text, *notes]))
    if options.json:
        write_bench(options.json, record)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser.of(__doc__, prog="python -m gnn_core.bench.disk")
    add = parser.add_argument
    text = "size of the file (default: %(default)s)"
    add("--mib", type=whole(64, 1 << 20), default=3072, metavar="N", help=text)
    add("--row-bytes", type=whole(4, 1 << 20), default=512, metavar="N", help="(default: 512)")
    add("--rows", type=whole(64), default=50_000, metavar="N", help="a turn (default: %(default)s)")
    add(
        "--map-rows",
        type=whole(16),
        default=200,
        metavar="N",
        help="a turn of the memory map as it is, which is slow (default: %(default)s)",
    )
    text = "where the file is made, and removed in the end (default: the temporary folder)"
    add("--folder", type=path_argument, default=Path(tempfile.gettempdir()), help=text)
    add_rounds_flag(parser, 3, "of each way")
    add_json_flag(parser)
    return parser.parse_args(argv)


@contextmanager
def _made_table(options: argparse.Namespace) -> Iterator[np.memmap]:
    """A table of random bytes, written to the disk, memory-mapped."""
    size = options.mib << 20
    require_room("the benchmark's file", options.folder, size)
    piece = np.random.default_rng(0).integers(0, 256, _PIECE_BYTES, np.uint8).data
    with tempfile.NamedTemporaryFile(prefix="ringsage-bench-", dir=options.folder) as file:
        for _ in range(size // _PIECE_BYTES):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        shape = (size // options.row_bytes, options.row_bytes // 4)
        yield np.memmap(file.name, np.float32, "r", 0, shape)


def _variants(table: np.memmap, options: argparse.Namespace) -> list[Variant[Turn]]:
    random = np.random.default_rng(1)

    def turn(rows: int, opened: Callable[[], Callable[[IntArray], object]]) -> Turn:
        ids = random.integers(0, len(table), rows)
        _drop(Path(str(table.filename)))
        read = opened()
        cpu, start = time.process_time(), time.perf_counter()
        read(ids)
        seconds = time.perf_counter() - start
        return Turn(rows, seconds, time.process_time() - cpu)

    def variant(name: str, rows: int, opened: Callable[[], Any]) -> Variant[Turn]:
        return Variant(name, partial(turn, rows, opened))

    few = min(options.rows, 10 * options.map_rows)
    stores = [
        variant(
            f"disk store, {_name(threads)}",
            few if threads == 1 else options.rows,
            partial(_stored, table, threads),
        )
        for threads in _THREADS
    ]
    return [
        variant(_MAP, options.map_rows, partial(_mapped, table, False)),
        variant(_RANDOM_MAP, few, partial(_mapped, table, True)),
        *stores,
    ]


def _name(threads: int | None) -> str:
    if threads is None:
        return "queued reads"
    return f"{threads} thread{'s' * (threads > 1)}"


def _mapped(table: np.memmap, random: bool) -> Callable[[IntArray], object]:
    """A new map of the file, which has no page yet."""
    own = np.memmap(str(table.filename), table.dtype, "r", 0, table.shape)
    if random:
        expect_random_reads(own)
    return lambda ids: own[ids]


def _stored(table: np.memmap, threads: int | None) -> Callable[[IntArray], object]:
    store = DiskStore(table, 0, threads)
    return lambda ids: store.gather(ids, np.empty((len(ids), store.width), store.dtype))


def _drop(path: Path) -> None:
    """Forget what the page cache has of a file."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def _record(
    options: argparse.Namespace, variants: Sequence[Variant[Turn]], hardware: dict[str, Any]
) -> dict[str, Any]:
    rates = {one.name: statistics.median(turn.rate for turn in one.results) for one in variants}
    rows = [
        [
            one.name,
            rates[one.name],
            median_and_range([turn.rate for turn in one.results], 0),
            rates[one.name] / rates[_MAP],
            statistics.median(1e6 * turn.cpu_seconds / turn.rows for turn in one.results),
        ]
        for one in variants
    ]
    where = machine.origin(hardware)
    return {
        "benchmark": "rows from disk",
        **where,
        "versions": {name: where["versions"][name] for name in ("python", "numpy", "numba")},
        "settings": {
            "file_mib": options.mib,
            "row_bytes": options.row_bytes,
            "rows": options.rows,
            "rounds": options.rounds,
            "busy": was_busy(hardware),
        },
        "columns": ["read by", "rows/s", "range", "of the memory map", "CPU us/row"],
        "rows": rows,
        "notes": ["rows at random places, the file dropped from the page cache before each turn"],
        "turns": {one.name: [vars(turn) for turn in one.results] for one in variants},
    }


if __name__ == "__main__":
    sys.exit(main())
