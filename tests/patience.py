"""How long a test waits before it calls something hung: generous, since only failures wait so long.

RINGSAGE_TEST_SLOWNESS tells how many times slower than a quiet machine this one may be (default 3);
every time-out of the tests is multiplied by it.
"""

from __future__ import annotations

import os

SLOWNESS = max(1.0, float(os.environ.get("RINGSAGE_TEST_SLOWNESS", "3")))


def patient(seconds: float) -> float:
    """What suffices on a quiet machine, for this one."""
    return seconds * SLOWNESS
