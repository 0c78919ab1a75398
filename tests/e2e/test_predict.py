"""Predictions as a user asks for them: what comes out, on which graphs, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gnn_core.config import RunConfig
from gnn_core.data.datasets import load
from gnn_core.data.graph import Graph, write_graph
from gnn_core.inference import output
from gnn_core.training.checkpoint import weights_of
from tests.e2e.jobs import job
from tests.e2e.small import DATASET, LAUNCHERS, ROOT, Place
from tests.e2e.test_bad_input import assert_refused, with_files_up_to
from tests.unit.documents import blocks
from tests.unit.made_links import citing

pytestmark = pytest.mark.needs_torch
PREDICT = str(ROOT / "horovod_gnn" / "predict.py")
LINK: dict[str, Any] = {"task": "link", "candidates": 20, "lr": None, "epochs": 1}


@pytest.fixture
def predict(in_process: Callable) -> Callable[[Sequence[Any]], Any]:
    """Give `predict(words)`: `python baselines/predict.py <words>`, inside this process."""
    from baselines.predict import main

    return lambda words: in_process(main, words)


def flags(place: Place, name: str = "pred.csv", **more: Any) -> list[Any]:
    """Give the words after `predict.py`."""
    words: list[Any] = ["--checkpoint-dir", place.saved, "--cache-dir", place.cache]
    words += ["--output", place.folder / name, "--device", "cpu"]
    for flag, value in more.items():
        words += ["--" + flag.replace("_", "-")] + ([] if value is True else [value])
    return words


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are kept that `saved` and `linked` copy."""
    return tmp_path_factory.mktemp("trained")


def copied(folder: Path, place: Place, train: Callable[[Place], None]) -> Place:
    """Copy what a training has left in a folder to the test's own; train if it is not there."""
    if not folder.exists():
        folder.mkdir()
        train(Place(folder, place.cache))
    shutil.copytree(folder, place.folder, dirs_exist_ok=True)
    return place


@pytest.fixture
def saved(single: Callable, place: Place, trained: Path) -> Place:
    """Train, so that there is a checkpoint."""

    def train(there: Place) -> None:
        assert single(there.saving()).code == 0

    return copied(trained / "nodes", place, train)


def rows(place: Place, name: str = "pred.csv") -> list[dict[str, str]]:
    with (place.folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logits_of(place: Place, graph: Graph) -> npt.NDArray[Any]:
    """What evaluation computes with the best weights, for every node."""
    from gnn_core.training.evaluate import ExactEvaluator
    from gnn_core.training.tasks import feature_store
    from horovod_gnn.evaluate import Layers
    from horovod_gnn.learner import TorchLearner
    from horovod_gnn.parallel import SingleProcess

    config = RunConfig(dataset="tiny", hidden=16, layers=2, precision="fp64", device="cpu")
    learner = TorchLearner.of(config, graph, SingleProcess())
    learner.load_weights(weights_of(place.saved / "best.safetensors"))
    layers = Layers(learner.model, feature_store(graph))
    evaluator = ExactEvaluator(graph, SingleProcess(), layers)
    return np.array(evaluator.embeddings(np.arange(graph.num_nodes)))


def test_classes_are_those_that_evaluation_counts(saved: Place, predict: Callable) -> None:
    done = predict(flags(saved))
    assert done.code == 0, done.err
    assert "predicted  classes of 2,000 nodes in " in done.out and " nodes/s" in done.out
    graph = load(DATASET, cache_dir=saved.cache)
    found = rows(saved)
    assert [int(row["node"]) for row in found] == list(range(2000))
    classes = np.array([int(row["class"]) for row in found])
    test = graph.split("test")
    accuracy = (classes[test] == graph.labels[test]).mean()
    assert accuracy == pytest.approx(saved.record().final["test_accuracy"], abs=1e-12)
    logits = logits_of(saved, graph)
    best = np.exp(logits.max(1)) / np.exp(logits).sum(1)
    assert [float(row["probability"]) for row in found] == pytest.approx(best, abs=1e-6)


def test_logits_and_embeddings_are_those_of_evaluation(saved: Place, predict: Callable) -> None:
    graph = load(DATASET, cache_dir=saved.cache)
    for words in ({"what": "logits"}, {"what": "embeddings", "layer": 2}):
        assert predict(flags(saved, "l.npy", overwrite=True, **words)).code == 0
        logits = np.load(saved.folder / "l.npy")
        assert logits.dtype == np.float64
        assert np.allclose(logits, logits_of(saved, graph), rtol=1e-12)
    assert predict(flags(saved, "h.npy", what="embeddings", nodes="valid")).code == 0
    hidden = np.load(saved.folder / "h.npy")
    valid = graph.split("valid")
    assert hidden.shape == (len(valid), 16) and hidden.min() == 0  # after ReLU
    assert (np.load(saved.folder / "h.ids.npy") == valid).all()


def test_parquet_holds_the_same(saved: Place, predict: Callable) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert predict(flags(saved, top_k=2, nodes="test")).code == 0
    assert predict(flags(saved, "pred.parquet", top_k=2, nodes="test")).code == 0
    table = parquet.read_table(saved.folder / "pred.parquet").to_pydict()
    for row, *values in zip(rows(saved), *table.values(), strict=True):
        assert [float(value) for value in row.values()] == pytest.approx(values, abs=1e-6)
    assert predict(flags(saved, "l.parquet", what="logits")).code == 0
    logits = parquet.read_table(saved.folder / "l.parquet").column("logit").to_pylist()
    assert np.allclose(logits, logits_of(saved, load(DATASET, cache_dir=saved.cache)), rtol=1e-12)


@pytest.mark.needs_horovod
@pytest.mark.parametrize("launcher", ["mpirun", pytest.param("horovodrun", marks=pytest.mark.long)])
def test_two_ranks_write_the_same_file(
    saved: Place, predict: Callable, horovodrun: Callable, launcher: str
) -> None:
    assert predict(flags(saved)).code == 0
    done = horovodrun(2, [PREDICT, *map(str, flags(saved, "two.csv"))], launcher)
    assert done.returncode == 0, done.stderr
    assert "on 2 ranks" in done.stdout
    assert rows(saved, "two.csv") == rows(saved)


def grown(graph: Graph, folder: Path, **changes: Any) -> Graph:
    """Write the graph with 50 more nodes, which cite each other, without labels and splits."""
    indptr = np.concatenate([graph.indptr, graph.indptr[-1] + np.arange(1, 51)])
    indices = np.concatenate([graph.indices, graph.num_nodes + (np.arange(50) + 1) % 50])
    features = np.concatenate([graph.features, np.ones((50, graph.num_features), np.float32)])
    given = {"features": features, **changes}
    return write_graph(Graph.from_arrays("grown", indptr, indices, **given), folder)


def test_a_graph_that_has_grown_needs_no_labels(saved: Place, predict: Callable) -> None:
    grown(load(DATASET, cache_dir=saved.cache), saved.folder / "grown")
    assert predict(flags(saved)).code == 0
    done = predict(flags(saved, "grown.csv", dataset=saved.folder / "grown"))
    assert done.code == 0, done.err
    assert rows(saved, "grown.csv")[:2000] == rows(saved)
    assert len(rows(saved, "grown.csv")) == 2050


def test_nodes_and_classes_are_called_as_where_they_came_from(
    saved: Place, predict: Callable
) -> None:
    folder = saved.folder / "named"
    graph = grown(load(DATASET, cache_dir=saved.cache), folder)
    names = [f"Müller, {i}" for i in range(graph.num_nodes)]
    raw = [name.encode() for name in names]
    np.save(folder / "ids-offsets.npy", np.cumsum([0, *map(len, raw)]))
    np.save(folder / "ids-bytes.npy", np.frombuffer(b"".join(raw), np.uint8))
    assert predict(flags(saved, dataset=folder)).code == 0
    assert [row["node"] for row in rows(saved)] == names
    (saved.folder / "some.txt").write_text("\ufeffMüller, 7\r\nMüller, 2049\r\n", encoding="utf-8")
    words = {"dataset": folder, "nodes": saved.folder / "some.txt", "what": "logits"}
    assert predict(flags(saved, "some.npy", **words)).code == 0
    assert np.load(saved.folder / "some.ids.npy").tolist() == ["Müller, 7", "Müller, 2049"]
    done = predict(flags(saved, "b.csv", dataset=folder, nodes="7"))
    assert_refused(done.code, done.err, "--nodes: ", "expected ids of its 2,050 nodes", "got '7'")

    (folder / "ids-offsets.npy").unlink()
    np.save(folder / "ids.npy", np.arange(graph.num_nodes) * 10)
    meta = json.loads((folder / "meta.json").read_text())
    del meta["meta_sha256"]
    labelled = {**meta, "num_classes": 8, "class_names": list("abcdefgh")}
    (folder / "meta.json").write_text(json.dumps(labelled))
    done = predict(flags(saved, "c.csv", dataset=folder, nodes="20490,70", top_k=8))
    assert done.code == 0, done.err
    first, second = rows(saved, "c.csv")
    assert (first["node"], second["node"]) == ("70", "20490")
    assert sorted(first[f"class_{k}"] for k in range(1, 9)) == list("abcdefgh")


def test_weights_for_pytorch_geometric(saved: Place, predict: Callable) -> None:
    import torch

    models = pytest.importorskip("torch_geometric.nn.models")
    done = predict(flags(saved, "m.pt", export="pyg"))
    assert done.code == 0, done.err
    assert "GraphSAGE(16, 16, 2, 8, aggr='mean')" in done.out
    model = models.GraphSAGE(16, 16, 2, 8, aggr="mean").double()
    model.load_state_dict(torch.load(saved.folder / "m.pt", weights_only=True))
    graph = load(DATASET, cache_dir=saved.cache)
    targets = np.repeat(np.arange(graph.num_nodes), np.diff(graph.indptr))
    edges = torch.from_numpy(np.stack([graph.indices.astype(np.int64), targets]))
    theirs = model.eval()(torch.from_numpy(np.array(graph.features)).double(), edges)
    assert np.allclose(theirs.detach(), logits_of(saved, graph), atol=1e-9)


def test_the_service_in_the_docs(
    saved: Place,
    predict: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert predict(flags(saved)).code == 0
    (program,) = blocks(ROOT / "docs" / "predict.md", "python")
    monkeypatch.chdir(saved.folder)
    monkeypatch.setenv("RINGSAGE_CACHE", str(saved.cache))
    exec(program.replace('"synthetic"', repr(DATASET)), {})
    classes = {int(row["node"]): int(row["class"]) for row in rows(saved)}
    assert capsys.readouterr().out == f"{ {node: classes[node] for node in (5, 7)} }\n"


def test_from_tables_to_a_table_in_the_commands_of_the_docs(
    place: Place, run_cli: Callable
) -> None:
    random = np.random.default_rng(0)
    names, labels = [f"p{i}" for i in range(60)], ["red", "blue"] * 30
    edges = [f"{names[i]},{names[(i + 2 * int(random.integers(1, 9))) % 60]}" for i in range(60)]
    rows_of = [f"{a},{b},{i % 2},1" for i, (a, b) in enumerate(zip(names, labels, strict=True))]
    (place.folder / "edges.csv").write_text("\n".join(["source,target", *edges]))
    (place.folder / "nodes.csv").write_text("\n".join(["id,label,x,y", *rows_of]))
    env = {"RINGSAGE_CACHE": str(place.folder / "cache"), "PYTHONPATH": str(ROOT)}
    (block,) = [text for text in blocks(ROOT / "docs" / "predict.md", "bash") if "import" in text]
    for line in block.splitlines():
        words = shlex.split(line.replace("baselines/", f"{ROOT}/baselines/"))
        done = run_cli(words, env=env, cwd=place.folder)
        assert done.returncode == 0, done.stderr
    assert [row["node"] for row in rows(place, "shop.csv")] == names
    assert {row["class"] for row in rows(place, "shop.csv")} <= {"red", "blue"}


# What is typed after the flags of a good prediction -> words of the answer.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "missing folder": ({"checkpoint_dir": "/no/such"}, ["got no folder /no/such; check the path"]),
    "no checkpoint": ({"checkpoint_dir": ROOT}, ["expected best.safetensors in it, got none"]),
    "unknown suffix": ({"output": "p.txt"}, ["--output p.txt: expected a name in .csv, .parquet"]),
    "no suffix": ({"output": "p"}, ["got no suffix"]),
    "classes as an array": ({"output": "p.npy"}, ["--what classes writes .csv or .parquet"]),
    "a missing output folder": ({"output": "/proc/no/p.csv"}, ["--output", "/proc/no"]),
    "a folder as output": ({"output": ROOT / "docs"}, ["expected a name in"]),
    "layer 0": ({"what": "embeddings", "layer": 0}, ["--layer 0: expected one from 1 to 2"]),
    "layer 3": ({"what": "embeddings", "layer": 3}, ["--layer 3: expected one from 1 to 2"]),
    "a layer of classes": ({"layer": 1}, ["--layer: --what classes has no use for it"]),
    "too many classes": ({"top_k": 9}, ["--top-k 9: expected at most 8"]),
    "no classes": ({"top_k": 0}, ["--top-k: expected a whole number from 1, got 0"]),
    "unknown nodes": ({"nodes": "5,2000"}, ["expected ids of its 2,000 nodes", "got '2000'"]),
    "no node": ({"nodes": ","}, ["expected at least one node"]),
    "a missing file of nodes": (
        {"nodes": "some.txt"},
        ["--nodes: no file of that name, and graph"],
    ),
    "a folder of nodes": ({"nodes": ROOT}, ["expected a file, got a folder"]),
    "another model": ({"hidden": 32}, ["--hidden 32: ", "was trained with 16; leave it out"]),
    "another task": ({"task": "link"}, ["--task link: ", "was trained with node"]),
    "a setting of training": ({"epochs": 3}, ["unrecognized arguments: --epochs 3"]),
    "papers of classes": ({"papers": "3"}, ["--papers: --what classes has no use for it"]),
    "links": ({"what": "citations"}, ["this checkpoint is of --task node, which gives classes"]),
    "a graph without such features": (
        {"dataset": "synthetic:papers=500,num_features=8,num_topics=8"},
        ["expected 16 features, as the checkpoint was trained with, got 8; give "],
    ),
    "a graph of other classes": (
        {"dataset": "synthetic:papers=500,num_features=16,num_topics=4"},
        ["expected 8 classes, as the checkpoint was trained with, got 4; give "],
    ),
    "unknown data set": ({"dataset": "coraa"}, ["unknown data set 'coraa', did you mean cora?"]),
    "an export with an answer": ({"export": "pyg", "what": "logits", "output": "m.pt"}, ["--what"]),
    "an export of another suffix": ({"export": "pyg"}, ["expected a name in .pt"]),
}


def test_what_is_refused_in_one_line(saved: Place, predict: Callable) -> None:
    for name, (changes, words) in REFUSED.items():
        given = {key: value for key, value in changes.items() if key != "output"}
        done = predict([*flags(saved, **given), *_output(saved, changes)])
        assert_refused(done.code, done.err, *words), name
    assert not (saved.folder / "pred.csv").exists()
    assert not list(saved.folder.glob(".*"))


def _output(place: Place, changes: dict[str, Any]) -> list[Any]:
    return ["--output", changes["output"]] if "output" in changes else []


def test_an_output_that_is_there(saved: Place, predict: Callable) -> None:
    (saved.folder / "pred.csv").write_text("mine")
    done = predict(flags(saved))
    assert_refused(done.code, done.err, "pred.csv is there already", "or --overwrite")
    assert (saved.folder / "pred.csv").read_text() == "mine"
    assert predict(flags(saved, overwrite=True)).code == 0
    assert len(rows(saved)) == 2000
    (saved.folder / "l.ids.npy").write_bytes(b"mine")
    done = predict(flags(saved, "l.npy", what="logits"))
    assert_refused(done.code, done.err, "l.ids.npy is there already")


def test_a_full_disk_leaves_nothing_behind(
    saved: Place, predict: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    words = flags(saved, "l.npy", what="embeddings", layer=1)
    answer = ["cannot write ", "l.npy: ", "; make room or give another one with --output"]
    done = with_files_up_to(100_000, lambda: predict(words))  # a part
    assert_refused(done.code, done.err, *answer)
    monkeypatch.setattr(output, "_sync", full)  # what is joined
    done = predict(words)
    assert_refused(done.code, done.err, *answer)
    assert {path.name for path in saved.folder.iterdir()} == {"records", "saved"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_checkpoint(saved: Place, predict: Callable, damage: str) -> None:
    path = saved.saved / "best.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    contents = {"cut": data[:-100], "flipped": data, "foreign": b"PK" * 99, "empty": b""}
    path.write_bytes(contents[damage])
    done = predict(flags(saved))
    assert_refused(done.code, done.err, "best.safetensors: expected a checkpoint of Ringsage, got")


def test_weights_that_were_never_best(saved: Place, predict: Callable) -> None:
    (saved.saved / "best.safetensors").unlink()
    done = predict(flags(saved))
    assert_refused(done.code, done.err, "it has last.safetensors, which --weights last takes")
    assert predict(flags(saved, weights="last")).code == 0


@pytest.mark.long
@pytest.mark.needs_horovod
def test_what_is_wrong_is_told_once_for_all_ranks(saved: Place, horovodrun: Callable) -> None:
    words = [str(word) for word in flags(saved, nodes="5,2000")]
    done = horovodrun(2, [PREDICT, *words], "mpirun")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1
    assert "expected ids of its 2,000 nodes" in errors[0]


@pytest.fixture
def linked(request: pytest.FixtureRequest, single: Callable, place: Place, trained: Path) -> Place:
    """Train on links of a small graph with every oddity."""
    predictor = getattr(request, "param", "structure")

    def train(there: Place) -> None:
        write_graph(citing(), there.folder / "citing")
        chosen = {**LINK, "predictor": predictor}
        words = there.saving(**chosen, dataset=there.folder / "citing", held_out=0.2)
        assert single(words).code == 0

    return copied(trained / predictor, place, train)


@pytest.mark.parametrize("linked", ["structure", "ncn"], indirect=True)
def test_missing_citations_are_the_best_that_are_not_known(
    linked: Place, predict: Callable
) -> None:
    graph = citing()
    done = predict(flags(linked, papers="3,9,149", top_k=5))
    assert done.code == 0, done.err
    found = rows(linked)
    assert [row["rank"] for row in found] == ["1", "2", "3", "4", "5"] * 3
    assert predict(flags(linked, "all.csv", papers="3,9,149", top_k=150)).code == 0
    for paper in (3, 9, 149):
        known = graph.indices[graph.indptr[paper] : graph.indptr[paper + 1]].tolist()
        every = [row for row in rows(linked, "all.csv") if row["paper"] == str(paper)]
        assert {int(row["candidate"]) for row in every} == set(range(150)) - {paper, *known}
        scores = [float(row["score"]) for row in every]
        assert scores == sorted(scores, reverse=True)
        assert every[:5] == [row for row in found if row["paper"] == str(paper)]
    words = {"papers": "3", "candidates": ",".join(map(str, range(0, 150, 3)))}
    assert predict(flags(linked, "few.csv", **words)).code == 0
    few = [row["candidate"] for row in rows(linked, "few.csv")]
    every = [row["candidate"] for row in rows(linked, "all.csv") if row["paper"] == "3"]
    assert few == [one for one in every if int(one) % 3 == 0][:10]


def test_embeddings_of_papers_are_those_of_evaluation(linked: Place, predict: Callable) -> None:
    import torch

    from gnn_core.data.link_graph import LinkSplit, link_graph
    from gnn_core.training.evaluate import ExactEvaluator
    from gnn_core.training.tasks import feature_store
    from horovod_gnn.evaluate import Layers
    from horovod_gnn.model import GraphSAGE
    from horovod_gnn.parallel import SingleProcess

    assert predict(flags(linked, "e.npy", what="embeddings")).code == 0
    graph = Graph.open(linked.folder / "citing")
    graph = link_graph(graph, LinkSplit("newest", 0.2, 0, 128), linked.cache)
    model = GraphSAGE(graph.num_features, 16, 16, precision="fp64")
    weights = weights_of(linked.saved / "best.safetensors")
    encoder = {n.removeprefix("encoder."): a for n, a in weights.items() if "encoder" in n}
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in encoder.items()})
    layers = Layers(model, feature_store(graph))
    theirs = ExactEvaluator(graph, SingleProcess(), layers).embeddings(np.arange(150))
    assert np.allclose(np.load(linked.folder / "e.npy"), theirs, rtol=1e-12)


def test_papers_that_came_later(linked: Place, predict: Callable) -> None:
    later = grown(citing(), linked.folder / "later")
    done = predict(flags(linked, dataset=linked.folder / "later", papers="150", top_k=200))
    assert done.code == 0, done.err
    assert {int(row["candidate"]) for row in rows(linked)} == set(range(200)) - {150, 151}
    assert later.num_nodes == 200
    done = predict(flags(linked, "b.csv", dataset=linked.folder / "later"))
    assert_refused(done.code, done.err, "--papers: expected the papers whose missing citations")


def test_features_made_of_citations_are_of_one_graph(
    single: Callable, place: Place, predict: Callable
) -> None:
    write_graph(citing(width=0), place.folder / "bare")
    words = place.saving(**LINK, dataset=place.folder / "bare", held_out=0.2, svd_width=8)
    assert single(words).code == 0
    assert predict(flags(place, papers="3")).code == 0
    write_graph(citing(width=0, seed=1), place.folder / "other")
    done = predict(flags(place, "b.csv", papers="3", dataset=place.folder / "other"))
    assert_refused(done.code, done.err, "whose features were made of its edges, got another one")


@pytest.mark.needs_horovod
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_ctrl_c_leaves_nothing_behind(single: Callable, place: Place, ranks: int) -> None:
    assert single(place.saving(**LINK, edges_per_epoch=200)).code == 0
    (place.folder / "papers").write_text("\n".join(map(str, range(2000))))
    program = str(ROOT / "baselines" / "predict.py") if ranks == 1 else PREDICT
    launcher = [str(LAUNCHERS / "mpirun"), "-np", str(ranks), "--oversubscribe"] * (ranks > 1)
    words = flags(place, papers=place.folder / "papers", top_k=2000)
    with job([*launcher, "python", program, *map(str, words)], place.folder) as started:
        started.wait_until(lambda: any(place.folder.glob(".pred.csv.*.part-0")))
        (part,) = list(place.folder.glob(".pred.csv.*.part-0"))
        started.wait_until(lambda: part.stat().st_size > 0)
        os.kill(started.pid, signal.SIGINT)
        code = started.end()
    assert code == 130 or (ranks > 1 and code != 0)
    assert not [path for path in place.folder.iterdir() if "pred.csv" in path.name]
