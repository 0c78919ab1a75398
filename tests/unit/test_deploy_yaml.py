"""A text that is printed is a text for whoever reads it; what is read is what kubectl reads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.manifest_files import read_manifests
from gnn_core.deploy.yaml_objects import parse
from gnn_core.deploy.yaml_text import write

# Words that some version of YAML, or some reader of one, takes for no text.
WORDS = """
1e-3 5e-4 1E5 -1e3 +1e3 1. .5 -.5 1.5 -1 +1 0 00 007 08 0777 0o17 0O17 0x1F -0x1 0b101 1_000
1_0.0_1 1__0 190:20:30 190:20:30.15 1:30 .inf -.Inf +.INF .nan .NaN .NAN y Y yes Yes YES n N no
No NO on On ON off Off OFF true True TRUE false False FALSE null Null NULL ~ 2020-01-01
2001-12-14t21:59:43.10-05:00 2001-12-14 = << 685_230.15 0xG 1e 12e03 -2E+05 0.1e-2
""".split()
TEXTS = [
    "",
    " ",
    "a b",
    "#a",
    "a: b",
    "- a",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "`a",
    "{a",
    "[a",
    "'",
    '"',
    "a\nb",
    "a #b",
    "|",
    ">",
    "?",
    "a:",
    "\t",
    "é",
    "\u2028",
    "2001-12-14 21:59:43.10 -5",
]

_CORE = re.compile(  # the core schema of YAML 1.2
    r"(?:|~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|"
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|"
    r"\.(?:nan|NaN|NAN))\Z"
)


class Core(yaml.SafeLoader):
    """A reader of YAML 1.2: of what is not quoted, only what the core schema names is no text."""

    yaml_implicit_resolvers: dict[Any, Any] = {
        None: [("tag:yaml.org,2002:null", _CORE)]  # whatever it is, it is no text
    }


@pytest.mark.parametrize("reader", [yaml.SafeLoader, Core, None], ids=["1.1", "1.2", "kubectl's"])
def test_a_text_is_read_as_the_text_it_is(reader: Any) -> None:
    texts = [*WORDS, *TEXTS]
    made = write([{"args": texts, "keys": dict.fromkeys(texts, "x")}])
    read = parse(made, "f")[0] if reader is None else yaml.load(made, reader)
    assert read["args"] == texts
    assert list(read["keys"]) == texts


def test_numbers_stay_numbers() -> None:
    whole = {"a": 1, "b": 1.5, "c": True, "d": None, "e": [0], "f": 1e-3}
    assert parse(write([whole]), "f") == [whole]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("off", False),
        ("No", False),
        ("0o17", 15),
        ("0777", 511),
        ("1_000", 1000),
        ("0b11", 3),
        ("-0x10", -16),
        ("+7", 7),
        ("08", 8),
        ("1e-3", 0.001),
        ("4e9", 4_000_000_000),
        ("1.0", 1),
        ("2.5", 2.5),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("2020-01-01", "2020-01-01"),
        ("'y'", "y"),
        ("yEs", "yEs"),
        ("1_0.5", 10.5),
        ("+.5", 0.5),
        ("1e+3", 1000),
        ("0O17", 15),
        ("-0o17", -15),
        ("0B11", 3),
        ("0X1f", 31),
        ("_1", "_1"),
        ("0xG", "0xG"),
        ("12e03", 12000),
        ("1__0", 10),
        ("0.1e-2", 0.001),
        ("-08", -8),
        ("._", "._"),
        ("!!str 1", "1"),
        ("NULL", None),
        ("nUll", "nUll"),
        ("1:30:00", "1:30:00"),
        ("+0x10", 16),
        ("1.2.3", "1.2.3"),
        ("=", "="),
    ],
)
def test_what_is_read_is_what_kubectl_reads(tmp_path: Path, text: str, value: Any) -> None:
    (read,) = parse(f"a: {text}", "f")
    assert read["a"] == value and type(read["a"]) is type(value)
    if shutil.which("kubectl"):
        assert by_kubectl(tmp_path, f"spec: {{a: {text}}}").get("spec", {}).get("a") == value


def test_files_of_kustomize_are_read_as_kustomize_does(tmp_path: Path) -> None:
    text = "kind: A\nmetadata: {name: a}\nspec: {y: off, b: true, c: 0o17, d: 1e-3}\n"
    (tmp_path / "a.yaml").write_text(f"apiVersion: v1\n{text}", encoding="utf-8")
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]", encoding="utf-8")
    (one,) = read_manifests(str(tmp_path)).objects
    assert one["spec"] == {"y": "off", "b": True, "c": 15, "d": 0.001}
    if shutil.which("kubectl"):
        words = ["kubectl", "kustomize", str(tmp_path)]
        made = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert parse(made, "f") == [one]


def by_kubectl(folder: Path, text: str) -> dict[str, Any]:
    """An object as kubectl would send it; no cluster is asked."""
    file = folder / "a.yaml"
    head = "apiVersion: kubeflow.org/v2beta1\nkind: MPIJob\nmetadata: {name: a}\n"
    file.write_text(text if text.startswith("apiVersion") else head + text, encoding="utf-8")
    words = ["kubectl", "label", "--local", "-f", str(file), "read=yes", "-o", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_what_is_printed_is_read_by_kubectl_as_it_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mpijob", "--workers", "2", "--dataset", "synthetic", "--image", "me/r:1"]
    words += [
        "--pvc",
        "n",
        "--name",
        "off",
        "--queue",
        "y",
        "--",
        "--lr",
        "1e-3",
        "--weight-decay",
        "5e-4",
    ]
    assert main(words) == 0
    made = capsys.readouterr().out
    for read in (yaml.safe_load(made), yaml.load(made, Core), parse(made, "f")[0]):
        check_texts(read)
    if shutil.which("kubectl"):
        check_texts(by_kubectl(tmp_path, made))


def check_texts(job: dict[str, Any]) -> None:
    """What is a text by its meaning is one."""
    assert job["metadata"]["name"] == "off"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "y"
    launcher = job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    args = launcher["containers"][0]["args"]
    assert args[-4:] == ["--lr", "1e-3", "--weight-decay", "5e-4"]
    assert launcher["volumes"][0]["persistentVolumeClaim"]["claimName"] == "n"
    assert all(isinstance(one.get("value", ""), str) for one in launcher["containers"][0]["env"])
