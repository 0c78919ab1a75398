"""The disk benchmarks: what they measure at a small size, and the graph that they make."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.bench import disk, disk_training
from gnn_core.bench.disk_training import Run, _record, _require_same_losses, _wide_graph
from gnn_core.bench.frame import Variant, table_text
from gnn_core.bench.memory_group import Used
from gnn_core.data.graph import Graph, write_graph
from gnn_core.measure import machine
from gnn_core.measure.feature_reads import FeatureReads
from gnn_core.sweep.launches import ROOT
from gnn_core.usage import UsageError


def test_all_ways_to_read_are_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--mib", "64", "--rows", "200", "--map-rows", "16", "--rounds", "1"]
    path = tmp_path / "disk.json"
    assert disk.main([*words, "--folder", str(tmp_path), "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    names = [row[0] for row in record["rows"]]
    assert names[:3] == ["memory map", "memory map, MADV_RANDOM", "disk store, 1 thread"]
    assert len(names) == 7 and names[-1] == "disk store, queued reads"
    assert all(rate > 0 and cpu > 0 for _, rate, _, _, cpu in record["rows"])
    assert record["rows"][0][3] == 1
    assert "disk store, 128 threads" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["disk.json"]


def options(folder: Path, **changes: Any) -> argparse.Namespace:
    given = {"memory_mib": 1, "times": 4, "targets": 20, "folder": folder, "dataset": "tiny"}
    more = {"fanouts": (10, 10), "global_batch_size": 512, "epochs": 2, "rounds": 1}
    more["peer_targets"] = None
    return argparse.Namespace(**{**given, **more, **changes})


def test_the_graph_has_wide_features_and_few_targets(tiny_graph: Graph, tmp_path: Path) -> None:
    graph = write_graph(tiny_graph, tmp_path / "tiny")
    with _wide_graph(graph, options(tmp_path)) as folder:
        wide = Graph.open(folder)
        assert wide.feature_bytes >= 4 << 20
        assert (wide.indices == graph.indices).all() and (wide.labels == graph.labels).all()
        train = wide.split("train")
        assert len(train) == 20 and set(train) <= set(graph.split("train"))
    assert not folder.exists()
    with pytest.raises(UsageError, match="--targets: expected at most 64, .* got 65; lower it"):
        with _wide_graph(graph, options(tmp_path, targets=65)):
            pass


def made_run(
    seconds: list[float], losses: list[float], reads: list[FeatureReads], targets: int = 20
) -> Run:
    used = Used(
        seconds=9.0,
        cpu_seconds=8.0,
        rss_bytes=7,
        anonymous_bytes=None,
        group_peak_bytes=(900 << 20) if reads else None,
        read_bytes=6,
        written_bytes=5,
        major_faults=4,
    )
    return Run(seconds, used, targets, tuple(losses), reads[0] if reads else None)


def test_the_record_compares_epochs() -> None:
    reads = FeatureReads(
        cache_bytes=1, rows=10, hits=4, reads=3, bytes_read=2 * 10**9, seconds_waited=1, direct=True
    )
    on_disk = made_run([8.0, 3.0, 5.0, 4.0], [1.0, 0.5], [reads])
    in_memory = made_run([4.0, 2.0, 2.0, 2.0], [1.0, 0.5], [])
    variants = [Variant("on disk", lambda: on_disk, [on_disk])]
    variants += [Variant("in memory", lambda: in_memory, [in_memory])]
    peer = made_run([9.0, 8.0], [], [], targets=5)
    _require_same_losses(variants)
    with_peer = [*variants, Variant("pyg", lambda: peer, [peer])]
    record = _record(options(Path()), with_peer, machine.hardware(), (120, 9000))
    assert record["rows"] == [
        ["on disk", 8.0, 2.0, 4.0, 2.0, 5.0, 8.0, 900, 40.0, 3, 6e-9],
        ["in memory", 4.0, 1.0, 2.0, 1.0, 10.0, 8.0, None, None, None, 6e-9],
        ["pyg", 36.0, 9.0, 32.0, 16.0, 0.625, 8.0, None, None, None, 6e-9],
    ]
    assert record["notes"][1].startswith("pyg: measured on 5 targets an epoch; its seconds are")
    assert "group's peak MiB" in table_text(record)[0]
    other = made_run([4.0, 2.0], [1.0, 0.6], [])
    with pytest.raises(RuntimeError, match="different loss curves"):
        _require_same_losses([*variants, Variant("other", lambda: other, [other])])


def test_a_library_that_is_not_there_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = '{"epochs": [{"seconds": 3.0}, {"seconds": 2.0}]}'
    said: list[str] = []

    def ran(command: list[str], path: Path, limit: int) -> Used:
        said.extend(command)
        if "graphbolt" in command:
            raise UsageError(f"graphbolt: No module named 'dgl'; see {path}")
        path.write_text(f"epoch 1\n{log}\n")
        return made_run([1.0], [], []).used

    monkeypatch.setattr(disk_training, "run_measured", ran)
    peers = [
        Variant(name, partial(disk_training._trained_by, name, "py", tmp_path, options(tmp_path)))
        for name in ("pyg", "graphbolt")
    ]
    notes = disk_training._try(peers, 1)
    assert notes == ["graphbolt did not run: graphbolt: No module named 'dgl'"]
    assert peers[0].results[0].epoch_seconds == [3.0, 2.0] and not peers[1].results
    assert said[said.index("--targets") + 1] == "20"
    assert said[:3] == ["py", str(ROOT / "baselines" / "disk_peer.py"), "pyg"]
    with pytest.raises(UsageError, match="expected pyg=PYTHON or graphbolt=PYTHON"):
        disk_training._parse(["--peer", "dgl=python"])


def test_flags_are_read() -> None:
    given = disk_training._parse(["--memory-mib", "2048", "--fanouts", "15,10,5"])
    assert (given.memory_mib, given.times, given.fanouts) == (2048, 4, (15, 10, 5))
    assert np.isfinite(given.targets)
