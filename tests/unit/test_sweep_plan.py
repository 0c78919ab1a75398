"""Plans: what a file says, what is filled in; all its mistakes are reported in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.config import UsageError, parse_config
from gnn_core.settings.flags import write_flags
from gnn_core.strategies import STRATEGIES
from gnn_core.sweep.launches import Launch
from gnn_core.sweep.plan import DataSet, Plan, read_plan

ROOT = Path(__file__).resolve().parents[2]
Read = Callable[[str], Plan]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a plan out of its text."""

    def read_text(text: str) -> Plan:
        file = tmp_path / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        return read_plan(file)

    return read_text


def test_an_empty_plan_has_the_defaults(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records go below the working folder, under the plan's own name."""
    monkeypatch.chdir(tmp_path)
    assert read("") == Plan(
        strategies=tuple(STRATEGIES),
        ranks=(1, 2),
        datasets=(DataSet("synthetic", {}),),
        seeds=(0,),
        repeats=3,
        epochs=4,
        threads=1,
        scaling="strong",
        local_batch_size=None,
        flags={},
        records=tmp_path / "results" / "sweeps" / "mine",
    )


def test_the_settings_of_a_run_and_who_beats_whom(read: Read) -> None:
    plan = read(
        "datasets: [cora, {name: cit-hepth, task: link, epochs: 10, hidden: 32,\n"
        " hide-targets: false}]\n"
        "epochs: 3\nthreads: 2\nflags: {hidden: 64, lr: 1e-3, fanouts: 5}\n"
    )
    cora, links = plan.datasets
    one = Launch("single", 1)
    settings = plan.settings(cora, one, 7)
    assert (settings["epochs"], settings["eval_every"], settings["seed"]) == (3, 3, 7)
    assert (settings["hidden"], settings["lr"], settings["threads"]) == (64, 0.001, 2)
    settings = plan.settings(links, one, 7)
    assert (settings["epochs"], settings["eval_every"], settings["hidden"]) == (10, 10, 32)
    config = parse_config(write_flags(settings), "sweep")
    assert (config.task, config.lr, config.hide_targets) == ("link", 0.001, False)
    assert config.fanouts == (5,)
    assert cora.label == "cora"
    assert links.label == "cit-hepth task=link epochs=10 hidden=32 hide_targets=off"


def test_flags_may_be_written_as_they_are_typed(read: Read) -> None:
    as_mapping = read("flags: {hidden: 64, fanouts: [-1, -1], verify: true, eval_every: 2}")
    as_words = read("flags: [--hidden 64, --fanouts, '-1,-1', --verify, --eval-every, 2]")
    assert as_mapping.flags == as_words.flags
    assert as_mapping.flags["fanouts"] == (-1, -1)
    run = as_words.settings(as_words.datasets[0], Launch("single", 1), 0)
    assert run["eval_every"] == 2  # said by the plan, instead of at the end alone


def test_weak_scaling_lets_the_global_batch_grow_with_the_ranks(read: Read) -> None:
    plan = read("scaling: weak\nlocal_batch_size: 64\nranks: [4, 1]\nstrategies: [ddp, single]\n")
    batches = {
        (one.strategy, one.ranks): plan.settings(plan.datasets[0], one, 0)["global_batch_size"]
        for one in plan.launches
    }
    assert batches == {("single", 1): 64, ("ddp", 1): 64, ("ddp", 4): 256}
    strong = read("ranks: [1, 4]")
    assert "global_batch_size" not in strong.settings(strong.datasets[0], Launch("ddp", 4), 0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stratgies: [ddp]", "unknown key 'stratgies', did you mean strategies?"),
        ("xyzzy: 1", "unknown key 'xyzzy', expected some of strategies, ranks"),
        ("ranks: [1]\nranks: [2]", "ranks: given twice"),
        ("strategies: [horovd]", "strategies: unknown name 'horovd', did you mean horovod?"),
        ("strategies: ddp", "strategies: expected a list of names, some of single, "),
        ("strategies: []", "strategies: expected a list of names"),
        ("ranks: [0]", "ranks: expected a list of whole numbers from 1, such as [1, 2], got [0]"),
        ("ranks: [2, 2]", "ranks: 2 is given twice"),
        ("seeds: [true]", "seeds: expected a list of whole numbers from 0"),
        ("repeats: 0", "repeats: expected a whole number from 1, got 0"),
        ("epochs: 1", "epochs: expected a whole number from 2, got 1"),
        ("threads: many", "threads: expected a whole number from 1, got 'many'"),
        ("scaling: weka", "scaling: expected one of strong, weak, got 'weka'"),
        ("scaling: weak", "scaling: weak needs local_batch_size"),
        ("local_batch_size: 8", "local_batch_size: only scaling: weak uses it"),
        ("scaling: weak\nlocal_batch_size: 0", "local_batch_size: expected a whole number from 1"),
        (
            "scaling: weak\nlocal_batch_size: 8\nflags: {global_batch_size: 8}",
            "flags: global_batch_size: with scaling: weak it is local_batch_size times the ranks",
        ),
        ("datasets: [3]", "datasets: expected a name or {name: cora, ...}, got 3"),
        ("datasets: [{task: link}]", "datasets: expected a name or {name: cora, ...}"),
        ("datasets: [cora, cora]", "datasets: cora is given twice"),
        ("datasets: [{name: cora, epochs: 1}]", "datasets: cora: epochs: expected a whole number"),
        ("datasets: [{name: cora, hiden: 1}]", "unknown setting 'hiden', did you mean hidden?"),
        ("datasets: [{name: cora, seed: 1}]", "datasets: cora: seed: the plan has the key seeds"),
        ("datasets: [{name: cora, hidden: x}]", "datasets: cora: hidden: expected a whole number"),
        ("flags: {epochs: 5}", "flags: epochs: the plan has the key epochs"),
        ("flags: {records: x}", "flags: records: the plan has the key records"),
        ("flags: {strategy: one}", "flags: strategy: the plan has the keys strategies and ranks"),
        ("flags: {resume: true}", "flags: resume: it belongs to a single run"),
        ("flags: {pin: true}", "flags: pin: not every launch has it"),
        ("flags: [--hiden, 5]", "flags: unknown flag --hiden, did you mean --hidden?"),
        ("flags: [--config, x.yaml]", "flags: --config: write what it says into the plan"),
        ("flags: [--help]", "flags: --help is no setting"),
        ("flags: 5", "flags: expected settings such as {hidden: 64}, got 5"),
        ("flags: {hidden: 0}", "--hidden: expected a whole number at least 1, got 0"),
        ("flags: {negatives: 3}", "--negatives: only --task link uses it"),
        ("flags: {global_batch_size: 1}", "expected at least one target per rank, got 1 for 2"),
        ("records: 5", "records: expected a text, got 5"),
        ("- a", "expected lines of `key: value`"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_reported_in_one_line(read: Read, text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert "mine.yaml: " in str(caught.value)


def test_all_mistakes_are_reported_at_once_and_each_once(read: Read) -> None:
    """A wrong setting of every run is one mistake, however many data sets and launches."""
    with pytest.raises(UsageError) as caught:
        read("repeats: 0\nscalling: weak\ndatasets: [cora, pubmed]\nflags: {hidden: 0, lr: -1}")
    reported = str(caught.value)
    for name in ("repeats: ", "'scalling'", "--hidden: ", "--lr: "):
        assert reported.count(name) == 1


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read .*none\.yaml: No such file"):
        read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted((ROOT / "results" / "plans").glob("*.yaml")))
def test_the_plans_that_come_along_can_be_read(file: Path) -> None:
    assert read_plan(file).launches
