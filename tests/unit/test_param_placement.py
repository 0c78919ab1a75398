"""Which server holds which chunks of the parameters: even loads, and little moves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gnn_core.param_server.placement import CHUNKS, chunk_bounds, place
from gnn_core.param_server.shards import Shards, vector_of


def servers(count: int) -> dict[str, float]:
    return {f"server {number}": 1.0 for number in range(count)}


def owner_of(placed: dict[str, list[int]]) -> dict[int, str]:
    return {chunk: name for name, chunks in placed.items() for chunk in chunks}


@pytest.mark.parametrize("count", [*range(1, 17), 256])
def test_each_chunk_is_on_one_server_and_loads_are_even(count: int) -> None:
    placed = place(servers(count))
    assert sorted(owner_of(placed)) == list(range(CHUNKS))
    assert sum(map(len, placed.values())) == CHUNKS
    mean = CHUNKS / count
    assert max(map(len, placed.values())) <= max(1.15 * mean, 1)


@pytest.mark.parametrize("count", range(1, 9))
def test_a_server_that_joins_takes_its_share_and_little_else_moves(count: int) -> None:
    before, after = owner_of(place(servers(count))), owner_of(place(servers(count + 1)))
    moved = [chunk for chunk in before if before[chunk] != after[chunk]]
    taken = [chunk for chunk in moved if after[chunk] == f"server {count}"]
    ideal = CHUNKS / (count + 1)
    assert 0.75 * ideal <= len(taken) <= 1.15 * ideal
    assert len(moved) <= 1.25 * ideal


def test_a_server_of_twice_the_weight_holds_twice_as_much() -> None:
    placed = place({"small": 1.0, "large": 2.0, "other": 1.0})
    assert 0.85 * 128 <= len(placed["large"]) <= 1.15 * 128
    assert len(placed["small"]) <= 1.15 * 64


def test_the_order_of_servers_does_not_matter() -> None:
    named = servers(5)
    assert place(named) == place(dict(reversed(named.items())))


@pytest.mark.parametrize("weights", [{}, servers(257), {"a": 0.0}, {"a": -1.0}, {"a": np.inf}])
def test_what_cannot_be_placed_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 256 servers of positive weight"):
        place(weights)


@pytest.mark.parametrize("size", [1, 100, 256, 1000, 206_895])
@pytest.mark.parametrize("count", [1, 3])
def test_a_vector_is_cut_and_put_together(size: int, count: int) -> None:
    shards = Shards(size, list(place(servers(count)).values()))
    flat = np.random.default_rng(size).normal(size=size)
    cut = shards.cut(flat)
    assert [len(one) for one in cut] == shards.sizes
    assert sum(shards.sizes) == size
    joined = np.zeros(size)
    shards.join(cut, joined)
    assert np.array_equal(joined, flat)
    assert len(chunk_bounds(size)) == CHUNKS + 1


def test_shards_hold_each_chunk_once() -> None:
    with pytest.raises(ValueError, match="each of 256 chunks"):
        Shards(1000, [list(range(255))])


def test_bytes_of_another_length_or_kind_are_no_vector() -> None:
    values = np.arange(3.0)
    assert np.array_equal(vector_of(values.tobytes(), "float64", 3), values)
    with pytest.raises(ValueError, match="expected 4 values of float64, got 24 bytes"):
        vector_of(values.tobytes(), "float64", 4)
    with pytest.raises(ValueError, match="expected one of float32, float64, got 'object'"):
        vector_of(values.tobytes(), "object", 3)


def test_the_generated_messages_are_those_of_the_proto_file() -> None:
    pytest.importorskip("grpc")
    from gnn_core.param_server import control_pb2

    file = Path(control_pb2.__file__).with_name("control.proto")
    text = re.sub("//.*", "", file.read_text("utf-8"))
    written = {
        name: dict(re.findall(r"(\w+) = (\d+);", body))
        for name, body in re.findall(r"message (\w+) \{(.*?)\}", text, flags=re.DOTALL)
    }
    generated = {
        message.name: {field.name: str(field.number) for field in message.fields}
        for message in control_pb2.DESCRIPTOR.message_types_by_name.values()
    }
    assert generated == written
    calls = re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", text)
    known = [
        (method.name, method.input_type.name, method.output_type.name)
        for service in control_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert calls == known
