"""Mistakes in files that are imported: one line with file, line and value, and nothing is left."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from gnn_core.data import datasets

EDGES = "source,target\n1,2\n2,3\n3,1\n"
NODES = "id,label,split\n1,a,train\n2,b,valid\n3,a,test\n"
Files = dict[str, str | bytes]

# What is wrong -> files that are added or replaced, flags, words of the answer.
CASES: dict[str, tuple[Files, str, list[str]]] = {
    "a ragged row": (
        {"edges.csv": "source,target\n1,2\n2,3,4\n"},
        "--edges edges.csv",
        ["edges.csv, line 3: expected 2 columns, got 3", "2,3,4"],
    ),
    "a row too short, after an empty one": (
        {"edges.csv": "1,2\n\n2\n"},
        "--edges edges.csv",
        ["edges.csv, line 3: expected 2 columns, got 1"],
    ),
    "text among integers": (
        {"edges.csv": "1,2\n" * 300 + "1,x7\n"},
        "--edges edges.csv",
        ["edges.csv, line 301: expected an integer", "'x7'"],
    ),
    "a huge id": (
        {"edges.csv": "1,99999999999999999999\n"},
        "--edges edges.csv",
        ["edges.csv, line 1: expected an integer of at most 64 bits", "99999999999999999999"],
    ),
    "no id": (
        {"edges.csv": "1,2\n1,\n"},
        "--edges edges.csv",
        ["edges.csv, line 2: expected an id in column 1, got nothing"],
    ),
    "no id among text": (
        {"edges.csv": "a,b\n,b\n"},
        "--edges edges.csv",
        ["edges.csv, line 2: expected an id in column 0"],
    ),
    "latin-1": (
        {"edges.csv": "source,target\nMüller,Weiß\n".encode("latin-1")},
        "--edges edges.csv",
        ["edges.csv, line 2: expected text in UTF-8, got byte 0xfc", "--encoding"],
    ),
    "UTF-16": (
        {"edges.csv": EDGES.encode("utf-16")},
        "--edges edges.csv",
        ["edges.csv, line 1: expected text in UTF-8, got UTF-16"],
    ),
    "an empty file": ({"edges.csv": ""}, "--edges edges.csv", ["expected rows, got an empty file"]),
    "a header alone": (
        {"edges.csv": "source,target\n"},
        "--edges edges.csv",
        ["edges.csv: expected edges, got none"],
    ),
    "a header alone beside nodes": (
        {"edges.csv": "source,target\n"},
        "--edges edges.csv --nodes nodes.csv --label-column label",
        ["edges.csv: expected edges, got none"],
    ),
    "one column": (
        {"edges.csv": "1\n2\n"},
        "--edges edges.csv",
        ["expected two columns, source and target,"],
    ),
    "a class that is validated and not trained on": (
        {},
        "--edges edges.csv --nodes nodes.csv",
        ["split (given)", "expected a training node of every class", "none of b;", "--allow-mis"],
    ),
    "no such file": ({}, "--edges nothing.csv", ["cannot read nothing.csv"]),
    "a wrong column": (
        {},
        "--edges edges.csv --source-column sorce",
        ["edges.csv: expected a column 'sorce'", "did you mean source?", "--source-column"],
    ),
    "a wrong label column": (
        {},
        "--edges edges.csv --nodes nodes.csv --label-column lable",
        ["nodes.csv: expected a column 'lable'", "did you mean label?"],
    ),
    "a column twice": (
        {"nodes.csv": "id,x,x\n1,2,3\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 1: expected each column name once, got 'x' twice"],
    ),
    "an id twice": (
        {"nodes.csv": "id,label\n1,a\n2,b\n1,b\n3,a\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 4: expected each id once, got 1 again"],
    ),
    "an id that is not listed": (
        {"edges.csv": EDGES + "3,9\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["edges.csv, line 5: expected a node of", "nodes.csv, got 9 in column target"],
    ),
    "features of a node that is not there": (
        {"x.csv": "id,x\n1,1\n2,1\n3,1\n4,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 5: expected a node of edges.csv, got 4"],
    ),
    "a node without features": (
        {"x.csv": "id,x\n1,1\n2,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv: expected features of all 3 nodes, got none for 1 of them, such as 3"],
    ),
    "features twice": (
        {"x.csv": "id,x\n1,1\n2,1\n1,5\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 4: expected one row of features per node, got 1 again"],
    ),
    "NaN": (
        {"x.csv": "id,x\n1,1\n2,nan\n3,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 3: expected a finite float32 in column x, got nan"],
    ),
    "infinity in an array": (
        {"x.npy": b""},
        "--edges edges.csv --nodes nodes.csv --features inf.npy",
        ["inf.npy: expected features of finite numbers", "row 1, column 0"],
    ),
    "an array too short": (
        {},
        "--edges edges.csv --nodes nodes.csv --features two.npy",
        ["two.npy: expected 3 rows, one per node, got 2"],
    ),
    "no number": (
        {"x.csv": "id,x\n1,1\n2,\n3,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 3: expected a number in column x, got nothing"],
    ),
    "text for a feature": (
        {"x.csv": "id,x,y\n1,1,1\n2,tall,1\n3,1,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 3: expected a number in column x, got 'tall'"],
    ),
    "an unknown split": (
        {"nodes.csv": NODES.replace("valid", "trian")},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 3: expected train, valid, test or none", "did you mean train?"],
    ),
    "labels that are numbers to predict": (
        {"nodes.csv": "id,label\n1,0.5\n2,1.5\n3,0.1\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv: expected column label to hold classes", "regression"],
    ),
    "several labels": (
        {},
        "--edges edges.csv --nodes nodes.csv --label-column label,split",
        ["--label-column: expected one label column"],
    ),
    "several labels in an array": (
        {},
        "--edges edges.csv --nodes nodes.csv --labels two-hot.npy",
        ["two-hot.npy: expected labels to hold one class per node"],
    ),
    "no node to train on": (
        {"nodes.csv": NODES.replace("train", "none")},
        "--edges edges.csv --nodes nodes.csv",
        ["expected nodes with a label to train on, got none"],
    ),
    "shares of a split": (
        {},
        "--edges edges.csv --nodes nodes.csv --split random:0.9,0.2,0.2",
        ["--split: expected random:0.6,0.2,0.2", "got 'random:0.9,0.2,0.2'"],
    ),
    "a split that is no file": (
        {},
        "--edges edges.csv --nodes nodes.csv --split planetiod",
        ["--split: expected random", "planetiod"],
    ),
    "a split by year without years": (
        {},
        "--edges edges.csv --nodes nodes.csv --split year:2017,2018",
        ["--split year:2017,2018: expected years, got none"],
    ),
    "a bad year": (
        {"nodes.csv": "id,year\n1,2000\n2,\n3,2001\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 3: expected a year in column year, got nothing"],
    ),
    "no JSON": ({"x.json": "{"}, "--edges edges.csv --features x.json", ["x.json: expected JSON"]),
    "a node twice in JSON": (
        {"x.json": '{"1": [1], "1": [2]}'},
        "--edges edges.csv --features x.json",
        ["x.json: expected each node once, got '1' twice"],
    ),
    "a node of JSON that is not there": (
        {"x.json": json.dumps({"1": [1], "7": [2]})},
        "--edges edges.csv --features x.json",
        ["x.json: expected nodes of edges.csv, got '7'"],
    ),
    "a huge feature number": (
        {"x.csv": "node,feature,value\n1,0,1\n1,1,1\n2,999999999999,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 4: expected a feature from 0 to 16777215"],
    ),
    "a pipe": ({}, "--edges pipe.csv", ["pipe.csv: expected a file, got a pipe"]),
    "a folder": ({}, "--edges folder.csv", ["folder.csv: expected a file, got a folder"]),
    "cut gzip": (
        {"edges.csv": gzip.compress(os.urandom(5000))[:2000]},
        "--edges edges.csv",
        ["edges.csv"],
    ),
    "an endless line": (
        {"edges.csv": gzip.compress(b"1" * (40 << 20))},
        "--edges edges.csv",
        ["edges.csv, line 1: expected lines of at most"],
    ),
    "nothing but empty lines": (
        {"edges.csv": gzip.compress(b"\n" * (40 << 20))},
        "--edges edges.csv",
        ["edges.csv, line 1: expected rows, got"],
    ),
    "damaged Parquet": (
        {"edges.parquet": b"PAR1 and nothing else"},
        "--edges edges.parquet",
        ["edges.parquet: expected a whole Parquet file"],
    ),
    "no .npz": (
        {"graph.npz": b"PK and nothing else"},
        "--edges graph.npz",
        ["graph.npz: expected an .npz file"],
    ),
    "an .npz of something else": (
        {},
        "--edges other.npz",
        ["other.npz: expected adj_data", "got numbers"],
    ),
    "a carriage return alone among the first lines": (
        {"edges.csv": "source,target\r1,2\r2,3\r"},
        "--edges edges.csv",
        ["edges.csv, line 1: expected lines that end in a line feed, got a carriage return alone"],
    ),
    "a carriage return alone further on": (
        {"edges.csv": "source,target\n" + "1,2\n" * 300 + "1,2\r2,3\n3,9\n"},
        "--edges edges.csv --nodes nodes.csv",
        ["edges.csv, line 302: expected lines that end in a line feed"],
    ),
    "an id twice below a line break in a field": (
        {"nodes.csv": 'id,label,title\n1,a,"x\ny\nz"\n2,b,q\n3,a,q\n1,a,q\n'},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 7: expected each id once, got 1 again"],
    ),
    "no number below a line break in a field": (
        {"nodes.csv": 'id,title,f\n1,"a\nb",1\n2,b,x\n3,b,1\n'},
        "--edges edges.csv --nodes nodes.csv --feature-columns f",
        ["nodes.csv, line 4: expected a number in column f, got 'x'"],
    ),
    "a quote that stays open": (
        {"nodes.csv": 'id,label\n1,a\n2,"b\n3,a\n4,b\n'},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 3: expected a closing quote"],
    ),
    "a quote that the last line leaves open": (
        {"nodes.csv": 'id,label\n1,a\n2,b\n3,"a\n'},
        "--edges edges.csv --nodes nodes.csv",
        ["nodes.csv, line 4: expected a closing quote"],
    ),
    "a number with an underscore": (
        {"x.csv": "id,x\n1,1\n2,1_000\n3,1\n"},
        "--edges edges.csv --features x.csv",
        ["x.csv, line 3: expected a number in column x, got '1_000'"],
    ),
    "an integer with a plus": (
        {"edges.csv": "1,2\n" * 200 + "+3,1\n"},
        "--edges edges.csv",
        ["edges.csv, line 201: expected an integer of at most 64 bits in column 0, got '+3'"],
    ),
    "another delimiter": (
        {"edges.csv": "source;target;a, note\n1;2;x\n2;3;x\n"},
        "--edges edges.csv",
        ["edges.csv, line 2: expected 2 columns, got 1: '1;2;x'", "or give --delimiter"],
    ),
    "numbers and words in JSON": (
        {"x.json": '{"1": ["a", 1], "2": [], "3": []}'},
        "--edges edges.csv --features x.json",
        ["x.json: expected lists of feature numbers, or of words, got 1"],
    ),
    "half a surrogate for a node": (
        {"edges.csv": "a,b\nb,c\n", "x.json": '{"\\ud800": [1]}'},
        "--edges edges.csv --features x.json",
        ["x.json: expected nodes of edges.csv, got '\\ud800'"],
    ),
    "made features and others": (
        {},
        "--edges edges.csv --nodes nodes.csv --features identity x.csv",
        ["--features: expected files, or identity alone, got 'identity x.csv'"],
    ),
    "text called .npy": (
        {"edges.npy": "1,2\n"},
        "--edges edges.npy",
        ["edges.npy: expected a .npy file, got another file; write it with numpy.save"],
    ),
    "masks that are numbers of nodes": (
        {},
        "--edges masks.npz",
        ["masks.npz: expected val_mask of true and false, or 1 and 0, got others"],
    ),
    "Parquet without columns": (
        {},
        "--edges bare.parquet",
        ["bare.parquet: expected columns, got a table without any"],
    ),
    "Parquet with empty lists of features": (
        {},
        "--edges edges.csv --nodes lists.parquet --feature-columns x",
        ["lists.parquet, row 1: expected at least one number, got an empty list"],
    ),
    "a pickle that calls something": (
        {},
        "--edges evil.npz",
        ["evil.npz: expected adj_matrix as an array or a SciPy matrix", "np.savez"],
    ),
}


# As numbers of nodes, and as many as there are nodes.
_MASKS = {"train": [0, 1, 1, 0], "val": [2, 3, 2, 3], "test": [3, 3, 3, 3]}


class _Evil:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, ("touch evil-was-here",)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with good files, and some that no text describes; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edges.csv").write_text(EDGES)
    (tmp_path / "nodes.csv").write_text(NODES)
    np.save("inf.npy", np.array([[1.0], [np.inf], [0.0]], np.float32))
    np.save("two.npy", np.zeros((2, 4), np.float32))
    np.save("two-hot.npy", np.array([[1, 1], [0, 1], [1, 0]]))
    np.savez("other.npz", numbers=np.arange(3))
    np.savez("evil.npz", adj_matrix=np.array(_Evil(), object), allow_pickle=True)
    ends = np.array([[0, 1], [2, 3]])
    masks = {f"{part}_mask": np.array(nodes) for part, nodes in _MASKS.items()}
    np.savez("masks.npz", edges=ends, x=np.eye(4), y=np.array([0, 1, 0, 1]), **masks)
    parquet.write_table(pyarrow.table({}), "bare.parquet")
    lists = pyarrow.array([[], [], []], pyarrow.list_(pyarrow.float32()))
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "x": lists}), "lists.parquet")
    os.mkfifo("pipe.csv")
    Path("folder.csv").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_in_one_line(
    case: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, flags, words = CASES[case]
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (place / name).write_bytes(data)
    code = datasets.main(["import", "mine", *flags.split(), "--cache-dir", "cache"])
    *progress, line = capsys.readouterr().err.splitlines()
    assert (code, line[:7]) == (2, "error: "), line
    assert all(told.startswith("mine: ") for told in progress)
    for word in words:
        assert word in line
    assert not Path("evil-was-here").exists()
    left = [path.name for path in place.glob("cache/imported/*") if path.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("name", ["cora", "synthetic", "../mine", "-x", "a b", ""])
def test_a_name_that_is_taken_or_none_is_refused(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = datasets.main(["import", "--edges", "edges.csv", "--cache-dir", "cache", "--", name])
    assert code == 2
    assert "NAME: expected" in capsys.readouterr().err
    assert not (place / "cache").exists()
