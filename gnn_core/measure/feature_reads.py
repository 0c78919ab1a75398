"""FeatureReads: what a rank read of features that are on disk; part of a `RunRecord`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FeatureReads:
    """Rows and bytes that one rank read in a run, evaluation included."""

    cache_bytes: int  # of memory, for rows and their index
    rows: int  # asked for
    hits: int  # of these, found in the cache
    reads: int  # of the disk
    bytes_read: int  # from the disk, with what lies between the rows
    seconds_waited: float | None  # by training steps, where they wait for rows themselves
    direct: bool  # with O_DIRECT, past the page cache
