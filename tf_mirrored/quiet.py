"""TensorFlow without its greeting: four lines on stderr that no setting of its own turns off."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_GREETINGS = (b"absl::InitializeLog()", b"oneDNN custom operations are on")


@contextlib.contextmanager
def without_greeting() -> Iterator[None]:
    """Around the import of TensorFlow: what else is said on stderr meanwhile is said after it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # nor which instructions it was built for
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            for line in held:
                if not any(greeting in line for greeting in _GREETINGS):
                    os.write(2, line)
