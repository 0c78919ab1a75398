"""The order in which asynchronous pushes were applied, so that a run can be made once more.

For each server and epoch the journal has the updates in their order, and for each update the
versions of all shards that its gradient was computed with. Sampling and dropout are functions of
seed and step: with the same versions, the same gradient follows to the last bit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from gnn_core.files import read_regular
from gnn_core.measure.strict_json import build
from gnn_core.param_server.shards import Shards
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole

FORMAT = 1
_MOST_BYTES = 1 << 30


class Key(NamedTuple):
    """A gradient that was computed: of a slice of a step, by the worker of some attempt."""

    step: int
    slice: int
    attempt: int


@dataclass(frozen=True)
class Update:
    """A gradient that was applied, and the version of each shard that it was computed with."""

    key: Key
    pulled: tuple[int, ...]


@dataclass
class Journal:
    """All updates of a run, from its first epoch on.

    Attributes:
        digest: of the settings that the loss depends on.
        fingerprint: of the graph and of its clusters.
        version: of the program.
        slices: into which the global batch of a step is cut.
        chunks: that each server holds.
        epochs: of each epoch and server the updates in order, each as step, slice, attempt and the
            version of each shard.
    """

    digest: str
    fingerprint: str
    version: str
    slices: int
    chunks: list[list[int]]
    epochs: list[list[list[list[int]]]] = field(default_factory=list)
    format: int = FORMAT

    def add(self, servers: list[list[Update]]) -> None:
        """Add the updates of an epoch, in the order of the servers."""
        self.epochs.append([[[*one.key, *one.pulled] for one in some] for some in servers])

    def updates(self, epoch: int) -> list[list[Update]]:
        """The updates of an epoch, in the order of the servers."""
        return [
            [Update(Key(*one[:3]), tuple(one[3:])) for one in some] for some in self.epochs[epoch]
        ]

    def write(self, file: Path) -> None:
        """Replace the file. Raises UsageError."""
        write_whole(file, json.dumps(asdict(self), separators=(",", ":")) + "\n")


def read_journal(file: Path) -> Journal:
    """The journal in a file. Raises UsageError for any other file."""
    data = read_regular(file, _MOST_BYTES)
    try:
        journal = build(Journal, json.loads(data))
        problem = _problem(journal)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem is not None:
        raise UsageError(
            f"--replay {file}: expected the journal of a run (--journal), got another file "
            f"({problem}): name the file that --journal was given"
        )
    return journal


def _problem(journal: Journal) -> str | None:
    if journal.format != FORMAT:
        return f"format {journal.format}, this reads {FORMAT}"
    Shards(1, journal.chunks)
    servers = len(journal.chunks)
    if journal.slices < 1:
        return f"{journal.slices} slices"
    for epoch in journal.epochs:
        if len(epoch) != servers:
            return f"updates of {len(epoch)} servers, where there are {servers}"
        for updates in epoch:
            for one in updates:
                if len(one) != 3 + servers or min(one) < 0 or one[1] >= journal.slices:
                    return f"the update {one}"
    return None
