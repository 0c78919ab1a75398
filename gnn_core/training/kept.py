"""What a process keeps of a run while its world changes: memory in place of a checkpoint file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gnn_core.report.resources.sampler import ResourceSampler
from gnn_core.report.schema import EpochRecord, World
from gnn_core.report.strict_json import build
from gnn_core.training.fellows import Fellows


@dataclass
class History:
    """What a run has to say for itself so far; the same on every rank, but for seconds."""

    run_id: str
    started_at: str
    epochs: list[EpochRecord] = field(default_factory=list)
    step_losses: list[float | None] = field(default_factory=list)
    worlds: list[World] = field(default_factory=list)  # of an elastic run
    evaluation_seconds: float = 0.0
    epoch_seconds: float = 0.0  # of the present epoch, in the worlds before this one
    resumed_from: dict[str, Any] | None = None


@dataclass
class Kept:
    """What one process takes along from one world to the next."""

    sampler: ResourceSampler
    history: History | None = None  # None before the run has begun
    state: bytes = b""  # as `Checkpoints.pack` made it
    place: tuple[int, int] | None = None  # epoch and step of `state`; None before there is one
    parted_at: float | None = None  # `time.monotonic()` when the world changed


def shared(kept: Kept, fellows: Fellows) -> tuple[bytes, History] | None:
    """The state and history of the rank that got furthest, on every rank; None if none kept any.

    A collective may have come to its end on some ranks only: the others are then a step behind.
    """
    places = fellows.gather(kept.place)
    known = [rank for rank, place in enumerate(places) if place is not None]
    if not known:
        return None
    root = max(known, key=lambda rank: (places[rank], -rank))
    told = json.dumps(asdict(kept.history)).encode() if kept.history else b""
    data = fellows.broadcast_bytes(kept.state, root)
    return data, build(History, json.loads(fellows.broadcast_bytes(told, root)))
