"""Everything a user may get wrong, and the one line that says so.

Each case ends with exit code 2 and exactly one line on stderr that begins with `error: ` and says
what was expected, what came and what to change. To add a case, add a row.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnn_core.data.graph import Graph, write_graph
from tests.e2e.damage import damaged
from tests.e2e.small import LAUNCHERS, LAUNCHING, SINGLE, TRAIN, Place

pytestmark = pytest.mark.needs_torch
QUICK_END = {**LAUNCHING, "OMPI_MCA_odls_base_sigkill_timeout": "1"}
# Where rank 0 says what is wrong and is the first to end: the others have nothing to do then.
AT_ONCE = {**LAUNCHING, "OMPI_MCA_odls_base_sigkill_timeout": "0"}


def assert_refused(code: int, err: str, *words: str) -> str:
    """One line on stderr, and the words in it; the line."""
    assert code == 2
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    return line


# What is typed after the flags of a small run -> words of the answer.
FLAGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown data set": ({"dataset": "coraa"}, ["unknown data set 'coraa'", "did you mean cora?"]),
    "a data set like no other": ({"dataset": "xyzzy"}, ["unknown data set", "ogbn-arxiv"]),
    "missing folder": ({"dataset": "/no/such/graph"}, ["/no/such/graph", "got nothing there"]),
    "data not there": (
        {"dataset": "ogbn-arxiv", "data_root": "."},
        ["ogbn-arxiv: expected its published files", "put "],
    ),
    "missing data root": (
        {"dataset": "cora", "data_root": "/no/such"},
        ["/no/such: expected a folder", "correct --data-root"],
    ),
    "unknown setting of a graph": (
        {"dataset": "synthetic:paper=2000"},
        ["unknown setting 'paper'", "did you mean papers?"],
    ),
    "a graph too small": ({"dataset": "synthetic:papers=3"}, ["expected papers from 100", "got 3"]),
    "too few fan-outs": (
        {"layers": 3},
        ["--fanouts: expected 3 entries, one per layer, got 2 (5,5)"],
    ),
    "fan-out 0": ({"fanouts": "5,0"}, ["--fanouts: a fan-out of 0", "use -1 or >= 1"]),
    "fan-out below -1": ({"fanouts": "5,-2"}, ["at least 1", "got -2"]),
    "fan-outs with spaces": ({"fanouts": "5 5"}, ["--fanouts: expected", "got '5 5'"]),
    "a number in words": ({"lr": "fast"}, ["--lr: expected a number, got 'fast'"]),
    "half a layer": ({"layers": "2.5"}, ["--layers: expected a whole number, got '2.5'"]),
    "negative": ({"hidden": -4}, ["--hidden: expected a whole number at least 1, got -4"]),
    "no epochs": ({"epochs": 0}, ["--epochs: expected a whole number at least 1, got 0"]),
    "not a number": ({"lr": "nan"}, ["--lr: expected a finite number above 0, got nan"]),
    "everything dropped": ({"dropout": 1}, ["--dropout: expected", "below 1", "got 1.0"]),
    "unknown flag": ({"epocs": 3}, ["unknown flag --epocs, did you mean --epochs?"]),
    "unknown choice": ({"precision": "fp46"}, ["--precision", "got 'fp46', did you mean fp64?"]),
    "unknown model": (
        {"model": "gatt"},
        ["--model: expected one of sage, gcn, gat, gin, got 'gatt'"],
    ),
    "no class of a file": (
        {"model": "mine.py"},
        ["--model: expected FILE.py:CLASS", "got 'mine.py'"],
    ),
    "no file of a model": (
        {"model": "/no/mine.py:Mine"},
        ["--model: expected the Python file of a model: cannot read /no/mine.py: No such file"],
    ),
    "no class in the file of a model": (
        {"model": f"{__file__}:Mine"},
        ["--model test_bad_input.py:Mine: ", "test_bad_input.py has no class Mine"],
    ),
    "a sum of gcn": (
        {"model": "gcn", "aggregator": "sum"},
        ["--aggregator: --model gcn has no use for it: leave it out"],
    ),
    "heads of gin": ({"model": "gin", "heads": 2}, ["--heads: --model gin has no use for it"]),
    "heads that do not share": (
        {"model": "gat", "heads": 3},
        ["--heads: expected a divisor of --hidden, which the heads share, got 3 for 16"],
    ),
    "no digits": (
        {"model": "a.py:B", "model_sha256": "x"},
        ["--model-sha256: expected 64 digits of 0-9 and a-f, got 'x'"],
    ),
    "all smooth": ({"label_smoothing": 1}, ["--label-smoothing: expected", "below 1", "got 1.0"]),
    "links: a batch norm": (
        {"task": "link", "norm": "batch"},
        ["--norm: a paper in the pairs of two ranks would count twice", "use layer"],
    ),
    "links: smooth labels": (
        {"task": "link", "label_smoothing": 0.1},
        ["--label-smoothing: only --task node has classes, but --task is link"],
    ),
    "two mistakes": ({"hidden": 0, "lr": -1}, ["--hidden: ", "--lr: ", "; "]),
    "a flag that one process ignores": (
        {"scale_lr": True},
        ["--scale-lr: the single strategy ignores it"],
    ),
    "fewer targets than ranks": (
        {"world_size": 4, "global_batch_size": 3},
        ["--global-batch-size: expected at least one target per rank, got 3 for 4 ranks"],
    ),
    "other ranks than meant": (
        {"world_size": 4},
        ["--world-size: ", "meant for 4 ranks but 1 started", "horovodrun -np 4"],
    ),
    "resume from nowhere": ({"resume": True}, ["--resume: it needs --checkpoint-dir"]),
    "no such file": ({"config": "/no/run.yaml"}, ["--config: cannot read /no/run.yaml: No such"]),
    "more cores than there are": (
        {"pin": True, "threads": 1024},
        ["--pin: expected a core for each of 1 ranks x 1024 threads, got "],
    ),
    "records below a file": ({"records": f"{__file__}/runs"}, ["--records", "Not a directory"]),
    "records on a device": ({"records": "/dev/full"}, ["--records DIR", "/dev/full"]),
    "checkpoints below a file": (
        {"checkpoint_dir": f"{__file__}/saved"},
        ["Not a directory", "another one with --checkpoint-dir DIR"],
    ),
    "curves below a file": (
        {"tensorboard": f"{__file__}/curves"},
        ["Not a directory", "another one with --tensorboard DIR"],
    ),
    "graphs below a file": (
        {"cache_dir": f"{__file__}/cache"},
        ["give another one with --cache-dir"],
    ),
    "an unknown task": ({"task": "edge"}, ["--task", "got 'edge'"]),
    "links: nothing left to train on": (
        {"task": "link", "hold_out": "random", "held_out": 0.5},
        ["--held-out 0.5: expected to leave edges to train on", "lower it"],
    ),
    "links: everything held out": (
        {"task": "link", "held_out": 1},
        ["--held-out: expected", "below 1", "got 1.0"],
    ),
    "links: held out otherwise": (
        {"task": "link", "hold_out": "oldest"},
        ["--hold-out", "got 'oldest'"],
    ),
    "links: not published so": (
        {"task": "link", "hold_out": "published"},
        ["--hold-out published: graph ", "without held-out edges; use newest or random"],
    ),
    "links: a share of what is published": (
        {"task": "link", "hold_out": "published", "held_out": 0.1},
        ["--held-out: only --hold-out newest and random use it"],
    ),
    "links: no candidates": (
        {"task": "link", "candidates": 0},
        ["--candidates: expected a whole number at least 1, got 0"],
    ),
    "a table of integers": (
        {"table_dtype": "int8"},
        ["--table-dtype: expected one of stored, fp16, bf16, got 'int8'"],
    ),
    "links: no negatives": (
        {"task": "link", "negatives": 0},
        ["--negatives: expected a whole number at least 1, got 0"],
    ),
    "links: a sampled evaluation": (
        {"task": "link", "eval": "sampled"},
        ["--eval: link prediction ranks with exact embeddings", "--eval-edges"],
    ),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags(single: Callable, place: Place, case: str) -> None:
    changes, words = FLAGS[case]
    done = single(place.flags(**changes))
    assert_refused(done.code, done.err, *words)
    assert done.out == ""


ONLY_LINK = {
    "hold_out": "random",
    "held_out": 0.1,
    "svd_width": 64,
    "negatives": 2,
    "no_hide_targets": True,
    "shared_negatives": True,
    "edges_per_epoch": 9,
    "predictor_layers": 2,
    "candidates": 9,
    "eval_edges": 9,
}


@pytest.mark.parametrize("name", ONLY_LINK)
def test_flags_of_links_where_classes_are_predicted(
    single: Callable, place: Place, name: str
) -> None:
    done = single(place.flags(**{name: ONLY_LINK[name]}))
    flag = "--" + name.removeprefix("no_").replace("_", "-")
    assert_refused(done.code, done.err, f"{flag}: only --task link uses it, but --task is node")


def test_a_gpu_where_there_is_none(single: Callable, place: Place) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = single(place.flags(device="cuda"))
    assert_refused(done.code, done.err, "--device cuda: expected a GPU, found none; use --device")


FILES = {
    "unknown key": ("global_batchsize: 5", ["unknown key", "did you mean global_batch_size?"]),
    "wrong type": ("epochs: many", ["run.yaml: epochs: expected a whole number, got 'many'"]),
    "out of bounds": ("dropout: 2", ["dropout (--config): expected", "got 2.0"]),
    "given twice": ("seed: 1\nseed: 2", ["seed: given twice, keep one"]),
    "not YAML": ("epochs: [1, 2", ["run.yaml: not valid YAML", "line"]),
    "a list": ("- epochs", ["expected lines of `key: value`"]),
}


@pytest.mark.parametrize("case", FILES)
def test_settings_in_a_file(single: Callable, place: Place, case: str) -> None:
    text, words = FILES[case]
    file = place.folder / "run.yaml"
    file.write_text(text)
    settings = dict.fromkeys(("epochs", "dropout"))  # a flag would beat the file
    done = single(place.flags(**settings, config=file))
    assert_refused(done.code, done.err, str(file) if "(--config)" not in words[0] else "", *words)


DAMAGES = {
    "truncated": ["features.npy: expected a whole .npy file"],
    "empty file": ["indices.npy: expected a whole .npy file"],
    "missing array": ["labels.npy: expected a file listed in meta.json, got no such file"],
    "objects": ["labels.npy: expected"],
    "flipped number": ["features.npy: expected sha256 "],
    "no meta": ["mine/meta.json: expected the description of a graph", "written by gnn_core"],
    "cut meta": ["meta.json: expected JSON"],
    "wrong dtype": ["labels.npy: expected dtype int32, got float64"],
    "wrong length": ["labels.npy: expected shape [120]", "got [117]"],
    "not monotone": ["indptr.npy: expected elements that never decrease, got ", "at node 3"],
    "not from 0": ["indptr.npy: expected 0 as first element, got 1"],
    "out of range": ["indices.npy: expected node ids from 0 to 119, got 4000"],
    "negative index": ["indices.npy: expected node ids from 0 to 119, got -2"],
    "NaN": ["features.npy: expected finite numbers, got a NaN", "at node 3, feature 1"],
    "label out of range": ["labels.npy: expected classes from 0 to 3", "got 99"],
    "no train nodes": ["splits.npy: expected at least one train node"],
    "no valid nodes": ["needs valid nodes, and it has none"],
    "no test nodes": ["needs test nodes, and it has none"],
}


@pytest.mark.parametrize("case", DAMAGES)
def test_graphs(single: Callable, place: Place, tiny_graph: Graph, case: str) -> None:
    folder = damaged(tiny_graph, place.folder / "mine", case)
    done = single(place.flags(dataset=folder, global_batch_size=16))
    assert_refused(done.code, done.err, *DAMAGES[case])


def test_a_graph_without_labels(single: Callable, place: Place, tiny_graph: Graph) -> None:
    bare = Graph.from_arrays("bare", tiny_graph.indptr, tiny_graph.indices, tiny_graph.features)
    write_graph(bare, place.folder / "bare")
    done = single(place.flags(dataset=place.folder / "bare"))
    assert_refused(done.code, done.err, "needs labels, and it has none; write the folder anew")


def test_the_checkpoint_of_other_settings(single: Callable, place: Place) -> None:
    assert single(place.saving(epochs=1)).code == 0
    before = (place.saved / "last.safetensors").read_bytes()
    done = single(place.saving(resume=True, hidden=24, seed=9))
    assert_refused(
        done.code,
        done.err,
        "last.safetensors: it is of another run",
        "--hidden was 16, now 24",
        "--seed was 0, now 9",
        "another --checkpoint-dir",
    )
    done = single(place.saving(resume=True, dataset="synthetic:papers=2001,num_features=16"))
    assert_refused(done.code, done.err, "--dataset was synthetic:papers=2000")
    assert (place.saved / "last.safetensors").read_bytes() == before


def test_a_checkpoint_folder_that_is_taken(single: Callable, place: Place) -> None:
    assert single(place.saving(epochs=1)).code == 0
    before = (place.saved / "last.safetensors").read_bytes()
    done = single(place.saving())
    assert_refused(done.code, done.err, "already holds the checkpoint of a run: add --resume")
    assert (place.saved / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut here", b"not a checkpoint"], ids=["empty", "cut", "other"]
)
def test_a_checkpoint_that_cannot_be_read(single: Callable, place: Place, content: bytes) -> None:
    place.saved.mkdir()
    (place.saved / "last.safetensors").write_bytes(content)
    done = single(place.saving(resume=True))
    line = assert_refused(
        done.code, done.err, "last.safetensors: expected a checkpoint of Ringsage, got a "
    )
    assert "remove it, or give another --checkpoint-dir" in line


def test_a_checkpoint_cut_in_the_middle(single: Callable, place: Place) -> None:
    assert single(place.saving(epochs=1)).code == 0
    path = place.saved / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-700])
    done = single(place.saving(epochs=2, resume=True))  # from the one before it
    assert (done.code, done.err) == (0, "")
    assert "resuming   from the checkpoint before, since" in done.out
    assert "last.safetensors: expected a checkpoint of Ringsage, got a damaged" in done.out
    for name in ("last.safetensors", "previous.safetensors"):
        (place.saved / name).write_bytes(b"")
    done = single(place.saving(epochs=2, resume=True))
    assert_refused(
        done.code, done.err, "last.safetensors: expected a checkpoint of Ringsage, got a damaged"
    )


def with_files_up_to(num_bytes: int, action: Callable[[], Any]) -> Any:
    """Do something while no file may grow beyond a size, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        return action()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_for_records_is_noticed_before_training(single: Callable, place: Place) -> None:
    done = with_files_up_to(0, lambda: single(place.saving()))
    assert_refused(done.code, done.err, "make room or give another one with --records DIR")
    assert not place.saved.exists()


def test_no_room_for_a_checkpoint_leaves_the_one_before(single: Callable, place: Place) -> None:
    assert single(place.saving(epochs=1)).code == 0
    intact = [place.saved / name for name in ("last.safetensors", "best.safetensors")]
    before = [path.read_bytes() for path in intact]
    words = place.saving(epochs=2, resume=True, eval="sampled")
    done = with_files_up_to(12_000, lambda: single(words))
    assert done.code == 1
    assert "failed: cannot write " in done.out
    assert "the checkpoint before it is intact" in done.out
    assert place.record().status == "failed"
    assert [path.read_bytes() for path in intact] == before
    assert single(place.saving(epochs=2, resume=True)).code == 0


def test_a_record_without_a_place_at_the_end_is_kept_elsewhere(
    single: Callable, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gnn_core.training import describe

    def opening_then_loss(*args: Any) -> str:
        place.records.rmdir()
        place.records.write_text("a file, meanwhile")
        return "opening"

    monkeypatch.setattr(describe, "opening", opening_then_loss)
    monkeypatch.setattr("tempfile.tempdir", str(place.folder))
    done = single(place.flags())
    line = assert_refused(done.code, done.err, "--records DIR; the record of this run is in ")
    path = Path(line.rpartition(" ")[2])
    assert path.parent == place.folder
    assert '"status":"ok"' in path.read_text().replace(" ", "")


# -- under a launcher ------------------------------------------------------------------------------


def assert_refused_once(done: Any, *words: str) -> None:
    """The line comes once for the whole job; what mpirun adds about exit codes stands apart."""
    assert done.returncode == 2
    said = [re.sub(r"^\[1,\d+\]<stderr>:", "", line) for line in done.stderr.splitlines()]
    (line,) = [line for line in said if line.startswith("error: ")]
    for word in words:
        assert word in line
    assert "Traceback" not in done.stderr + done.stdout


LAUNCHED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown flag": ({"epocs": 3}, ["unknown flag --epocs, did you mean --epochs?"]),
    "unknown data set": ({"dataset": "coraa"}, ["unknown data set 'coraa', did you mean cora?"]),
    "too few targets": (
        {"global_batch_size": 1},
        ["expected at least one target per rank, got 1 for 2 ranks"],
    ),
}


@pytest.mark.needs_horovod
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.long] * (case != "too few targets"))
        for case in LAUNCHED
    ],
)
def test_two_ranks_say_it_once(horovodrun: Callable, place: Place, case: str) -> None:
    changes, words = LAUNCHED[case]
    done = horovodrun(2, [TRAIN, *place.flags(**changes)], env=AT_ONCE)
    assert_refused_once(done, *words)


@pytest.fixture
def two_programs(run_cli: Callable) -> Callable:
    """Give `two_programs(words, others)`: one rank of each, met by mpirun."""
    if not (LAUNCHERS / "mpirun").exists():
        pytest.skip("mpirun is not installed: `make install`")

    def start(first: list[str], second: list[str]) -> Any:
        ranks = ["-np", "1", "python", *first, ":", "-np", "1", "python", *second]
        return run_cli([str(LAUNCHERS / "mpirun"), *ranks], timeout=120, env=AT_ONCE)

    return start


@pytest.mark.long  # what they say: tests/parallel/test_same_job.py
@pytest.mark.needs_horovod
def test_ranks_with_different_data(two_programs: Callable, place: Place, tiny_graph: Graph) -> None:
    write_graph(tiny_graph, place.folder / "mine")
    folder = damaged(tiny_graph, place.folder / "theirs", "NaN")
    (folder / "features.npy").write_bytes((place.folder / "mine/features.npy").read_bytes())
    labels = (tiny_graph.labels + 1) % 4
    other = Graph.from_arrays(
        "tiny",
        tiny_graph.indptr,
        tiny_graph.indices,
        tiny_graph.features,
        labels,
        tiny_graph.splits,
    )
    write_graph(other, folder)
    words = [[TRAIN, *place.flags(dataset=place.folder / n)] for n in ("mine", "theirs")]
    done = two_programs(*words)
    assert_refused_once(done, "on every rank", "rank 0 ", "rank 1 ", "mine", "theirs")


@pytest.mark.needs_horovod
def test_a_file_that_one_rank_cannot_read(two_programs: Callable, place: Place) -> None:
    file = place.folder / "run.yaml"
    file.write_text("seed: 3\n")
    words = [[TRAIN, *place.flags(config=place.folder / n)] for n in ("run.yaml", "walk.yaml")]
    done = two_programs(*words)
    assert_refused_once(done, "rank 1 (", "--config: cannot read", "walk.yaml")


COPIES = ("expected one process, got 2 copies", "horovodrun -np 4 python")


def test_several_copies_of_the_single_process(
    single: Callable, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rank 0 of mpirun."""
    for name, value in (("RANK", "0"), ("SIZE", "2")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    monkeypatch.setenv("PMIX_NAMESPACE", "7")
    done = single(place.flags())
    assert_refused(done.code, done.err, *COPIES)
    assert not place.records.exists()


@pytest.mark.long
def test_several_copies_of_the_single_process_say_it_once(
    two_programs: Callable, place: Place
) -> None:
    words = [SINGLE, *place.flags()]
    assert_refused_once(two_programs(words, words), *COPIES)
    assert not place.records.exists()


@pytest.mark.needs_horovod
def test_four_ranks_are_meant_and_one_is_started(run_cli: Callable, place: Place) -> None:
    done = run_cli(["python", TRAIN, *place.flags(world_size=4)], env=LAUNCHING)
    assert_refused(done.returncode, done.stderr, "meant for 4 ranks but 1 started")
