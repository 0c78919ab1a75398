"""The command that makes a partition: its methods, what it refuses, and what interrupts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import datasets
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.partition import make, metis, multilevel
from gnn_core.data.partition.__main__ import main
from gnn_core.data.partition.folder import Partition, read_meta
from gnn_core.data.partition.make import METHODS, Request, make_partition, predict
from gnn_core.data.partition.order import degree_heat, places_of
from gnn_core.data.partition.quality import edge_quality, read_quality
from gnn_core.usage import UsageError
from tests.patience import patient
from tests.unit.made_graphs import from_rows, with_train
from tests.unit.made_partitions import graph_on_disk

ROOT = Path(__file__).resolve().parents[2]
PAPERS = "synthetic:papers=2000,num_topics=4,num_features=8,homophily=0.9"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    datasets.load(PAPERS, cache_dir=folder)
    return folder


def command(cache: Path, output: Path, *flags: str) -> list[str]:
    where = ["--cache-dir", str(cache), "--output", str(output)]
    return [PAPERS, "--parts", "3", *where, *flags]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("topology", [False, True])
def test_each_method_makes_a_partition(
    cache: Path, tmp_path: Path, method: str, topology: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if method in ("metis", "multilevel"):
        pytest.importorskip("pymetis")
    flags = ["--method", method, *(["--topology"] if topology else [])]
    assert main(command(cache, tmp_path / "p", *flags)) == 0
    graph = datasets.load(PAPERS, cache_dir=cache)
    partition = Partition.open(tmp_path / "p", graph)
    assert (partition.num_parts, partition.has_topology) == (3, topology)
    ids = np.arange(0, graph.num_nodes, 97)
    for part, row, node in zip(partition.owners(ids), partition.rows(ids), ids, strict=True):
        np.testing.assert_array_equal(partition.part_features(part)[row], graph.features[node])
    out, err = capsys.readouterr()
    assert "edges between parts" in out and out.endswith(f"{tmp_path / 'p'}\n")
    assert f"3 parts by {method} take about" in err
    files = sorted(tmp_path.rglob("*"))
    assert main(command(cache, tmp_path / "p", *flags)) == 0
    assert "this partition is there already" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == files


def test_what_is_written_depends_on_the_request_alone(cache: Path, tmp_path: Path) -> None:
    graph = datasets.load(PAPERS, cache_dir=cache)
    request = Request(3, topology=True)
    one, two = (make_partition(graph, request, tmp_path / name) for name in "ab")
    assert one.meta["checksums"] == two.meta["checksums"]
    assert one.meta["quality"] == two.meta["quality"]


def test_a_dry_run_tells_what_it_takes_and_writes_nothing(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--dry-run")) == 0
    err = capsys.readouterr().err
    assert "of memory" in err and f"of disk in {tmp_path / 'p'}" in err
    assert not list(tmp_path.iterdir())


def test_predicted_disk_is_what_is_written(cache: Path, tmp_path: Path) -> None:
    graph = datasets.load(PAPERS, cache_dir=cache)
    request = Request(3, "hash", topology=True)
    make_partition(graph, request, tmp_path / "p")
    size = sum(file.stat().st_size for file in (tmp_path / "p").rglob("*.npy"))
    assert size == pytest.approx(predict(graph, request).disk_bytes, rel=0.02)


def test_another_partition_is_kept_unless_told(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
    assert main(command(cache, tmp_path / "p", "--method", "hash", "--seed", "1")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("replace it with --overwrite or give another place with --output")
    assert read_meta(tmp_path / "p")["seed"] == 0
    again = command(cache, tmp_path / "p", "--method", "hash", "--seed", "1", "--overwrite")
    assert main(again) == 0 and read_meta(tmp_path / "p")["seed"] == 1


def test_something_else_is_never_replaced(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("mine")
    assert main(command(cache, tmp_path / "p", "--overwrite")) == 2
    assert "got something else there; give another one with --output" in capsys.readouterr().err
    assert (tmp_path / "p" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("room", ["memory", "disk"])
def test_what_does_not_fit_is_not_begun(
    cache: Path, tmp_path: Path, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "available_memory_bytes" if room == "memory" else "free_bytes"
    monkeypatch.setattr(f"gnn_core.data.room.{name}", lambda *_: 1000)
    graph = datasets.load(PAPERS, cache_dir=cache)
    with pytest.raises(UsageError, match=f"3 parts of .* by refine: expected .*of {room}"):
        make_partition(graph, Request(3), tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--parts", "0"], "expected a whole number from 1, got 0"),
        (["--parts", "5000"], "of at most 4096"),
        (["--method", "metiss"], "invalid choice: 'metiss'"),
        (["--balance", "rows"], "invalid choice: 'rows'"),
    ],
)
def test_wrong_flags_are_refused(
    cache: Path, tmp_path: Path, flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", *flags)) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("method", ["metis", "multilevel"])
def test_a_missing_pymetis_is_named(
    cache: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    graph = datasets.load(PAPERS, cache_dir=cache)
    with pytest.raises(UsageError, match=f"--method {method}: expected the package pymetis, got"):
        make_partition(graph, Request(3, method), tmp_path / "p")


def test_the_end_of_metis_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        UsageError, match="METIS on trained: expected 2 parts, got exit code 1; its"
    ):
        metis.metis_parts(with_train(50, 10), 2)


def test_the_memory_of_metis_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnn_core.data.room.available_memory_bytes", lambda: 1000)
    with pytest.raises(UsageError, match="METIS on trained: expected .* of memory, got 1.0 kB"):
        metis.metis_parts(with_train(50, 10), 2)


def test_metis_takes_loops_and_single_nodes() -> None:
    pytest.importorskip("pymetis")
    rows = [[0, 1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4, 5], []]
    parts = metis.metis_parts(from_rows(rows), 2)
    assert len(set(parts[:3])) == len(set(parts[3:6])) == 1 and parts[0] != parts[3]


def test_the_cut_is_near_that_of_metis(tmp_path: Path) -> None:
    pytest.importorskip("pymetis")
    graph = datasets.load("synthetic:num_features=8", cache_dir=tmp_path)
    for num_parts in (4, 8, 16):
        cuts = {}
        for method in ("refine", "metis"):
            parts = make.cut(graph, Request(num_parts, method))
            cuts[method] = edge_quality(graph, parts, num_parts)[0]["cut"]
        assert cuts["refine"] <= 1.10 * cuts["metis"]


def test_clusters_are_small_and_their_graph_weighs_what_the_graph_does(cache: Path) -> None:
    graph = datasets.load(PAPERS, cache_dir=cache)
    labels, num_clusters = multilevel.cluster(graph, 2)
    assert 100 < num_clusters == labels.max() + 1 < graph.num_nodes / 2
    assert np.bincount(labels).max() <= graph.num_nodes // 400
    coarse = multilevel.coarse_graph(graph, labels, num_clusters)
    ends = np.repeat(labels, np.diff(graph.indptr)), labels[graph.indices]
    assert coarse["edge_weights"].sum() == np.count_nonzero(ends[0] != ends[1])
    assert coarse["node_weights"].sum() == graph.num_nodes
    assert coarse["starts"][-1] == len(coarse["columns"]) == len(coarse["edge_weights"])


@pytest.mark.parametrize("num_parts", [1, 100])
@pytest.mark.parametrize("method", METHODS)
def test_one_part_and_more_parts_than_nodes(tmp_path: Path, method: str, num_parts: int) -> None:
    if method in ("metis", "multilevel"):
        pytest.importorskip("pymetis")
    graph = graph_on_disk(tmp_path / "graph", num_nodes=30)
    partition = make_partition(graph, Request(num_parts, method), tmp_path / "p")
    ids = np.arange(30)
    assert np.array_equal(
        partition.offsets[partition.owners(ids)] + partition.rows(ids), partition.place
    )


@pytest.mark.parametrize("labels", [True, False])
def test_graphs_without_splits_or_labels_or_edges(tmp_path: Path, labels: bool) -> None:
    graph = Graph.from_arrays(
        "bare", [0] * 9, [], np.ones((8, 3), np.float32), labels=[0] * 8 if labels else None
    )
    graph = write_graph(graph, tmp_path / "graph")
    partition = make_partition(graph, Request(2), tmp_path / "p")
    assert partition.meta["quality"]["cut"] == 0 and partition.meta["held"]["train"] == [0, 0]
    with pytest.raises(UsageError, match="expected splits to balance training targets by"):
        make_partition(graph, Request(2, balance="train"), tmp_path / "q")


def test_quality_of_a_cut_that_is_known() -> None:
    """A path of 4 nodes in 2 parts of 2: one edge of three is cut, both ways."""
    graph = from_rows([[1], [0, 2], [1, 3], [2]], splits=[1, 1, 1, 2])
    told, held = edge_quality(graph, np.array([0, 0, 1, 1], np.uint8), 2)
    assert told["cut"] == pytest.approx(2 / 6) and told["halo"] == 1.5
    assert held == {"nodes": [2, 2], "edges": [3, 3], "train": [2, 1]}
    assert told["train_balance"] == pytest.approx(2 / 1.5) and told["node_balance"] == 1.0


def test_rows_of_sampled_steps_are_counted() -> None:
    """Two triangles without an edge between them: a rank reads what it owns."""
    rows = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
    graph = from_rows(rows, splits=[1] * 6)
    for parts, remote in (([0, 0, 0, 1, 1, 1], 0.0), ([0, 1, 0, 1, 0, 1], 0.5)):
        place, offsets = places_of(np.array(parts, np.uint8), degree_heat(graph), 2)
        told = read_quality(graph, place, offsets)
        assert told["remote_share"] == pytest.approx(remote, abs=0.01)
        assert told["rows_per_step"] == (3 if remote == 0 else 6)


def test_the_quality_of_refine_is_better_than_of_a_hash(cache: Path, tmp_path: Path) -> None:
    graph = datasets.load(PAPERS, cache_dir=cache)
    found = {
        method: make_partition(graph, Request(4, method), tmp_path / method).meta["quality"]
        for method in ("hash", "refine")
    }
    for key in ("cut", "halo", "remote_rows_per_step"):
        assert found["refine"][key] < found["hash"][key]
    assert found["hash"]["remote_share"] == pytest.approx(0.75, abs=0.03)


def test_a_full_disk_is_reported_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from gnn_core.data.partition.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = command(cache, tmp_path / "p", "--method", "hash")
    child = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 2
    line = child.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "expected to write a partition there, got" in line
    assert line.endswith("make room or give another place with --output")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_killed_run_leaves_nothing_whole_and_is_repeated(cache: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from gnn_core.data.partition import scatter;"
        "scatter._arrange = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "from gnn_core.data.partition.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = command(cache, tmp_path / "p", "--method", "hash")
    child = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "p").exists() and list(tmp_path.glob("p.tmp-*"))
    assert main(flags) == 0
    assert not list(tmp_path.glob("p.tmp-*"))
    Partition.open(tmp_path / "p", datasets.load(PAPERS, cache_dir=cache))


def test_two_that_write_the_same_folder_take_turns(cache: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "gnn_core.data.partition"]
    flags = command(cache, tmp_path / "p", "--method", "hash")
    children = [
        subprocess.Popen([*program, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [child.communicate(timeout=patient(60))[1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("is there already" in text for text in said) == 1


def test_show_tells_what_each_part_holds(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "p"), "--figure", str(tmp_path / "q.png")]) == 0
    out = capsys.readouterr().out
    held = read_meta(tmp_path / "p")["held"]
    for part in range(3):
        assert f"{held['nodes'][part]:,}" in out and f"{held['train'][part]:,}" in out
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", str(tmp_path)]) == 2
    assert "expected the folder of a partition" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "p"), "--figure", "q.txt"]) == 2


def test_datasets_show_tells_what_the_parts_of_the_graph_hold(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
    capsys.readouterr()
    show = ["show", PAPERS, "--cache-dir", str(cache), "--parts", str(tmp_path / "p")]
    assert datasets.main(show) == 0
    out = capsys.readouterr().out
    assert "homophily" in out and f"{read_meta(tmp_path / 'p')['held']['train'][2]:,}" in out
    show[1] = "synthetic:papers=100,num_features=8"
    assert datasets.main(show) == 2
    assert "expected a partition of graph synthetic" in capsys.readouterr().err


def test_show_takes_a_folder_whose_figures_are_odd(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
    file = tmp_path / "p" / "meta.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(meta | {"quality": {"cut": "x"}, "held": {"train": [1]}}))
    assert main(["show", str(tmp_path / "p")]) == 0
    assert "not recorded" in capsys.readouterr().out


def _damage_features(folder: Path) -> None:
    file = folder / "part-001" / "features.npy"
    file.write_bytes(file.read_bytes()[:-4])


def _damage_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("{")


def _remove_part(folder: Path) -> None:
    shutil.rmtree(folder / "part-001")


@pytest.mark.parametrize("damage", [_damage_features, _damage_meta, _remove_part])
def test_a_damaged_partition_is_replaced_when_told(
    cache: Path, tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(cache, tmp_path / "p", "--method", "hash")
    assert main(flags) == 0
    damage(tmp_path / "p")
    assert main(flags) == 2
    assert "something else" not in capsys.readouterr().err
    assert main([*flags, "--overwrite"]) == 0
    assert "replacing a damaged partition" in capsys.readouterr().err
    Partition.open(tmp_path / "p", datasets.load(PAPERS, cache_dir=cache))


def test_what_another_partition_has_other_is_told(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(cache, tmp_path / "p", "--method", "hash")
    assert main(flags) == 0
    assert main([*flags, "--seed", "1", "--topology"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "by hash (seed 0, not 1; topology False, not True); replace it with" in line


def test_the_folder_that_a_link_leads_to_is_written(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("led-to")
    for seed in ("0", "1"):
        flags = ["--method", "hash", "--seed", seed, "--overwrite"]
        assert main(command(cache, tmp_path / "link", *flags)) == 0
    assert (tmp_path / "link").is_symlink() and read_meta(tmp_path / "led-to")["seed"] == 1
    seen = sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".")
    assert seen == ["led-to", "link"]


@pytest.mark.parametrize("output", ["", ".", "..", "/"])
def test_the_folder_one_is_in_is_no_place_for_a_partition(
    cache: Path,
    tmp_path: Path,
    output: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert main(command(cache, Path(output), "--method", "hash")) == 2
    assert "got the one that this command was started in" in capsys.readouterr().err
    assert not list((tmp_path / "inner").iterdir())


def test_a_place_that_cannot_be_written_to_is_named_with_its_flag(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert main(command(cache, tmp_path / "file" / "p")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "expected to write a partition there" in line and line.endswith("with --output")
    monkeypatch.setattr("gnn_core.data.room.free_bytes", lambda *_: 1000)
    assert main(command(cache, tmp_path / "p")) == 2
    assert capsys.readouterr().err.endswith("or another --output\n")


def test_what_an_ended_process_left_is_removed_while_nobody_waits_for_it(
    cache: Path, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()  # until it ends; it stays a zombie
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        (tmp_path / f"p.tmp-{child.pid}").mkdir()
        assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
        assert not list(tmp_path.glob("p.tmp-*"))


def test_datasets_show_checks_the_parts_that_are_there(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, tmp_path / "p", "--method", "hash")) == 0
    show = ["show", PAPERS, "--cache-dir", str(cache), "--parts", str(tmp_path / "p")]
    _remove_part(tmp_path / "p")
    assert datasets.main(show) == 0
    assert "Of 3 parts, 2 are in this folder." in capsys.readouterr().out
    (tmp_path / "p" / "part-002" / "features.npy").write_bytes(b"")
    assert datasets.main(show) == 2
    assert "part-002/features.npy: expected a whole .npy file" in capsys.readouterr().err
