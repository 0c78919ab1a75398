"""What a run is planned to take: where features lie, what is cached, limits that are too low."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.features import SparseFeatures
from gnn_core.data.graph import Graph, write_graph
from gnn_core.number_text import size
from gnn_core.training import describe, memory_plan
from gnn_core.training.memory_plan import MemoryPlan, plan_memory
from gnn_core.training.world import World
from gnn_core.usage import UsageError, read_size

MIB = 1 << 20
ROWS, WIDTH = 4000, 4096  # 62 MiB of float32


@pytest.fixture(autouse=True)
def small_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the features takes little, and the machine has 1 GiB."""
    monkeypatch.setattr(memory_plan, "_PROGRAM_BYTES", 4 * MIB)
    monkeypatch.setattr(memory_plan, "CHUNK_NODES", 16)
    monkeypatch.setattr(memory_plan, "CHUNK_EDGES", 64)
    monkeypatch.setattr(memory_plan.machine, "own_memory_bytes", lambda: 0)
    monkeypatch.setattr(memory_plan.machine, "memory_bytes", lambda: 1024 * MIB)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A ring of nodes with long rows of features, memory-mapped."""
    nodes = np.arange(ROWS)
    indices = np.sort(np.stack([(nodes - 1) % ROWS, (nodes + 1) % ROWS], axis=1), axis=1)
    graph = Graph.from_arrays(
        "wide",
        np.arange(ROWS + 1) * 2,
        indices.reshape(-1),
        np.random.default_rng(0).random((ROWS, WIDTH), dtype=np.float32),
        nodes % 3,
        1 + nodes % 3,
    )
    return write_graph(graph, tmp_path_factory.mktemp("graphs") / "wide")


def made_config(**changes: Any) -> RunConfig:
    few = {"dataset": "wide", "hidden": 4, "layers": 2, "fanouts": (2, 2), "global_batch_size": 8}
    return RunConfig(**{**few, "prefetch": 0, **changes})


def planned(graph: Graph, ranks: int = 1, **changes: Any) -> MemoryPlan:
    world = World()
    world.world_size, world.rank_hosts = ranks, world.rank_hosts * ranks
    return plan_memory(made_config(**changes), graph, world)


def test_features_that_fit_stay_mapped(wide: Graph) -> None:
    plan = planned(wide)
    assert plan.store == "memory"
    config = made_config()
    assert plan.applied(config, wide) == config


def test_features_that_do_not_fit_stay_on_disk(wide: Graph) -> None:
    plan = planned(wide, memory_limit="40MiB")
    assert plan.store == "disk"
    assert sum(plan.needs.values()) <= 40 * MIB
    assert 5 * MIB < plan.cache_bytes < 40 * MIB
    config = plan.applied(made_config(memory_limit="40MiB"), wide)
    assert config.feature_store == "disk"
    assert 0 <= plan.cache_bytes - read_size(config.disk_cache or "") < MIB


def test_rows_that_steps_read_in_the_cache_need_no_other_place(wide: Graph) -> None:
    world = World()
    flags = {"prefetch": 2, "eval": "sampled", "memory_limit": "60MiB"}
    copied, lent = (
        plan_memory(made_config(**flags), wide, world) for world.reads_in_place in (False, True)
    )
    row_bytes = 4 * WIDTH
    assert lent.cache_bytes - copied.cache_bytes > 3 * 8 * row_bytes, "three batches"
    for plan in (copied, lent):
        assert sum(plan.needs.values()) <= 60 * MIB
    flags["disk_cache"] = "1MiB"
    small = plan_memory(made_config(**flags), wide, world)
    assert small.needs["rows of batches and of evaluation"] > 0, "there is no room in the cache"


def test_the_machine_is_the_limit_where_none_is_given(
    wide: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(wide, ranks=8, feature_store="disk").store == "disk"
    monkeypatch.setattr(memory_plan.machine, "memory_bytes", lambda: 80 * MIB)
    assert planned(wide).store == "memory"
    one, two = (planned(wide, ranks=ranks, feature_store="disk") for ranks in (1, 2))
    for ranks, plan in ((1, one), (2, two)):
        assert sum(plan.needs.values()) <= 80 * MIB // ranks
    assert two.cache_bytes < one.cache_bytes
    monkeypatch.setattr(memory_plan.machine, "memory_bytes", lambda: None)
    assert planned(wide).store == "memory"
    assert planned(wide, feature_store="disk").cache_bytes > ROWS * WIDTH * 4


def test_no_cache_is_larger_than_the_features(wide: Graph) -> None:
    plan = planned(wide, feature_store="disk")
    assert ROWS * WIDTH * 4 < plan.cache_bytes < 1.01 * ROWS * WIDTH * 4


def test_a_cache_that_is_given_is_taken(wide: Graph) -> None:
    plan = planned(wide, feature_store="disk", disk_cache="3MiB")
    assert plan.cache_bytes == 3 * MIB
    config = plan.applied(made_config(feature_store="disk", disk_cache="3MiB"), wide)
    assert config.disk_cache == "3MiB"
    with pytest.raises(UsageError, match=r"--memory-limit 40MiB: .* cache of features 39 MiB"):
        planned(wide, memory_limit="40MiB", disk_cache="39MiB")


@pytest.mark.parametrize("store", ["auto", "disk"])
def test_a_limit_below_what_is_possible_says_how_much_is_needed(wide: Graph, store: str) -> None:
    with pytest.raises(UsageError) as found:
        planned(wide, feature_store=store, memory_limit="9MiB")
    message = str(found.value)
    assert message.startswith("--memory-limit 9MiB: expected at least ")
    assert "\n" not in message and "raise it" in message
    needed = float(message.split("at least ")[1].split(" MiB")[0])
    assert planned(wide, feature_store=store, memory_limit=f"{1.1 * needed:.1f}MiB").store == "disk"


def test_a_limit_that_mapped_features_exceed_offers_the_disk(wide: Graph) -> None:
    with pytest.raises(UsageError, match=r"at least .* or --feature-store disk$"):
        planned(wide, feature_store="memory", memory_limit="60MiB")
    assert planned(wide, feature_store="memory", memory_limit="90MiB").store == "memory"


def test_sparse_features_stay_mapped_and_a_note_says_so(wide: Graph) -> None:
    sparse = dataclasses.replace(wide, features=SparseFeatures.of(np.eye(ROWS, dtype=np.float32)))
    plan = planned(sparse, feature_store="disk")
    assert plan.store == "memory"
    assert plan.note is not None and "are sparse" in plan.note
    config = plan.applied(made_config(feature_store="disk"), sparse)
    assert config.feature_store == "memory"


def test_a_dry_run_shows_the_plan(wide: Graph) -> None:
    plan = planned(wide, memory_limit="40MiB")
    config = plan.applied(made_config(memory_limit="40MiB"), wide)
    text = describe.dry_run(config, wide, World(), plan)
    assert "memory, features on disk" in text
    assert f"cache of features{size(plan.cache_bytes):>33}" in text
    assert f"per process{size(sum(plan.needs.values())):>39}" in text
    assert "memory, features" not in describe.dry_run(made_config(), wide, World(), planned(wide))


def test_neighbours_that_do_not_fit_are_read_at_random(
    wide: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[Any] = []
    monkeypatch.setattr(memory_plan, "expect_random_reads", advised.append)
    assert planned(wide, feature_store="disk").adjacency_fits
    planned(wide, feature_store="disk").applied(made_config(), wide)
    assert not advised
    plan = dataclasses.replace(planned(wide, feature_store="disk"), adjacency_fits=False)
    plan.applied(made_config(), wide)
    assert advised == [wide.indices]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("12", 12),
        ("12B", 12),
        ("1KiB", 1024),
        ("8GiB", 8 << 30),
        ("8gib", 8 << 30),
        ("8Gi", 8 << 30),
        ("1.5 MiB", 3 << 19),
        ("500MB", 500_000_000),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "8 G B", "8G", "1e9", "nan", "9" * 200, "2e3MiB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 8GiB"):
        read_size(text)


def test_a_size_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a size below"):
        read_size("99999999TiB")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_limit": "much"}, "--memory-limit: expected a size such as 8GiB or 500MB"),
        ({"disk_cache": "-1"}, "--disk-cache: expected a size"),
        (
            {"disk_cache": "1GiB", "feature_store": "memory"},
            "--disk-cache: --feature-store memory has no use for it",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made_config(**changes)
