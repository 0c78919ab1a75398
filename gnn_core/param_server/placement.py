"""Which server holds which parameters: rendezvous hashing of chunks, with bounded loads.

All parameters are one flat vector, cut into chunks of nearly equal size, since tensors are too few
and too unequal. A chunk goes to the server for which its hash is highest (Thaler and Ravishankar,
1998), as long as that has room (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2018). A
server that joins takes about its share and little else moves.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

CHUNKS = 256
MOST_ABOVE_MEAN = 0.15  # of chunks, that a server holds beyond its share


def chunk_bounds(num_parameters: int) -> list[int]:
    """Where the chunks begin, and the end of the last: CHUNKS + 1 positions of the flat vector."""
    return [chunk * num_parameters // CHUNKS for chunk in range(CHUNKS + 1)]


def place(weights: Mapping[str, float]) -> dict[str, list[int]]:
    """The chunks of each server, in ascending order.

    Args:
        weights: server -> its capacity beside the others', above 0; at most CHUNKS servers.

    Raises:
        ValueError: no server, more of them than chunks, or a weight that is not positive.
    """
    if not 1 <= len(weights) <= CHUNKS or not all(0 < one < math.inf for one in weights.values()):
        raise ValueError(f"expected 1 to {CHUNKS} servers of positive weight, got {dict(weights)}")
    total = sum(weights.values())
    shares = {name: CHUNKS * weight / total for name, weight in weights.items()}
    room = {
        name: max(math.floor((1 + MOST_ABOVE_MEAN) * share), math.ceil(share))
        for name, share in shares.items()
    }
    # Each chunk asks the servers in the order of its scores; a server keeps the highest scores.
    score = {
        (name, chunk): _score(name, chunk, weight)
        for name, weight in weights.items()
        for chunk in range(CHUNKS)
    }
    asked = {
        chunk: sorted(weights, key=lambda name, chunk=chunk: (score[name, chunk], name))  # type: ignore[misc]
        for chunk in range(CHUNKS)
    }
    placed: dict[str, list[int]] = {name: [] for name in weights}
    waiting = list(range(CHUNKS))
    while waiting:
        chunk = waiting.pop()
        name = asked[chunk].pop()
        placed[name].append(chunk)
        if len(placed[name]) > room[name]:
            least = min(placed[name], key=lambda one, name=name: (score[name, one], one))  # type: ignore[misc]
            placed[name].remove(least)
            waiting.append(least)
    return {name: sorted(chunks) for name, chunks in placed.items()}


def _score(name: str, chunk: int, weight: float) -> float:
    digest = hashlib.sha256(f"{name}/{chunk}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return -weight / math.log(uniform)
