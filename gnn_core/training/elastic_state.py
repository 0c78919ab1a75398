"""What a process keeps of a run while its world changes: memory in place of a checkpoint file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.measure.run_record import EpochRecord, WorldRecord
from gnn_core.measure.strict_json import build
from gnn_core.training.world import World


@dataclass
class RunHistory:
    """What a run has to say for itself so far; the same on every rank, but for seconds."""

    run_id: str
    started_at: str
    epochs: list[EpochRecord] = field(default_factory=list)
    step_losses: list[float | None] = field(default_factory=list)
    worlds: list[WorldRecord] = field(default_factory=list)  # of an elastic run
    evaluation_seconds: float = 0.0
    epoch_seconds: float = 0.0  # of the present epoch, in the worlds before this one
    resumed_from: dict[str, Any] | None = None


@dataclass
class ElasticState:
    """What one process takes along from one world to the next."""

    sampler: ResourceSampler
    history: RunHistory | None = None  # None before the run has begun
    state: bytes = b""  # as `Checkpoints.pack` made it
    place: tuple[int, int] | None = None  # epoch and step of `state`; None before there is one
    parted_at: float | None = None  # `time.monotonic()` when the world changed


def shared(mine: ElasticState, world: World) -> tuple[bytes, RunHistory] | None:
    """The state and history of the rank that got furthest, on every rank; None if none kept any.

    A collective may have come to its end on some ranks only: the others are then a step behind.
    """
    places = world.gather(mine.place)
    known = [rank for rank, place in enumerate(places) if place is not None]
    if not known:
        return None
    root = max(known, key=lambda rank: (places[rank], -rank))
    history = json.dumps(asdict(mine.history)).encode() if mine.history else b""
    data = world.broadcast_bytes(mine.state, root)
    return data, build(RunHistory, json.loads(world.broadcast_bytes(history, root)))
