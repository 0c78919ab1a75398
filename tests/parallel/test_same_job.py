"""Ranks that were started with different settings or data say so instead of training."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig
from gnn_core.data.graph import Graph, write_graph
from gnn_core.training.preparation import open_graph, require_same_job
from gnn_core.usage import UsageError
from horovod_gnn.learner import set_up_torch
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import SETTINGS

pytestmark = pytest.mark.needs_torch


def other_graph(graph: Graph) -> Graph:
    """The same graph but for one number."""
    features = np.array(graph.features)
    features[0, 0] += 1
    return Graph.from_arrays(
        "tiny", graph.indptr, graph.indices, features, graph.labels, graph.splits
    )


def complaint(config: RunConfig, graph: Graph, parallel: SingleProcess) -> str:
    """What `require_same_job` says, the same on every rank; empty when it is content."""
    said = ""
    try:
        require_same_job(config, graph, parallel)
    except UsageError as error:
        said = str(error)
    assert parallel.gather(said) == [said] * parallel.world_size
    return said


def test_the_same_job_everywhere_is_accepted(tiny_graph: Graph, parallel: SingleProcess) -> None:
    assert complaint(RunConfig(**SETTINGS), tiny_graph, parallel) == ""


def test_a_rank_with_another_setting_is_found(tiny_graph: Graph, parallel: SingleProcess) -> None:
    last = parallel.world_size - 1
    differs = parallel.rank == last and last > 0
    config = RunConfig(**{**SETTINGS, "lr": 0.5 if differs else SETTINGS["lr"]})
    said = complaint(config, tiny_graph, parallel)
    if last > 0:
        assert f"rank {last} " in said
        assert "lr 0.02 and 0.5" in said
        assert "\n" not in said


def test_a_rank_with_other_data_is_found(tiny_graph: Graph, parallel: SingleProcess) -> None:
    last = parallel.world_size - 1
    differs = parallel.rank == last and last > 0
    graph = other_graph(tiny_graph) if differs else tiny_graph
    said = complaint(RunConfig(**SETTINGS), graph, parallel)
    if last > 0:
        assert f"rank {last} " in said
        assert "fingerprint" in said


def test_where_the_data_lies_may_differ(tiny_graph: Graph, parallel: SingleProcess) -> None:
    places = {"data_root": f"/data/{parallel.rank}", "cache_dir": f"/cache/{parallel.rank}"}
    assert complaint(RunConfig(**SETTINGS, **places), tiny_graph, parallel) == ""


def test_data_missing_on_one_rank_stops_all_of_them(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path
) -> None:
    folder = shared_path / "graph"
    if parallel.rank == 0:
        write_graph(tiny_graph, folder)
    parallel.barrier()
    last = parallel.world_size - 1
    name = shared_path / "nothing" if parallel.rank == last else folder
    settings = {**SETTINGS, "dataset": str(name), "records": str(shared_path / "records")}
    with pytest.raises(UsageError, match="expected a graph folder, got nothing") as caught:
        open_graph(RunConfig(**settings), parallel, set_up_torch)
    assert (f"rank {last} " in str(caught.value)) == (last > 0)


def test_the_data_is_opened_by_all_ranks(
    tiny_graph: Graph, parallel: SingleProcess, shared_path: Path
) -> None:
    folder = shared_path / "graph"
    if parallel.rank == 0:
        write_graph(tiny_graph, folder)
    parallel.barrier()
    settings = {**SETTINGS, "dataset": str(folder), "records": str(shared_path / "records")}
    _, graph = open_graph(RunConfig(**settings), parallel, set_up_torch)
    assert parallel.gather(graph.fingerprint) == [tiny_graph.fingerprint] * parallel.world_size
