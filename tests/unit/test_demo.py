"""The sentences below the demo's table: each says what its two records say, good or bad."""

from __future__ import annotations

import dataclasses

import pytest

from gnn_core.measure.run_record import RunRecord
from gnn_core.report.demo import commands, main, sentences
from gnn_core.usage import UsageError
from tests.unit.made_records import MACHINE, epoch, run, used

LOSSES = [2.0 - 0.1 * step for step in range(12)]


def pair(seconds: float = 5.0, communicate: float = 0.25, **changes: object) -> list[RunRecord]:
    """A single process of 8 s an epoch, and two ranks of so many seconds."""
    epochs = [epoch(0, 100.0), epoch(1, seconds, communicate), epoch(2, seconds, communicate)]
    alone = run(step_losses=LOSSES)
    alone = dataclasses.replace(alone, epochs=[epoch(0, 100.0, 0.0), epoch(1, 8.0, 0.0)])
    settings = {"step_losses": LOSSES, "epochs": epochs, "resources": [], **changes}
    return [alone, run("horovod", 2, **settings)]  # type: ignore[arg-type]


def reported(records: list[RunRecord], beginning: str) -> str:
    """The one sentence that begins like that."""
    (found,) = [one for one in sentences(records) if one.startswith(beginning)]
    return found


def test_two_ranks_that_pay() -> None:
    records = pair()
    assert "over 12 steps no training loss of 2 ranks differs" in reported(records, "Same curve: ")
    assert "80.00 % of the test nodes by one process, 80.00 % by 2" in reported(records, "Same acc")
    gained = reported(records, "Gained: 2 ranks were 1.60 times as fast")
    assert "an epoch took 5.00 s instead of 8.00 s" in gained and "80 % of the ideal 2" in gained
    assert "5000 ms instead of 8000 ms" in gained  # 140 targets are one step
    # 0.75 x 5.0 s x 2 ranks = 7.5 s of 8.0 s: nothing was lost there
    assert reported(records, "What limits it: ").startswith(
        "What limits it: 25 % of an epoch is comm"
    )
    assert "longer than" not in reported(records, "What limits it: ")


def test_what_was_lost_beside_communication() -> None:
    limits = reported(pair(seconds=6.0, communicate=0.1), "What limits it: ")  # 10.8 s of 8.0 s
    assert "10 % of an epoch" in limits and "the rest took 35 % longer than 1/2" in limits


def test_two_ranks_that_do_not_pay() -> None:
    assert "with 0.80 times the speed" in reported(pair(seconds=10.0), "Not gained: 2 ranks")


def test_a_machine_with_one_core() -> None:
    records = pair(machine={**MACHINE, "cores_available": 1}, seconds=9.0)
    assert "2 ranks share 1 core and take turns" in reported(records, "Why: ")


def test_a_busy_machine_explains_nothing() -> None:
    records = pair(resources=[used((1.0, 0.9)), used((0.5, 0.5))])
    assert "a rank got 0.50 of a core" in reported(records, "Do not trust these times: ")
    assert not any(one.startswith("What limits it") for one in sentences(records))


@pytest.mark.parametrize(("step", "apart"), [(0, 1e-3), (11, 0.05)])
def test_curves_that_are_not_the_same(step: int, apart: float) -> None:
    losses = [loss * (1 + apart * (at == step)) for at, loss in enumerate(LOSSES)]
    assert "please report it" in reported(pair(step_losses=losses), "Not the same curve: ")


def test_an_accuracy_that_is_not_the_same() -> None:
    other = pair(final={"test_accuracy": 0.75})
    assert "80.00 % of the test nodes by one process, 75.00 % by 2" in reported(other, "Accuracy: ")


def test_runs_that_cannot_be_compared() -> None:
    alone, together = pair()
    other = dataclasses.replace(together, config={**together.config, "hidden": 7})
    failed = dataclasses.replace(together, status="failed", error="it did")
    for records in ([alone], [together], [alone, other], [alone, failed]):
        with pytest.raises(UsageError, match="make demo makes both"):
            sentences(records)


def test_what_to_run_next_fits_the_machine() -> None:
    (last,) = pair(machine={**MACHINE, "cores_available": 6})[1:]
    assert commands(last)[0][0] == "horovodrun -np 6 python horovod_gnn/train.py --dataset cora"
    one_core = dataclasses.replace(last, machine={})
    assert commands(one_core)[0][0] == "horovodrun -np 2 python horovod_gnn/train.py --dataset cora"


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/no/such/folder"]) == 2
    assert capsys.readouterr().err.startswith("error: expected a folder or file of run records")


def test_of_more_than_two_runs_it_says_which_are_compared() -> None:
    """The newest two with equal settings, and not just the newest two."""
    records = [
        run("single", seconds=8.0),
        run("horovod", 2, 4.0),
        run("single", seconds=8.0, config={"hidden": 7}),
    ]
    first, *_ = sentences(records)
    assert first.startswith("Of 3 runs, compared are the newest two with equal settings: single")
    assert records[0].run_id[:8] in first and records[1].run_id[:8] in first
    assert not sentences(records[:2])[0].startswith("Of ")
