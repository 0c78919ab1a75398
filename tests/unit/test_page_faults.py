"""Reading ahead in a memory map: which pages come, and that batches stay the same."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import page_faults
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.mapped import expect_random_reads
from gnn_core.data.page_faults import PageFaults
from gnn_core.data.sampler import Sampler


def resident(array: np.memmap) -> int:
    """Bytes of a mapped array that this process has touched."""
    address, found = f"{array.ctypes.data & -mmap.PAGESIZE:x}-", 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.startswith(address)
        elif inside and line.startswith("Rss:"):
            found = int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc of Linux")
def test_pages_of_the_positions_are_touched(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.arange(1 << 20, dtype=np.int32))
    array = np.load(tmp_path / "array.npy", mmap_mode="r")
    expect_random_reads(array)
    assert resident(array) == 0
    PageFaults(array).take(np.arange(0, 1 << 20, 1024))
    assert resident(array) >= 4 << 20
    PageFaults(array).take(np.arange(0))


def test_only_large_maps_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "array.npy", np.arange(1000))
    array = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert PageFaults.of(array) is None
    monkeypatch.setattr(page_faults, "LARGE_BYTES", 8000)
    assert PageFaults.of(array) is not None
    assert PageFaults.of(np.array(array)) is None


def test_batches_are_the_same(
    tiny_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_faults, "LARGE_BYTES", 1)
    targets = np.arange(0, 120, 5)
    blocks, nodes = Sampler(tiny_graph, (3, -1)).sample(targets, 7)
    sampler = Sampler(write_graph(tiny_graph, tmp_path / "tiny"), (3, -1))
    assert sampler._faults is not None
    mapped_blocks, mapped_nodes = sampler.sample(targets, 7)
    assert (mapped_nodes == nodes).all()
    for ours, theirs in zip(mapped_blocks, blocks, strict=True):
        assert (ours.columns == theirs.columns).all() and (ours.offsets == theirs.offsets).all()
