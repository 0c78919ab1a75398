"""What a report says first: the fastest, its cost in accuracy, how it scales, what to do next."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import Any

import pytest

from gnn_core.config import RunConfig, parse_config
from gnn_core.measure.run_record import RunRecord
from gnn_core.report.sentences import answers, start_command
from gnn_core.strategies import STRATEGIES
from tests.unit.made_records import CLUSTER, MACHINE, run

LINK = RunConfig(dataset="cora", task="link").to_dict()


def reported(*records) -> dict[str, str]:  # type: ignore[no-untyped-def]
    (found,) = answers(records).values()
    return {one.question: one.text for one in found}


def longer(one: RunRecord) -> RunRecord:
    """The run on a machine of many cores, with epochs of 1000 targets of the same seconds."""
    epochs = [dataclasses.replace(part, num_targets=1000) for part in one.epochs]
    return dataclasses.replace(one, machine=CLUSTER, epochs=epochs)


def commands(text: str) -> list[str]:
    """Every command in an answer."""
    return [code for code in re.findall("`([^`]*)`", text) if ".py" in code]


FASTEST, COST, SCALING, NEXT = (
    "Which is fastest here?",
    "What does that cost in accuracy?",
    "How does it scale?",
    "What to run next?",
)


def test_a_speed_up_that_costs_nothing() -> None:
    made = (run(), run("horovod", 2, 5.0))
    found = reported(*(longer(one) for one in made))
    assert "`horovod` at 2 ranks: **5.00 s per epoch**, 1.60 times as fast" in found[FASTEST]
    assert found[COST].startswith("**Nothing**: 80.00 %")
    assert "`horovod` at 2 ranks 1.60 times, 25 % of an epoch" in found[SCALING]
    assert "`horovodrun -np 4 python horovod_gnn/train.py --dataset cora`" in found[NEXT]
    assert "larger steps" in found[NEXT]
    assert "train.py --dataset cora --global-batch-size 280`" in found[NEXT]
    assert "more seeds than 1" in found[NEXT]


def test_what_is_lost_is_said() -> None:
    assert "**Loses 5.00 points**" in reported(run(), run("horovod", 2, 5.0, 0.75))[COST]
    assert "0.50 points below" in reported(run(), run("horovod", 2, 5.0, 0.795))[COST]
    assert "0.50 points above" in reported(run(), run("horovod", 2, 5.0, 0.805))[COST]
    assert "**Gains 5.00 points**" in reported(run(), run("horovod", 2, 5.0, 0.85))[COST]
    assert reported(run(), run("horovod", 2, 5.0, None))[COST].startswith("Unknown")
    assert reported(run("horovod", 2, 5.0))[COST].startswith("Unknown")


def test_one_process_may_be_the_fastest() -> None:
    found = reported(run(), run("horovod", 2, 9.0))
    assert "`single` at 1 rank: **8.00 s per epoch**; more ranks do not pay" in found[FASTEST]
    assert "`horovod` at 2 ranks 0.89 times" in found[SCALING]
    assert "Stay with one process (`python baselines/single.py --dataset cora`)" in found[NEXT]


def test_ranks_that_share_cores_are_no_advice() -> None:
    found = reported(run(), run("horovod", 4, 5.0))
    assert "no speed-up that counts" in found[SCALING]
    assert found[NEXT].startswith("The same where each rank has a core of its own")


def test_a_run_alone() -> None:
    found = reported(run())
    assert "nothing else to compare it with" in found[FASTEST]
    assert found[SCALING].startswith("Unknown")


def test_no_data_set_without_a_run_that_was_timed() -> None:
    assert answers([run(status="failed", error="x", epochs=[])]) == {}


def test_commands_are_those_of_the_readme() -> None:
    assert start_command("multiworker", 2, "--seed 1") == (
        "mpirun -np 2 python tf_mirrored/train.py --strategy multiworker --seed 1"
    )


def test_a_batch_is_never_larger_than_the_split() -> None:
    """140 targets are one batch of the recipe of cora: twice as many are not there."""
    found = reported(run(), run("horovod", 2, 5.0))
    assert "25 % of an epoch communicating" in found[SCALING]
    assert "larger" not in found[NEXT] and "--global-batch-size" not in found[NEXT]


def test_ranks_are_never_more_than_the_cores() -> None:
    both = [run(), run("horovod", 2, 5.0)]
    found = reported(*both)[NEXT]
    assert "`horovodrun -np 2 python horovod_gnn/train.py --dataset cora`" in found
    assert "twice the ranks need a machine with more cores" in found
    four = {**MACHINE, "cores_available": 4}
    wide = [dataclasses.replace(one, machine=four) for one in both]
    assert "-np 4 " in reported(*wide)[NEXT]
    threads = [run(machine=four, config={"threads": 2})]
    threads += [run("horovod", 2, 5.0, machine=four, config={"threads": 2})]
    assert "-np 4 " not in reported(*threads)[NEXT]


def test_ranks_on_several_hosts_get_no_command_for_one() -> None:
    spread = {"hosts": ["a", "b"], "ranks_per_host": [1, 1], "machine": CLUSTER}
    assert commands(reported(run(machine=CLUSTER), run("horovod", 2, 5.0, **spread))[NEXT]) == []


def test_settings_of_another_program_get_no_command() -> None:
    assert commands(reported(run("one", config={"model": "gcn"}))[NEXT]) == []


@pytest.mark.parametrize(
    "config",
    [{}, {"hidden": 32, "dropout": 0.0, "epochs": 3}, {"fanouts": [5, 5], "scale_lr": False}, LINK],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_advised_command_is_taken_by_its_program(
    strategy: str, config: dict[str, Any]
) -> None:
    """And trains as the run did whose success is the reason for the advice."""
    base = "one" if strategy in ("one", "mirrored", "multiworker") else "single"
    made = [run(base, config=config)]
    made += [run(strategy, 1 if strategy == base else 2, 5.0, config=config)]
    best = made[1]
    found = commands(reported(*map(longer, made))[NEXT])
    assert found
    for command in found:
        launcher, _, flags = command.partition(".py")
        ranks = re.search(
            r"-np (\d+)|--nproc-per-node (\d+)|--replicas (\d+)|--workers (\d+)", command
        )
        asked = parse_config(shlex.split(flags), strategy, STRATEGIES[strategy].refuses)
        asked.validate_world(int(next(filter(None, ranks.groups()))) if ranks else 1)
        said = ("strategy", "replicas", "workers")  # as the command says it
        expected = {**best.config, **{name: getattr(asked, name) for name in said}}
        if "--global-batch-size" in command:
            expected["global_batch_size"] = 2 * best.config["global_batch_size"]
            assert asked.global_batch_size <= 1000
        assert asked.to_dict() == expected


def test_a_data_set_with_both_tasks_is_answered_for_each() -> None:
    found = answers([run(), run(config=LINK), run("horovod", 2, 5.0, config=LINK)])
    assert list(found) == ["cora, node classification", "cora, link prediction"]
    assert "--task link" in found["cora, link prediction"][3].text


def test_the_settings_that_are_answered_for_are_named() -> None:
    found = answers([run(config={"hidden": 8}), run(), run("horovod", 2, 5.0)])
    assert list(found) == [f"cora, hidden={run().config['hidden']}"]


def test_ranks_that_do_not_pay_are_explained() -> None:
    found = reported(longer(run()), longer(run("horovod", 2, 9.0)))[SCALING]
    assert "2 ranks of `horovod` do not pay: 0.89 times as fast as `single`" in found
    assert "25 % of an epoch is communication" in found
