"""The registry of strategies: each can be started, and the report claims no more than holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnn_core.config import OPTIONS
from gnn_core.deploy.programs import TRAINERS
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.rounds import comparisons
from gnn_core.report.rows import rows_of
from gnn_core.report.sentences import answers, verdicts
from gnn_core.report.tables.agreement import curves_table
from gnn_core.strategies import STRATEGIES, Strategy, keras_strategies, order_of
from gnn_core.sweep import __main__ as sweep
from gnn_core.sweep.launches import chosen
from tests.unit.made_records import run

ROOT = Path(__file__).resolve().parents[2]
SERVER = Strategy(
    name="param_server",
    framework="torch",
    program="baselines/single.py",
    help="asynchronous",
    single="single",
    launcher=("mpirun", "-np", "{ranks}"),
    same_curve=False,
)


@pytest.fixture
def with_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A strategy whose loss curve is not that of one process."""
    monkeypatch.setitem(STRATEGIES, SERVER.name, SERVER)
    yield


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_what_an_entry_names_is_there(strategy: Strategy) -> None:
    assert STRATEGIES[strategy.name] is strategy
    assert strategy.framework in ("torch", "keras")
    for program in filter(None, (strategy.program, strategy.probe)):
        assert (ROOT / program).is_file()
    base = STRATEGIES[strategy.single]
    assert base.is_single and base.framework == strategy.framework and not base.launcher
    flags = {option.flag for option in OPTIONS.values()}
    assert {*strategy.refuses, *strategy.arguments} <= flags
    assert not strategy.refuses.keys() & strategy.arguments.keys()
    assert any("{ranks}" in word for word in strategy.launcher) == bool(strategy.launcher)
    assert not strategy.controllers or strategy.launcher


def test_words_are_those_that_a_user_types() -> None:
    typed = {name: " ".join(one.words(3)) for name, one in STRATEGIES.items()}
    assert typed == {
        "single": "python baselines/single.py",
        "horovod": "horovodrun -np 3 python horovod_gnn/train.py",
        "ddp": "torchrun --standalone --nproc-per-node 3 baselines/ddp.py",
        "one": "python tf_mirrored/train.py --strategy one",
        "mirrored": "python tf_mirrored/train.py --strategy mirrored --replicas 3",
        "multiworker": "mpirun -np 3 python tf_mirrored/train.py --strategy multiworker",
        "param-server": "python baselines/param_server.py --workers 3",
    }


def test_probes_are_started_by_the_launcher_of_the_strategy() -> None:
    assert STRATEGIES["ddp"].probe_words(2)[-2:] == ["2", "baselines/ddp_probe.py"]
    with pytest.raises(ValueError, match="expected a strategy with a probe, got single"):
        STRATEGIES["single"].probe_words(2)


def test_the_order_of_tables_is_that_of_the_registry() -> None:
    assert [order_of(name) for name in STRATEGIES] == list(range(len(STRATEGIES)))
    assert [one.strategy for one in chosen(None, [2])] == list(STRATEGIES)


def test_keras_and_jobs_have_the_strategies_that_fit() -> None:
    assert keras_strategies() == ("one", "mirrored", "multiworker")
    assert list(TRAINERS) == ["horovod", "ddp", "multiworker"]


def test_the_help_of_a_sweep_names_every_strategy() -> None:
    assert f"strategies: [{', '.join(STRATEGIES)}]" in (sweep.__doc__ or "")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_record_has_a_controller_of_its_strategy(strategy: str) -> None:
    for controller in (*STRATEGIES[strategy].controllers, None):
        assert run(strategy, controller=controller).controller == controller
    with pytest.raises(ValueError, match=f"controller: expected one of .* of {strategy}"):
        run(strategy, controller="smoke")
    with pytest.raises(ValueError, match="controller: expected one of"):
        run("horovod", controller="nccl")


def curve(strategy: str, ranks: int = 1, accuracy: float = 0.8, **changes: Any) -> RunRecord:
    return run(strategy, ranks, 8.0 / ranks, accuracy, step_losses=[2.0, 1.0, 0.5], **changes)


def test_no_curve_is_compared_with_one_that_need_not_be_equal(with_server: None) -> None:
    both = [curve("single"), curve("param_server", 2)]
    table = curves_table([*both, curve("horovod", 2)])
    assert [row[3] for row in table.cells] == ["horovod"]
    assert "not compared: `param_server` trains on a loss curve of its own" in table.notes
    assert curves_table(both).cells == ()


@pytest.mark.parametrize("changes", [{"staleness": "2"}, {"compress": "topk:0.01"}])
def test_a_server_of_stale_or_compressed_gradients_has_a_curve_of_its_own(
    changes: dict[str, str],
) -> None:
    """And yet it does the same work: its speed-up and its seconds to the target are shown."""
    exact, other = curve("param-server", 2), curve("param-server", 2, config=changes)
    assert exact.same_curve and not other.same_curve
    table = curves_table([curve("single"), exact, other])
    assert [row[3] for row in table.cells] == ["param-server"]
    assert "not compared: `param-server` trains on a loss curve of its own" in table.notes
    rows = {row.same_curve: row for row in rows_of([curve("single"), exact, other])}
    assert rows[False].work == rows[True].work


def test_no_accuracy_of_it_is_called_equal(with_server: None) -> None:
    both = [curve("single"), curve("param_server", 2)]  # of the same accuracy, to the last digit
    (comparison,) = comparisons(both)
    said = "\n".join(verdicts(comparison))
    assert "agree" not in said
    assert "`param_server` at 2 ranks is not compared" in said
    cost = answers(both)["cora"][1].text
    assert "Nothing" not in cost and "othing" not in cost
    assert cost.startswith("80.00 %, where `single` at 1 rank has 80.00")
    known = {**STRATEGIES, SERVER.name: dataclasses.replace(SERVER, same_curve=True)}
    STRATEGIES.update(known)  # the fixture takes it out again
    (comparison,) = comparisons(both)
    assert "agree: all 2" in "\n".join(verdicts(comparison))
    assert "**Nothing**" in answers(both)["cora"][1].text


@pytest.mark.parametrize("name", ["runs", "bars"])
def test_figures_have_a_colour_for_it(with_server: None, name: str) -> None:
    figures = pytest.importorskip(f"gnn_core.report.figures.{name}", exc_type=ImportError)
    assert figures.strategy_colour("param_server") not in map(
        figures.strategy_colour, list(STRATEGIES)[:-1]
    )


def test_the_distance_of_its_curve_is_not_drawn(with_server: None) -> None:
    runs = pytest.importorskip("gnn_core.report.figures.runs", exc_type=ImportError)
    near = [curve("single"), curve("horovod", 2)]
    assert len(runs.loss_curves(near).axes) == 1  # equal to the last digit: nothing to draw
    apart = dataclasses.replace(curve("horovod", 2), step_losses=[2.0, 1.0, 0.75])
    assert len(runs.loss_curves([near[0], apart]).axes) == 2
    other = dataclasses.replace(curve("param_server", 2), step_losses=[2.0, 1.0, 0.75])
    assert len(runs.loss_curves([near[0], other]).axes) == 1
