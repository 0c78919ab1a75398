"""README, docs/ and the other documents: their links, and the commands that they tell to type."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
import yaml

from gnn_core.config import parse_config
from gnn_core.deploy.programs import read_command
from gnn_core.sweep.plan import read_plan
from tests.unit.documents import (
    DOCUMENTS,
    ROOT,
    Command,
    anchors,
    blocks,
    commands,
    languages,
    links,
    name_of,
)

TRAINERS = ("baselines/single.py", "baselines/ddp.py", "horovod_gnn/train.py")
TRAINERS += ("tf_mirrored/train.py", "baselines/param_server.py")
OTHER_PROGRAMS = ("bash", "docker", "jq", "kind", "kubectl", "mkdir", "podman", "sbatch", "source")
OTHER_PROGRAMS += ("openstack", "tar", "tensorboard")
TORCHRUN = {"--standalone": 0, "--nproc-per-node": 1}  # option -> how many words follow
FOLDERS = ("mpi-operator/", "results/plans/", "results/reference", "tests/")
ALL_COMMANDS = [command for document in DOCUMENTS for command in commands(document)]
EVERY_COMMAND = pytest.mark.parametrize("command", ALL_COMMANDS, ids=str)
EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
ANYWHERE = {"PYTHONPATH": str(ROOT)}  # where the repository is not the working folder
# Programs that end at once with these words, and need neither ranks nor a cluster.
SHORT = (
    "--help",
    "--dry-run",
    "gnn_core.data.datasets list",
    "gnn_core.deploy mpijob",
    "gnn_core.deploy validate mpi-operator/overlays",
)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 70


def test_the_index_names_every_document() -> None:
    named = set(links(ROOT / "docs" / "index.md"))
    assert {file.name for file in (ROOT / "docs").glob("*.md")} - named == {"index.md"}


@EVERY_DOCUMENT
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{name_of(document)}: there is no {link}"
        assert not anchor or anchor in anchors(target), f"{name_of(document)}: no heading {link}"


@EVERY_DOCUMENT
def test_blocks_name_their_language(document: Path) -> None:
    """So that no commands escape the tests below."""
    assert languages(document) <= {"bash", "python", "text", "yaml"}
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.M | re.S)
    assert not re.search(r"^\n {4}\S", text, re.M), "a block of code that is indented, not fenced"


@EVERY_COMMAND
def test_commands_name_programs_and_flags_that_exist(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(blocks(ROOT / "docs" / "training.md", "yaml")[0])
    monkeypatch.chdir(tmp_path)  # where a command finds the settings that it names
    first, *rest = command.words
    for word in rest:
        assert not word.startswith(FOLDERS) or (ROOT / word).exists(), f"there is no {word}"
    if first == "make":
        _check_make(rest)
    elif first in ("sh", "results/reference.sh"):
        script = rest[0] if first == "sh" else first
        assert (ROOT / script).is_file(), f"there is no {script}"
    elif first not in OTHER_PROGRAMS:
        _check_program(command.words)


def _check_make(words: Sequence[str]) -> None:
    """Whether `make -n` knows the targets, and the Makefile the variables."""
    variables = [word.partition("=")[0] for word in words if "=" in word]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(f"$({name})" in makefile for name in variables)
    targets = [word for word in words if "=" not in word]
    reported = subprocess.run(
        ["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert reported.returncode == 0, reported.stderr


def _check_program(words: Sequence[str]) -> None:
    """Whether the launcher knows its options, and the program its flags."""
    if words[0] == "torchrun":
        words = ["python", *_after_torchrun(words[1:])]
    found = read_command({"command": list(words)})
    assert not found.problems
    own, dashes, passed_on = _split(found.flags)
    if found.program in TRAINERS:
        if "--help" not in own:
            parse_config(own, "trainer")
        return
    known = _flags_of(found.program, *[word for word in own[:1] if re.fullmatch("[a-z]+", word)])
    given = {word.partition("=")[0] for word in own if word.startswith("--")}
    assert given <= known, f"{found.program} has no {', '.join(sorted(given - known))}"
    if dashes:
        parse_config(passed_on, "trainer")


def _after_torchrun(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest[0].startswith("-"):
        assert rest[0] in TORCHRUN, f"torchrun: {rest[0]}"
        rest = rest[1 + TORCHRUN[rest[0]] :]
    return rest


def _split(flags: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """Return the words before `--`, whether there is one, and the words after it."""
    at = flags.index("--") if "--" in flags else len(flags)
    return list(flags[:at]), at < len(flags), list(flags[at + 1 :])


@functools.cache
def _flags_of(program: str, *subcommand: str) -> frozenset[str]:
    """Return the flags that the help of a program, or of its subcommand, names.

    It runs inside this process, which has imported most of what it imports.
    """
    module = program.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    help_text = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [module, *subcommand, "--help"]),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(help_text),
        pytest.raises(SystemExit) as ended,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: it is imported already
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    assert not ended.value.code
    return frozenset(re.findall(r"--[a-z][a-z-]*", help_text.getvalue()))


def _is_short(command: Command) -> bool:
    return (
        command.words[0] == "python"
        and "$" not in str(command)
        and any(words in shlex.join(command.words) for words in SHORT)
    )


@pytest.mark.needs_torch
@pytest.mark.parametrize("command", [one for one in ALL_COMMANDS if _is_short(one)], ids=str)
def test_short_commands_run(run_cli: Callable, command: Command) -> None:
    reported = run_cli(command.words)
    assert reported.returncode == 0, reported.stderr


def _train_on(run_cli: Callable, dataset: str, folder: Path) -> None:
    """Train an epoch on a graph of one's own, in that folder."""
    trainer = str(ROOT / "baselines" / "single.py")
    flags = ["--cache-dir", "cache", "--epochs", "1", "--records", "."]
    trained = run_cli(["python", trainer, "--dataset", dataset, *flags], cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert len(list(folder.glob("*.jsonl"))) == 1


@pytest.mark.needs_torch
def test_the_graph_of_ones_own_is_written_and_trained_on(run_cli: Callable, tmp_path: Path) -> None:
    (program,) = blocks(ROOT / "docs" / "data.md", "python")
    (tmp_path / "program.py").write_text(program)
    made = run_cli(["python", "program.py"], env=ANYWHERE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    _train_on(run_cli, "./mine", tmp_path)


@pytest.mark.needs_torch
@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs" / "data.md"], ids=name_of)
def test_tables_of_ones_own_are_imported_and_trained_on(
    run_cli: Callable, document: Path, tmp_path: Path
) -> None:
    names = [f"node-{number}" for number in range(60)]
    edges = zip(names, names[1:] + names[:1], strict=True)
    nodes = [f"{name},{'ab'[at % 2]},{at % 2},{at % 3}" for at, name in enumerate(names)]
    (tmp_path / "edges.csv").write_text("\n".join(["from,to", *map(",".join, edges)]))
    (tmp_path / "nodes.csv").write_text("\n".join(["id,topic,word_a,word_b", *nodes]))
    (command,) = [one for one in commands(document) if one.words[3:5] == ("import", "mine")]
    made = run_cli([*command.words, "--cache-dir", "cache"], env=ANYWHERE, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    _train_on(run_cli, "mine", tmp_path)


def test_the_plan_can_be_run(tmp_path: Path) -> None:
    (plan,) = blocks(ROOT / "docs" / "sweeps.md", "yaml")
    (tmp_path / "plan.yaml").write_text(plan)
    assert read_plan(tmp_path / "plan.yaml").repeats == 3


@EVERY_DOCUMENT
def test_yaml_is_yaml(document: Path) -> None:
    for block in blocks(document, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
