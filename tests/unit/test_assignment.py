"""Which `Assign` a run takes, what it says of it before, and whether ranks agree about it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.bench import assigning as bench
from gnn_core.config import RunConfig, UsageError
from gnn_core.data import datasets
from gnn_core.data.clusters import find_clusters
from gnn_core.data.graph import Graph
from gnn_core.data.loader import equal_slices
from gnn_core.training import describe, tasks
from gnn_core.training.preparation import open_graph, require_same_job
from gnn_core.training.world import World
from tests.unit.made_ranks import on_ranks

NAME = "synthetic:papers=600,num_features=8"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def graph(cache: Path) -> Graph:
    return datasets.load(NAME, cache_dir=cache)


def config_of(cache: Path, **changes: Any) -> RunConfig:
    settings = {"dataset": NAME, "cache_dir": str(cache), "global_batch_size": 100, **changes}
    return RunConfig(**settings)


@pytest.mark.parametrize(
    ("changes", "ranks", "expected"),
    [
        ({"assign": "locality"}, 2, True),
        ({"assign": "locality"}, 1, False),
        ({"assign": "slices", "epochs": 1000}, 2, False),
        ({"epochs": 1000}, 2, True),
        ({"epochs": 1000}, 1, False),
        ({"epochs": 1}, 2, False),
        ({"epochs": 1, "fanouts": (1, 1)}, 4, False),
    ],
)
def test_clusters_are_for_those_whom_they_help(
    graph: Graph, cache: Path, changes: dict[str, Any], ranks: int, expected: bool
) -> None:
    config = config_of(cache, **changes)
    assert tasks.assigns_by_locality(config, graph, ranks) == expected
    opened = tasks.open_clusters(config, graph, ranks, lambda line: None)
    assert (opened.clusters is not None) == expected
    assert tasks.assigned_by(opened) == ("locality" if expected else "slices")
    assert (tasks.assignment(config, opened) is equal_slices) != expected
    share = -(-100 // ranks)
    assert tasks.most_targets(config, graph, ranks) == share + expected * -(-share // 20)


def test_auto_counts_no_edge_twice_that_a_step_samples_once(graph: Graph, cache: Path) -> None:
    """Huge fan-outs in one step of an epoch: each hop samples every edge once at most."""
    config = config_of(cache, fanouts=(-1, -1, -1), global_batch_size=10**6, epochs=6)
    assert not tasks.assigns_by_locality(config, graph, 2)  # 6 epochs of 3 hops, and not 20
    assert tasks.assigns_by_locality(replace(config, epochs=7), graph, 2)


def test_all_targets_are_drawn_by_ranks_of_near_ones(graph: Graph, cache: Path) -> None:
    config = config_of(cache, assign="locality")
    opened = tasks.open_clusters(config, graph, 3, lambda line: None)
    loaders = [tasks.train_loader(config, opened, rank, 3, prefetch=0) for rank in range(3)]
    shares = [loader.batch(0, 0) for loader in loaders]
    whole = tasks.train_loader(config, graph, 0, 1, prefetch=0).batch(0, 0)
    found = np.concatenate([share.targets[: share.num_real] for share in shares])
    assert sorted(found) == sorted(whole.targets)
    assert opened.clusters is not None
    seen = [opened.clusters[share.targets[: share.num_real]] for share in shares]
    assert max(seen[0]) <= min(seen[1]) and max(seen[1]) <= min(seen[2])


def test_a_dry_run_tells_who_computes_what_and_finds_no_clusters(
    graph: Graph, cache: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, assign="locality", dry_run=True)
    (text, _) = on_ranks(["a", "a"], lambda world: describe.dry_run(config, graph, world))
    assert "ranks 2, targets assigned by locality: about 53 of a step to each, at most" in text
    plain = replace(config, assign="slices")
    (other, _) = on_ranks(["a", "a"], lambda world: describe.dry_run(plain, graph, world))
    assert "ranks 2, targets assigned by slices: about 50 of a step to each, at most" in other
    held, less = (describe._rank_bytes(one, graph, 2) for one in (config, plain))
    assert held["batches drawn ahead"] > less["batches drawn ahead"]
    assert not (tmp_path / "clusters").exists()


def test_ranks_open_the_same_clusters(cache: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, assign="locality", records=str(tmp_path / "records"))

    def clusters(world: World) -> Any:
        _, opened = open_graph(config, world, lambda config, world: None)
        return opened.clusters

    first, second = on_ranks(["a", "a"], clusters)
    assert first is not None
    np.testing.assert_array_equal(first, second)


def test_ranks_with_other_clusters_do_not_train_together(graph: Graph, cache: Path) -> None:
    """They would take some targets twice, and others not at all."""
    found = find_clusters(graph)
    config = config_of(cache, assign="locality")

    def check(world: World) -> str:
        own = found.copy()
        own[0] ^= world.rank
        with pytest.raises(UsageError) as problem:
            require_same_job(config, replace(graph, clusters=own), world)
        return str(problem.value)

    (said, other) = on_ranks(["a", "b"], check)
    assert said == other
    assert re.search(r"expected the same graph on every rank, .* clusters '\w+' and '\w+'", said)


def test_the_bench_counts_what_ranks_do(
    graph: Graph, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: `make install`")
    file = tmp_path / "made" / "assign.json"
    words = ["--dataset", NAME, "--cache-dir", str(cache), "--ranks", "2,3", "--steps", "2"]
    assert bench.main([*words, "--json", str(file)]) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    rows = {(row[0], row[1]): row[2:] for row in record["rows"]}
    assert list(rows) == [
        (1, "-"),
        *((ranks, name) for ranks in (2, 3) for name in ("slices", "locality")),
    ]
    config = RunConfig(dataset=NAME, cache_dir=str(cache))
    loaders = [tasks.train_loader(config, graph, rank, 2, prefetch=0) for rank in range(2)]
    edges = [[loader.batch(0, step).num_edges for loader in loaders] for step in range(1)]
    assert loaders[0].num_steps == 1
    assert rows[2, "slices"][4] == sum(edges[0]) and rows[2, "slices"][6] == max(edges[0])
    assert rows[2, "slices"][1::2] == [1, 1, 1, 1]
    assert rows[2, "locality"][1] < 1 and rows[2, "locality"][5] < 1
    assert "locality" in capsys.readouterr().out
    assert bench.main(["--dataset", NAME, "--cache-dir", str(cache), "--ranks", "2,0"]) == 2
    assert "--ranks: expected at least 1, got 0" in capsys.readouterr().err
