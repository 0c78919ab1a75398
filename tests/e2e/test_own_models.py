"""Models other than GraphSAGE, as a user types them: on ranks, saved and resumed."""

# ruff: noqa: E402
from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.e2e.small import LAUNCHING, ROOT, TRAIN, Place, assert_same_curve
from tests.unit.test_own_model import GOOD

EXAMPLE = ROOT / "examples" / "pyg_sage.py"
FP64 = 1e-10


@pytest.fixture
def own(place: Place) -> str:
    """A copy of the example, which a test may change."""
    (place.folder / "mine.py").write_text(EXAMPLE.read_text())
    return f"{place.folder}/mine.py:PygSage"


@pytest.mark.long  # without a launcher of its own: tests/parallel/test_same_models.py
@pytest.mark.needs_horovod
def test_a_model_in_a_file_on_two_ranks(
    single: Callable, horovodrun: Callable, place: Place
) -> None:
    """One without PyTorch Geometric, which each rank would take seconds to import."""
    file = place.folder / "mine.py"
    file.write_text(textwrap.dedent(GOOD))
    words = place.flags(model=f"{file}:Mine")
    assert single(words).code == 0
    done = horovodrun(2, [TRAIN, *words], env=LAUNCHING)
    assert done.returncode == 0, done.stderr
    assert "2-layer " in done.stdout and "mine.py:Mine, hidden 16" in done.stdout
    alone, together = place.all_records()
    assert_same_curve([together], alone, FP64)
    assert together.config["model_sha256"] == alone.config["model_sha256"]
    assert together.config_digest == alone.config_digest


def test_a_file_that_has_changed_is_not_resumed(single: Callable, place: Place, own: str) -> None:
    pytest.importorskip("torch_geometric")
    assert single(place.saving(model=own, epochs=1)).code == 0
    assert single(place.saving(model=own, resume=True)).code == 0
    file = Path(own.rpartition(":")[0])
    file.write_text(file.read_text() + "# changed\n")
    done = single(place.saving(model=own, resume=True))
    assert done.code == 2
    assert "it is of another run: --model-sha256 was " in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.long  # as any other setting that is wrong, in test_bad_input
@pytest.mark.needs_horovod
def test_what_is_wrong_with_it_is_told_once(horovodrun: Callable, place: Place) -> None:
    file = place.folder / "mine.py"
    file.write_text(textwrap.dedent(GOOD).replace("def run_layer", "def runs_layer"))
    done = horovodrun(2, [TRAIN, *place.flags(model=f"{file}:Mine")], env=LAUNCHING)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(told) == 1
    assert "--model mine.py:Mine: expected Mine to define run_layer" in told[0]
    assert not place.records.exists() or place.all_records() == []


def test_a_dry_run_counts_the_weights_of_a_model_in_a_file(
    single: Callable, place: Place, own: str
) -> None:
    pytest.importorskip("torch_geometric")
    done = single(place.flags(model=own, dry_run=True))
    assert (done.code, done.err) == (0, "")
    assert f"--model                   {own}" in done.out.replace("  flag", "")
    assert "--model-sha256" in done.out and "of the file" in done.out
