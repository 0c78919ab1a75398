"""Counters, read from made-up /proc and /sys trees as kernels of many ages write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gnn_core.measure.resources.counters import Counters, Reading

TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
GIB = 2**30
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo: 700 9 0 0 0 0 0 0 700 9 0 0 0 0 0 0
  eth0:1000 9 0 0 0 0 0 0 200 9 0 0 0 0 0 0
 br0: 5000 9 0 0 0 0 0 0 6000 9 0 0 0 0 0 0
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host: the process has used 3 s on two threads' worth of ticks and holds 10 pages."""
    ticks = f"{2 * TICKS} {TICKS}"
    stat = f"77 (a) b (c) R 1 77 77 0 -1 0 555 0 4 0 {ticks} 9 9 20 0 8 0 33 123456 10 184467 1 1\n"
    write(
        tmp_path,
        {
            "proc/self/stat": stat,
            "proc/self/io": "rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 512\n",
            "proc/self/net/dev": DEV,
            "proc/self/cgroup": "0::/\n",
            "proc/stat": f"cpu  {5 * TICKS} 0 {TICKS} 99999 99999 0 0 777 0 0\ncpu0 1 1\n",
            "proc/meminfo": "MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 3145728 kB\n",
        },
    )
    return tmp_path


def read(root: Path) -> tuple[Counters, Reading]:
    counters = Counters(root / "proc", root / "cgroup", root / "net")
    return counters, counters.read(1.5)


def test_the_process_itself(root: Path) -> None:
    """The program's name holds blanks and parentheses; io counts what reached the storage."""
    _, found = read(root)
    assert (found.at_seconds, found.cpu_seconds, found.rss_bytes) == (1.5, 3.0, 10 * PAGE)
    assert (found.num_major_faults, found.file_read_bytes, found.file_written_bytes) == (
        4,
        4096,
        512,
    )


def test_a_host_without_cgroups(root: Path) -> None:
    """Idle time, and that stolen by other virtual machines, is used by nobody here."""
    counters, found = read(root)
    assert (counters.cpu_source, counters.memory_source) == ("host", "host")
    assert (found.cgroup_cpu_seconds, found.num_throttled) == (6.0, None)
    assert (found.cgroup_memory_bytes, counters.memory_limit_bytes) == (GIB, 4 * GIB)


POD = {
    "cpu.stat": "usage_usec 2500000\nnr_periods 9\nnr_throttled 3\nthrottled_usec 250000\n",
    "cgroup.type": "domain\n",
    "memory.current": f"{2 * GIB}\n",
    "memory.max": f"{3 * GIB}\n",
    "memory.stat": f"anon 1\ninactive_file {GIB // 2}\nactive_file 7\n",
}


@pytest.mark.parametrize("path", ["", "pod/worker"])
def test_version_2_inside_a_container_and_below_the_root(root: Path, path: str) -> None:
    """A limit above the own cgroup holds too."""
    write(root / "proc", {"self/cgroup": f"0::/{path}\n"})
    write(root / "cgroup" / path, POD)
    counters, found = read(root)
    assert (counters.cpu_source, counters.memory_source) == ("cgroup v2", "cgroup v2")
    assert (found.cgroup_cpu_seconds, found.num_throttled) == (2.5, 3)
    assert found.throttled_seconds == 0.25
    assert found.cgroup_memory_bytes == 3 * GIB // 2, "without the cache that is given up first"
    assert counters.memory_limit_bytes == 3 * GIB
    write(root / "cgroup" / path, {"memory.max": "max\n"})
    assert read(root)[0].memory_limit_bytes == 4 * GIB
    if path:
        write(root / "cgroup" / "pod", {"memory.max": f"{GIB}\n"})
        assert read(root)[0].memory_limit_bytes == GIB


def test_the_root_of_version_2_is_the_host(root: Path) -> None:
    write(root / "cgroup", {"cpu.stat": "usage_usec 2500000\n", "memory.stat": "anon 1\n"})
    counters, found = read(root)
    assert (counters.cpu_source, counters.memory_source) == ("host", "host")
    assert found.cgroup_cpu_seconds == 6.0


def test_version_1(root: Path) -> None:
    """Each controller has a tree of its own; the limit is a huge number where there is none."""
    write(
        root,
        {
            "proc/self/cgroup": "4:memory:/job/a\n2:cpu,cpuacct:/\n0::/\n",
            "cgroup/cpuacct/cpuacct.usage": "2500000000\n",
            "cgroup/cpu/cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 500000000\n",
            "cgroup/memory/job/a/memory.usage_in_bytes": f"{2 * GIB}\n",
            "cgroup/memory/job/a/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/job/a/memory.stat": f"cache 1\ntotal_inactive_file {GIB}\n",
            "cgroup/memory/job/memory.limit_in_bytes": f"{3 * GIB}\n",
        },
    )
    counters, found = read(root)
    assert (counters.cpu_source, counters.memory_source) == ("cgroup v1", "cgroup v1")
    assert (found.cgroup_cpu_seconds, found.num_throttled) == (2.5, 2)
    assert found.throttled_seconds == 0.5
    assert (found.cgroup_memory_bytes, counters.memory_limit_bytes) == (GIB, 3 * GIB)


def test_no_byte_of_the_network_counts_twice(root: Path) -> None:
    """A bridge passes on what a device sent; inside a container no interface is a device."""
    assert read(root)[1].network_sent_bytes == 6200
    (root / "net" / "eth0" / "device").mkdir(parents=True)
    (root / "net" / "br0").mkdir()
    found = read(root)[1]
    assert (found.network_received_bytes, found.network_sent_bytes) == (1000, 200)
    assert found.loopback_bytes == 700


def test_ranks_that_share_a_cgroup_or_a_network_have_equal_marks(root: Path) -> None:
    write(root / "proc", {"self/cgroup": "0::/a\n", "self/ns/net": ""})
    for pod in "ab":
        write(root / "cgroup" / pod, POD)
    first, same = read(root)[0], read(root)[0]
    write(root / "proc", {"self/cgroup": "0::/b\n"})
    other = read(root)[0]
    assert first.cgroup_mark == same.cgroup_mark != other.cgroup_mark
    assert first.network_mark == other.network_mark is not None
    assert len(first.cgroup_mark or "") == 8


@pytest.mark.parametrize("text", ["", "77 (x) R 1 2\n", "\0"])
def test_what_a_system_does_not_tell_is_none(tmp_path: Path, text: str) -> None:
    files = ("stat", "io", "cgroup", "net/dev")
    write(tmp_path / "proc" / "self", dict.fromkeys(files, text) if text else {})
    counters, found = read(tmp_path)
    assert found == Reading(at_seconds=1.5)
    assert counters.memory_limit_bytes is None
