"""The runs of a plan: in which order, where, which are done, and how long the rest will take."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest

from gnn_core.measure.records import read_records, write_record
from gnn_core.sweep.launches import Launch
from gnn_core.sweep.plan import DataSet, Plan
from gnn_core.sweep.run_turn import LOG, take_turn
from gnn_core.sweep.time_left import in_words, recorded_seconds, seconds_left
from gnn_core.sweep.turns import Turn, in_order, result_in
from tests.unit import made_records

CORA, LINKS = DataSet("cora", {}), DataSet("cora", {"task": "link"})
PLAN = Plan(
    strategies=("single", "horovod", "mirrored"),
    ranks=(1, 2),
    datasets=(CORA, LINKS),
    seeds=(0, 1),
    repeats=3,
    epochs=4,
    threads=1,
    scaling="strong",
    local_batch_size=None,
    flags={},
    records=Path("records"),
)


def test_repeats_are_outermost_then_seeds_then_data_sets() -> None:
    turns = in_order(PLAN)
    outer = [(turn.repeat, turn.seed, turn.dataset.label) for turn in turns]
    labels = ("cora", "cora task=link")
    assert list(dict.fromkeys(outer)) == list(itertools.product((1, 2, 3), (0, 1), labels))
    assert outer == sorted(outer)  # each round is whole
    for key, one_round in itertools.groupby(turns, lambda turn: outer[turns.index(turn)]):
        assert {turn.launch for turn in one_round} == set(PLAN.launches), key


@pytest.mark.parametrize("strategies", [("single", "horovod", "mirrored"), ("single", "one")])
def test_each_round_of_a_data_set_starts_with_another_contender(strategies: tuple) -> None:
    """As many data sets as launches must not give each data set its own first launch."""
    plan = dataclasses.replace(PLAN, strategies=strategies)
    turns, size = in_order(plan), len(plan.launches)
    for label in ("cora", "cora task=link"):
        firsts = [turn.launch for turn in turns[::size] if turn.dataset.label == label]
        assert len(firsts) == 6
        assert all(one != other for one, other in itertools.pairwise(firsts))
        counts = Counter(firsts)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_each_run_has_its_own_place() -> None:
    turns = in_order(PLAN)
    assert len({turn.place for turn in turns}) == len(turns) == 3 * 2 * 2 * 5
    first = turns[0]
    assert str(first.place) == f"cora/single-1/seed-0-repeat-1-{first.digest}"
    graph = dataclasses.replace(first, dataset=DataSet("synthetic:papers=2000,a=1", {}))
    assert graph.place.parts[0] == "synthetic-papers-2000-a-1"


def test_an_unchanged_plan_finds_its_runs_and_a_changed_one_does_not() -> None:
    """More repeats, seeds, strategies or data sets leave the places of the others as they are."""
    known = {turn.place for turn in in_order(PLAN)}
    more = dataclasses.replace(
        PLAN,
        repeats=4,
        seeds=(0, 1, 2),
        strategies=("one", "single", "horovod", "mirrored"),
        datasets=(DataSet("pubmed", {}), CORA, LINKS),
        ranks=(1, 2, 4),
    )
    assert known < {turn.place for turn in in_order(more)}
    for change in ({"epochs": 5}, {"threads": 2}, {"flags": {"hidden": 64}}):
        changed = dataclasses.replace(PLAN, **change)
        assert known.isdisjoint(turn.place for turn in in_order(changed))
    one, other = ({"hidden": 64, "lr": 0.1}, {"lr": 0.1, "hidden": 64})
    places = [
        [turn.place for turn in in_order(dataclasses.replace(PLAN, flags=flags))]
        for flags in (one, other)
    ]
    assert places[0] == places[1]


def test_a_run_is_done_when_it_has_ended_well_or_failed(tmp_path: Path) -> None:
    assert result_in(tmp_path / "none") is None
    write_record(made_records.run(status="interrupted", error="stopped"), tmp_path)
    assert result_in(tmp_path) is None
    failed = made_records.run(status="failed", error="no number")
    write_record(failed, tmp_path)
    assert result_in(tmp_path) == failed
    good = made_records.run()
    write_record(good, tmp_path)
    write_record(made_records.run(status="failed", error="later"), tmp_path)
    assert result_in(tmp_path) == good


def test_a_record_cut_short_is_no_result(tmp_path: Path) -> None:
    file = write_record(made_records.run(), tmp_path)
    file.write_text(file.read_text()[:-100])
    assert result_in(tmp_path) is None


def test_the_time_left_is_that_of_like_runs() -> None:
    one, two = ("cora", "single", 1), ("cora", "horovod", 2)
    far = ("arxiv", "single", 1)
    assert seconds_left([one], []) is None
    took = [(one, 2.0), (one, 4.0), (far, 93.0)]
    assert seconds_left([one], took) == 3.0  # of its kind
    assert seconds_left([two], took) == 3.0  # of its data set
    assert seconds_left([("pubmed", "one", 1)], took) == 33.0  # of all
    assert seconds_left([one, two, far], took) == 99.0
    assert seconds_left([("cora", "single", 2)], [*took, (two, 30.0)]) == 12.0  # not one of 1 rank
    assert seconds_left([], took) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (8.4, "8 s"),
        (89.0, "89 s"),
        (100.0, "2 min"),
        (5300.0, "88 min"),
        (5400.0, "1 h 30 min"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_how_long_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_how_long_a_recorded_run_took() -> None:
    record = made_records.run(
        started_at="2026-01-02T03:04:05.500000+00:00",
        finished_at="2026-01-02T03:05:05.000000+00:00",
    )
    assert recorded_seconds(record) == 59.5


@pytest.fixture
def fake() -> Turn:
    """Find the first run of `horovod` on 2 ranks."""
    return next(turn for turn in in_order(PLAN) if turn.launch == Launch("horovod", 2))


def programmed(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    def command(self: Launch, flags: list[str]) -> list[str]:
        return [sys.executable, "-c", program, *flags]

    monkeypatch.setattr(Launch, "command", command)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("import sys; print('error: no room'); sys.exit(2)", "no room"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "it ended well but left no record that can be used"),
    ],
)
def test_a_run_that_dies_without_a_record_gets_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: Turn, program: str, reason: str
) -> None:
    programmed(monkeypatch, program)
    outcome = take_turn(fake, tmp_path)
    (record,), problems = read_records(tmp_path / fake.place)
    assert problems == []
    assert (record.status, record.error, outcome.error) == ("failed", reason, reason)
    assert (record.strategy, record.world_size, record.dataset.name) == ("horovod", 2, "cora")
    assert (record.config["epochs"], record.config["dataset"]) == (4, "cora")
    assert record.launch_command.startswith("python -c ")
    assert shlex.split(record.launch_command)[3:5] == ["--dataset", "cora"]
    assert record.epochs == [] and recorded_seconds(record) > 0
    assert (tmp_path / fake.place / LOG).exists()
    assert result_in(tmp_path / fake.place) == record


def test_a_good_run_takes_the_place_of_those_that_were_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: Turn
) -> None:
    """A failed one before it stays in the records."""
    folder = tmp_path / fake.place
    write_record(made_records.run(status="interrupted", error="stopped"), folder)
    failed = write_record(made_records.run(status="failed", error="no number"), folder)
    good = write_record(made_records.run("horovod", 2), tmp_path / "elsewhere")
    programmed(monkeypatch, f"import shutil; shutil.copy({str(good)!r}, {str(folder)!r})")
    outcome = take_turn(fake, tmp_path)
    assert (outcome.error, outcome.record.status) == (None, "ok")
    assert sorted(file.name for file in folder.iterdir()) == sorted([failed.name, good.name])
