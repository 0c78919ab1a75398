"""Strategies of hypothesis: what users may type, and what files may hold."""

from __future__ import annotations

import copy
import gzip
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from gnn_core.config import OPTIONS
from gnn_core.sweep.plan import _KEYS as PLAN_KEYS
from tests.fuzz.worker import Case

# Hypothesis draws what stands first more often than the rest.
_SELDOM = st.sampled_from([False, False, False, False, True])
Draw = Callable[[st.SearchStrategy[Any]], Any]
_SMALL = "synthetic:papers=200,num_features=8"
NASTY = st.sampled_from(
    [
        "",
        " ",
        "0",
        "-1",
        "²",
        "٣",
        "1e999",
        "nan",
        "-inf",
        "1_000",
        "0x10",
        "010",
        "1:30",
        "True",
        "9" * 30,
        "9" * 400,
        "9" * 5000,
        "1" + "0" * 12,
        "4294967296",
        "1e-400",
        "1.5",
        "1,2,3",
        ",",
        "a" * 300,
        "b/" * 3000,
        "~nosuch",
        "~",
        "~/x",
        "../x",
        "/dev/zero",
        "/dev/null",
        "/dev/full",
        "/proc/self/mem",
        ".",
        "/",
        "--",
        "-",
        "a\nb",
        "$\\frac{1}",
        "{x}",
        "%s%n",
        "%(prog)s",
        "\u202e",
        "é",
        "\udce9",
        "\U0001f600",
        "synthetic:papers=1e99",
        "synthetic:papers=²",
        "synthetic:=",
        "cora:",
        "x:y=z",
        "no\x07bell",
        "<b>",
        "null",
        "on",
        "[]",
        "!!int x",
    ]
)
ANY_TEXT = NASTY | st.text(st.characters(exclude_characters="\0"), max_size=12)


@st.composite
def flags_of_a_run(draw: Draw) -> Case:
    """Flags of a trainer."""
    spelled = [spec.flag for spec in OPTIONS.values()] + ["--config", "--no-pin", "--nonsense"]
    pairs = draw(st.lists(st.tuples(st.sampled_from(spelled), ANY_TEXT), min_size=1, max_size=4))
    words = [word for pair in pairs for word in pair]
    return Case("single", ("--dataset", _SMALL, *words, "--dry-run"))


_COUNTS = [spec for spec in OPTIONS.values() if spec.kind in ("int", "float", "tuple[int, ...]")]
_NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "7",
        "0.5",
        "1e-9",
        "1e9",
        "1e300",
        "1e-300",
        "100000",
        "2147483647",
        "1,1",
        "2147483648",
        "1000000000",
        "-1",
        "-1,-1",
        "2000000,2000000",
        "9223372036854775807",
        "50,-1",
    ]
)


@st.composite
def short_runs(draw: Draw) -> Case:
    """Numbers of a run that trains an epoch on a small graph, if it is let."""
    chosen = [spec.flag for spec in _COUNTS if spec.name not in ("epochs", "replicas", "threads")]
    pairs = draw(st.lists(st.tuples(st.sampled_from(chosen), _NUMBERS), min_size=1, max_size=3))
    words = [word for pair in pairs for word in pair]
    task = draw(st.sampled_from(["node", "node", "link"]))
    few = ("--epochs", "1", "--records", "records", "--candidates", "20", "--eval-every", "1")
    return Case("single", ("--dataset", _SMALL, "--task", task, *few, *words))


_FLAGS = {
    "analysis": [
        "--table",
        "--format",
        "--target",
        "--price",
        "--currency",
        "--figures-format",
        "--readme",
        "--update",
        "--check",
        "--force",
    ],
    "demo": ["--nonsense"],
    "scaling": ["--probe-file", "--probe-ranks", "--strategy", "--dataset", "--weak", "--strong"],
    "sweep": ["--records", "--retry-failed"],
    "datasets": ["list", "show", "prepare", "--data-root", "--cache-dir", "--verify"],
    "deploy": [
        "mpijob",
        "validate",
        "--workers",
        "--slots",
        "--dataset",
        "--image",
        "--memory",
        "--name",
        "--gpus",
        "--threads",
        "--pvc",
        "--queue",
        "--external-pvc",
    ],
    "compare": ["--dataset", "--epochs", "--rounds", "--ranks", "--threads", "--only", "--records"],
}


@st.composite
def flags_of_other_programs(draw: Draw) -> Case:
    """Words for whatever else has a command line."""
    program = draw(st.sampled_from(sorted(_FLAGS)))
    words = draw(st.lists(st.sampled_from(_FLAGS[program]) | ANY_TEXT, max_size=5))
    first = ["runs"] if program in ("analysis", "demo", "scaling") else []
    last = ["--dry-run"] if program == "sweep" else []
    if program == "scaling":  # to measure takes a minute
        words = [word for word in words if not word.startswith("--p") or word == "--probe-file"]
    return Case(program, (*first, *words, *last), {"runs/a.jsonl": records()})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    ANY_TEXT,
    st.sampled_from([0, 1, 2, 10**19, 2**63, -1, 1e300]),
)
VALUES = st.recursive(
    SCALARS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(ANY_TEXT, some, max_size=3),
    max_leaves=5,
)
_YAML = st.sampled_from(
    [
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]",
        "seed: 010",
        "dataset: no",
        "lr: 1e-3",
        "? [a]\n: 1",
        "<<: {seed: 1}",
        "seed: !!int x",
        "dataset: !!timestamp x",
        "dataset: !!bool x",
        'dataset: "\\ud800"',
        'dataset: "\\UFFFFFFFF"',
        'dataset: "\\0"',
        "seed: 1\nseed: 2",
        "a: " + "[" * 2000,
        "%YAML 9.9\n---\na: 1",
        "- 1",
        "a: 1\n---\nb: 1",
        "dataset: 2026-99-99",
        "=: 1",
        "&a a: *a",
        "a: &a [*a]",
        "\ufeffseed: 1",
        "{",
        "seed: .inf",
        "seed: 12:30:45",
        "!!python/object:os.system {}",
        "seed: 0b1",
        "flags: [--help]",
        "flags: ['\"']",
        "seeds: [true]",
        "repeats: 99999999999999999999",
        "ranks: [1000000000]",
        "records: /dev/full/x",
    ]
)


def _yaml_of(draw: Draw, keys: list[str]) -> bytes:
    how = draw(st.sampled_from(["made", "known", "text", "cut"]))
    if how == "known":
        return draw(_YAML).encode("utf-8", "surrogatepass")
    if how == "text":
        return draw(
            st.binary(max_size=60) | ANY_TEXT.map(lambda one: one.encode("utf-8", "replace"))
        )
    made = draw(st.dictionaries(st.sampled_from(keys) | ANY_TEXT, VALUES, max_size=5))
    try:
        text = yaml.safe_dump(made, allow_unicode=draw(st.booleans())).encode("utf-8", "replace")
    except (yaml.YAMLError, ValueError):
        text = json.dumps(made, default=str).encode()
    return damaged(draw, text) if how == "cut" else text


@st.composite
def configurations(draw: Draw) -> Case:
    """YAML for --config."""
    content = _yaml_of(draw, list(OPTIONS))
    words = ("--dataset", _SMALL, "--config", "run.yaml", "--dry-run")
    return Case("single", words, {"run.yaml": content})


@st.composite
def plans(draw: Draw) -> Case:
    """YAML for a sweep."""
    content = _yaml_of(draw, list(PLAN_KEYS))
    return Case("sweep", ("plan.yaml", "--dry-run", "--records", "swept"), {"plan.yaml": content})


def damaged(draw: Draw, content: bytes) -> bytes:
    """The content cut, with other bytes in it, with some twice, or replaced."""
    how = draw(st.sampled_from(["cut", "flip", "flip", "twice", "insert", "replace", "zeros"]))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:at]
    if how == "flip":
        found = bytearray(content)
        for place in draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=4)):
            if found:
                found[place] = draw(st.integers(0, 255))
        return bytes(found)
    if how == "twice":
        return content[:at] + content
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    return draw(st.binary(max_size=40)) if how == "replace" else bytes(len(content))


def _one_damaged(draw: Draw, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with one of them damaged, or gone."""
    name = draw(st.sampled_from(sorted(files)))
    if draw(_SELDOM):
        return {one: content for one, content in files.items() if one != name}
    return {**files, name: damaged(draw, files[name])}


def changed(draw: Draw, value: Any) -> Any:
    """JSON with one of its parts another one, or gone."""
    value = copy.deepcopy(value)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = draw(st.sampled_from(keys))
        if (
            isinstance(place[key], dict | list)
            and place[key]
            and draw(st.sampled_from("yyyn")) == "y"
        ):
            place = place[key]
            continue
        if draw(_SELDOM):
            del place[key]
        else:
            place[key] = draw(VALUES)
        return value


@cache
def graph_files() -> dict[str, bytes]:
    """A folder of a graph: 60 nodes in 3 classes."""
    import tempfile

    from gnn_core.data.graph import Graph, write_graph

    random = np.random.default_rng(3)
    num_nodes = 60
    linked = np.triu(random.random((num_nodes, num_nodes)) < 0.1, k=1)
    linked |= linked.T
    indptr = np.concatenate([[0], np.cumsum(linked.sum(axis=1))])
    graph = Graph.from_arrays(
        "made",
        indptr,
        np.nonzero(linked)[1],
        random.random((num_nodes, 4)).astype(np.float32),
        np.arange(num_nodes) % 3,
        np.arange(num_nodes) % 4,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_graph(graph, Path(folder, "g"))
        return {f"g/{file.name}": file.read_bytes() for file in Path(folder, "g").iterdir()}


@st.composite
def graph_folders(draw: Draw) -> Case:
    """A graph folder, one of whose files is another one."""
    files = graph_files()
    if draw(st.booleans()):
        meta = json.loads(files["g/meta.json"])
        files = {**files, "g/meta.json": json.dumps(changed(draw, meta), default=str).encode()}
    elif draw(st.booleans()):
        files = {**files, **_odd_array(draw, sorted(files))}
    else:
        files = _one_damaged(draw, files)
    return Case("datasets", ("show", "./g", "--verify"), files)


def _odd_array(draw: Draw, names: list[str]) -> dict[str, bytes]:
    """An array of another type or shape in place of one that belongs there."""
    name = draw(st.sampled_from([one for one in names if one.endswith(".npy")]))
    dtype = draw(
        st.sampled_from(["<i8", "<i4", "<u1", "<f4", "<f8", ">i8", "<U3", "?", "<c8", "<M8[s]"])
    )
    shape = draw(st.lists(st.integers(0, 61), max_size=3).filter(lambda one: np.prod(one) < 9999))
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, dtype))
    return {name: stream.getvalue()}


@cache
def raw_files() -> dict[str, dict[str, bytes]]:
    """Small published files, by the name of their data set."""
    edges = "\n".join(f"{one},{(one * 7 + 3) % 40}" for one in range(40))
    return {
        "cora-linqs": {
            "data/cora/cora.content": "".join(
                f"{one}\t{one % 2}\t{one % 3 and 1}\t{'AB'[one % 2]}\n" for one in range(30)
            ).encode(),
            "data/cora/cora.cites": "".join(
                f"{one}\t{(one + 1) % 30}\n" for one in range(30)
            ).encode(),
        },
        "cit-hepth": {
            f"data/cit_hepth/{name}": gzip.compress(text.encode(), mtime=0)
            for name, text in {
                "raw/edge.csv.gz": edges,
                "raw/num-node-list.csv.gz": "40",
                "raw/num-edge-list.csv.gz": "40",
                "raw/node_year.csv.gz": "\n".join(str(1992 + one % 9) for one in range(40)),
            }.items()
        },
    }


@st.composite
def published_files(draw: Draw) -> Case:
    """Raw files of which one is damaged; a damaged gzip, or damaged text in a sound one."""
    name = draw(st.sampled_from(sorted(raw_files())))
    files = raw_files()[name]
    if name == "cit-hepth" and draw(st.booleans()):
        one = draw(st.sampled_from(sorted(files)))
        text = damaged(draw, gzip.decompress(files[one]))
        files = {**files, one: gzip.compress(text, mtime=0)}
    else:
        files = _one_damaged(draw, files)
    words = ("show", name, "--data-root", "data", "--cache-dir", "cache")
    return Case("datasets", words, files)


@cache
def checkpoint_file() -> bytes:
    """A whole checkpoint."""
    import tempfile

    from gnn_core.training.checkpoint import LAST
    from tests.unit.test_checkpoint import made, save

    with tempfile.TemporaryDirectory() as folder:
        save(made(Path(folder)))
        return Path(folder, LAST).read_bytes()


@st.composite
def checkpoints(draw: Draw) -> Case:
    """A checkpoint that is damaged, most often in its header."""
    content = checkpoint_file()
    if draw(st.booleans()):
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        text = json.dumps(changed(draw, header), default=str).encode()
        content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    elif draw(st.booleans()):
        content = damaged(draw, content[:2000]) + content[2000:]
    else:
        content = damaged(draw, content)
    return Case("checkpoint", (), {"ckpt/last.safetensors": content})


@cache
def records() -> bytes:
    """Three runs: `single`, and two ranks of horovod twice."""
    from gnn_core.measure.strict_json import one_line, plain
    from tests.unit.made_records import run, used

    runs = [
        run(step_losses=[1.0, 0.5], resources=[used()]),
        run("horovod", 2, 4.0, step_losses=[1.0, 0.5]),
        run("horovod", 2, 4.5),
    ]
    return "".join(one_line(plain(one)[0]) + "\n" for one in runs).encode()


@st.composite
def damaged_records(draw: Draw) -> Case:
    """Records of which one is another one, for every table and format."""
    lines = records().decode().splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    if not draw(_SELDOM):
        lines[at] = json.dumps(changed(draw, json.loads(lines[at])), default=str)
        content = "\n".join(lines).encode("utf-8", "replace")
    else:
        content = damaged(draw, records())
    if draw(_SELDOM):
        return Case("demo", ("runs",), {"runs/a.jsonl": content})
    table = draw(
        st.sampled_from(
            [
                "accuracy",
                "speed",
                "weak",
                "target",
                "cost",
                "compare",
                "curves",
                "links",
                "memory",
                "resources",
            ]
        )
    )
    form = draw(st.sampled_from(["text", "markdown", "csv", "latex"]))
    return Case("analysis", ("runs", "--table", table, "--format", form), {"runs/a.jsonl": content})


@cache
def manifest() -> list[Any]:
    """The objects of a job."""
    from tests.unit.made_manifests import base

    return base()


@st.composite
def manifests(draw: Draw) -> Case:
    """Manifests of which a field is another one, or the text is damaged."""
    objects = changed(draw, manifest())
    try:
        content = yaml.safe_dump_all(objects).encode("utf-8", "replace")
    except (yaml.YAMLError, ValueError):
        content = json.dumps(objects, default=str).encode()
    if draw(_SELDOM):
        content = damaged(draw, content)
    return Case("deploy", ("validate", "job.yaml"), {"job.yaml": content})


@st.composite
def benchmark_files(draw: Draw) -> Case:
    """Benchmark files, in a document whose table is made of them."""
    bench = {
        "benchmark": "b",
        "machine": {"cpu_model": "c", "cores_available": 2},
        "versions": {"p": "1"},
        "commit": "c" * 40,
        "dirty": False,
        "settings": {"a": 1},
        "columns": ["x", "y"],
        "rows": [["a", 1.5], ["b", None]],
        "notes": ["n"],
    }
    text = json.dumps(changed(draw, bench), default=str).encode()
    if draw(_SELDOM):
        text = damaged(draw, text)
    page = b"<!-- figures:benches b begin -->\n\n<!-- figures:benches end -->\n"
    if draw(_SELDOM):
        page = damaged(draw, page)
    return Case("analysis", ("--readme", "page.md"), {"page.md": page, "b/one.json": text})


KINDS: dict[str, Callable[[], st.SearchStrategy[Case]]] = {
    "flags of a run": flags_of_a_run,
    "short runs": short_runs,
    "flags of other programs": flags_of_other_programs,
    "configurations": configurations,
    "plans": plans,
    "graph folders": graph_folders,
    "published files": published_files,
    "checkpoints": checkpoints,
    "records": damaged_records,
    "manifests": manifests,
    "benchmark files": benchmark_files,
}
