"""Keep freed memory in the process, on huge pages, so that a step does not fetch fresh ones.

glibc hands large blocks back to the kernel as soon as they are freed, and the next step's
temporaries arrive as zeroed pages, one fault each. For the arrays of a sampled batch that is half
of a step. Raising a few thresholds from inside gives every user what environment variables would.
Most Linux distributions hand out huge pages (2 MiB) to those who ask; a step spends less time on
address translation then. Called by `gnn_core.training.run` and the step benchmarks, before a
framework starts threads: a thread keeps the heap that it has begun with.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_HUGE_PAGE_BYTES = 2 << 20
_HEAP_BYTES = 768 << 20  # address space, not memory; below the trim threshold, so that it stays


def keep_freed_memory() -> bool:
    """Tell the allocator; whether it listened (only glibc does)."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    try:
        mallopt = library.mallopt
    except AttributeError:  # another C library
        return False
    gibibyte = 1 << 30
    settings = (
        (_M_TRIM_THRESHOLD, gibibyte),
        (_M_TOP_PAD, 64 << 20),
        (_M_MMAP_THRESHOLD, gibibyte),
        (_M_MMAP_MAX, 0),
        # Other threads, such as those that run TensorFlow's steps, would have heaps of their own,
        # of 64 MiB at most and handed back as soon as they are empty.
        (_M_ARENA_MAX, 1),
    )
    listened = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings]
    if all(listened):
        _ask_for_huge_pages(library)
    return all(listened)


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Grow the heap and mark what was added, which nothing has touched; no more than a request."""
    library.malloc.restype = ctypes.c_void_p
    address = library.malloc(ctypes.c_size_t(_HEAP_BYTES))
    if address is None:  # the address space is limited
        return
    first = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    size = address + _HEAP_BYTES - first
    size -= size % _HUGE_PAGE_BYTES
    library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
    library.free(ctypes.c_void_p(address))
