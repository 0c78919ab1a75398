"""What a report says first: the fastest, its cost in accuracy, how it scales, what to do next."""

from __future__ import annotations

from gnn_core.report.answers import answers, start_command
from tests.unit.made_records import CLUSTER, run


def told(*records) -> dict[str, str]:  # type: ignore[no-untyped-def]
    (found,) = answers(records).values()
    return {one.question: one.text for one in found}


FASTEST, COST, SCALING, NEXT = (
    "Which is fastest here?", "What does that cost in accuracy?", "How does it scale?",
    "What to run next?",
)  # fmt: skip


def test_a_speed_up_that_costs_nothing() -> None:
    found = told(run(), run("horovod", 2, 5.0, machine=CLUSTER | {"cores_available": 2}))
    assert "`horovod` at 2 ranks: **5.00 s per epoch**, 1.60 times as fast" in found[FASTEST]
    assert found[COST].startswith("**Nothing**: 80.00 %")
    assert "`horovod` at 2 ranks 1.60 times, 25 % of an epoch" in found[SCALING]
    assert "`horovodrun -np 4 python horovod_gnn/train.py --dataset cora`" in found[NEXT]
    assert "larger steps" in found[NEXT]
    assert "more seeds than 1" in found[NEXT]


def test_what_is_lost_is_said() -> None:
    assert "**Loses 5.00 points**" in told(run(), run("horovod", 2, 5.0, 0.75))[COST]
    assert "0.50 points below" in told(run(), run("horovod", 2, 5.0, 0.795))[COST]
    assert "0.50 points above" in told(run(), run("horovod", 2, 5.0, 0.805))[COST]
    assert "**Gains 5.00 points**" in told(run(), run("horovod", 2, 5.0, 0.85))[COST]
    assert told(run(), run("horovod", 2, 5.0, None))[COST].startswith("Unknown")
    assert told(run("horovod", 2, 5.0))[COST].startswith("Unknown")


def test_one_process_may_be_the_fastest() -> None:
    found = told(run(), run("horovod", 2, 9.0))
    assert "`single` at 1 rank: **8.00 s per epoch**; more ranks do not pay" in found[FASTEST]
    assert "`horovod` at 2 ranks 0.89 times" in found[SCALING]
    assert "Stay with one process (`python baselines/single.py --dataset cora`)" in found[NEXT]


def test_ranks_that_share_cores_are_no_advice() -> None:
    found = told(run(), run("horovod", 4, 5.0))
    assert "no speed-up that counts" in found[SCALING]
    assert found[NEXT].startswith("The same where each rank has a core of its own")


def test_a_run_alone() -> None:
    found = told(run())
    assert "nothing else to compare it with" in found[FASTEST]
    assert found[SCALING].startswith("Unknown")


def test_no_data_set_without_a_run_that_was_timed() -> None:
    assert answers([run(status="failed", error="x", epochs=[])]) == {}


def test_commands_are_those_of_the_readme() -> None:
    assert start_command("multiworker", 2, "--seed 1") == (
        "mpirun -np 2 python tf_mirrored/train.py --strategy multiworker --seed 1"
    )
