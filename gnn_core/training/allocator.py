"""Keep freed memory in the process, so that a training step does not fetch fresh pages.

glibc hands large blocks back to the kernel as soon as they are freed, and the next step's
temporaries arrive as zeroed pages, one fault each. For the arrays of a sampled batch that is half
of a step. Raising a few thresholds from inside gives every user what environment variables would.
Called by `gnn_core.training.job` and the step benchmarks, before a framework starts threads: a
thread keeps the heap that it has begun with.
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8


def keep_freed_memory() -> bool:
    """Set it; whether the allocator supports that (only glibc does)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
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
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
