"""RunConfig: the rules of a run, its identity and its description."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from gnn_core.config import OPTIONS, RunConfig, UsageError


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--epochs 0", "--epochs: expected a whole number at least 1, got 0"),
        ("--epochs -3", "--epochs: expected a whole number at least 1, got -3"),
        ("--layers 0", "--layers: expected a whole number at least 1 and at most 64, got 0"),
        ("--layers 1000000000", "--layers: expected a whole number at least 1 and at most 64"),
        ("--hidden 0", "--hidden: expected a whole number at least 1"),
        ("--fanouts 10,0", "--fanouts: a fan-out of 0 draws no neighbours"),
        ("--fanouts 10,-2", "or at least 1, got -2"),
        ("--layers 3 --fanouts 10,5", "--fanouts: expected 3 entries, one per layer, got 2"),
        ("--dropout 1", "--dropout: expected a finite number at least 0 and below 1, got 1.0"),
        ("--dropout -0.1", "--dropout: expected a finite number at least 0 and below 1"),
        ("--input-dropout 1.5", "--input-dropout: expected a finite number at least 0"),
        ("--lr 0", "--lr: expected a finite number above 0, got 0.0"),
        ("--lr -1e-3", "--lr: expected a finite number above 0, got -0.001"),
        ("--lr nan", "--lr: expected a finite number above 0, got nan"),
        ("--lr inf", "--lr: expected a finite number above 0, got inf"),
        ("--weight-decay -inf", "--weight-decay: expected a finite number at least 0"),
        ("--weight-decay 1e400", "--weight-decay: expected a finite number at least 0"),
        ("--seed -1", "--seed: expected a whole number at least 0"),
        (f"--seed {2**63}", "--seed: expected a whole number at least 0 and below"),
        ("--global-batch-size 0", "--global-batch-size: expected a whole number at least 1"),
        ("--threads 0", "--threads: expected a whole number at least 1"),
        ("--prefetch -1", "--prefetch: expected a whole number at least 0"),
        ("--patience -1", "--patience: expected a whole number at least 0"),
        ("--eval-every 0", "--eval-every: expected a whole number at least 1"),
        ("--world-size 0", "--world-size: expected a whole number at least 1"),
        ("--warmup-epochs 5 --epochs 5", "fewer warm-up epochs than the 5 epochs"),
        ("--eval-fanouts 5,5", "--eval-fanouts: only --eval sampled uses it, but --eval is ex"),
        ("--eval-nodes 5", "--eval-nodes: only --eval sampled uses it, but --eval is ex"),
        ("--eval sampled --eval-fanouts 5", "--eval-fanouts: expected 2 entries"),
        ("--lr-gamma 0.5", "--lr-gamma: only --lr-schedule step uses it, but --lr-schedule is"),
        ("--lr-step-epochs 3 --lr-schedule cosine", "but --lr-schedule is cosine"),
        ("--lr-schedule step --lr-gamma 1.5", "--lr-gamma: expected a finite number above 0"),
        ("--resume", "--resume: it needs --checkpoint-dir"),
        ("--checkpoint-every-steps 5", "--checkpoint-every-steps: it needs --checkpoint-dir"),
        ("--precision fp16", "--precision: expected one of fp32, bf16, fp64, got 'fp16', did"),
        ("--aggregator maen", "got 'maen', did you mean mean?"),
        ("--optimizer adamw", "got 'adamw', did you mean adam?"),
        ("--task links", "--task: expected one of node, link, got 'links', did you mean link"),
        ("--world-size 4 --global-batch-size 3", "got 3 for 4 ranks"),
    ],
)
def test_what_cannot_be_is_refused(complaint, argv: str, expected: str) -> None:
    message = complaint(*argv.split())
    assert expected in message
    assert message.count("; ") == 0, "one mistake must be told once"


@pytest.mark.parametrize(
    "argv",
    [
        "--dropout 0 --input-dropout 0",
        "--weight-decay 0",
        f"--seed {2**63 - 1}",
        "--prefetch 0 --patience 0 --warmup-epochs 0",
        "--warmup-epochs 4 --epochs 5",
        "--layers 1 --fanouts 1",
        "--layers 64",
        "--eval sampled --eval-fanouts -1,7",
        "--lr-schedule step --lr-step-epochs 3 --lr-gamma 1",
        "--checkpoint-dir c --checkpoint-every-steps 5 --resume",
        "--world-size 4 --global-batch-size 4",
    ],
)
def test_the_edge_of_what_is_allowed(parse, argv: str) -> None:
    parse(*argv.split())


def test_empty_text_is_no_name(complaint) -> None:
    assert "--dataset: expected a name or a path, got empty text" in complaint("--dataset", " ")


def test_every_problem_is_reported_at_once(complaint, yaml_file) -> None:
    path = yaml_file("hiden: 3\nthreads: many\ndropout: 2\n")
    argv = f"--config {path} --epohcs 3 --lr x --seed -1 --resume --hidden".split()
    message = complaint(*argv)
    reported = ["--hidden", "--epohcs", "--lr:", "'hiden'", "threads:", "dropout", "--seed", "--re"]
    assert [word for word in reported if word not in message] == []
    assert len(message.split("; ")) == len(reported)


def test_one_slip_is_not_reported_again_by_the_rules_it_touches(complaint) -> None:
    assert complaint("--fanouts", "x", "--layers", "3").startswith("--fanouts: expected whole")
    message = complaint("--lr-schedule", "stpe", "--lr-gamma", "0.5")
    assert "did you mean step?" in message
    assert "; " not in message


def test_the_message_is_the_same_on_every_rank(complaint) -> None:
    ignored = {"pin": "a", "threads": "b", "prefetch": "c", "device": "d"}
    argv = ["--device", "cpu", "--prefetch", "1", "--threads", "1", "--pin"]
    message = complaint(*argv, **ignored)
    assert re.findall(r"ignores it: (\w)", message) == ["a", "b", "c", "d"]


def test_making_one_by_hand_is_checked_too() -> None:
    with pytest.raises(UsageError, match="--epochs: expected a whole number, got 2.5; --lr: "):
        RunConfig(epochs=2.5, lr=-1.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--epochs: expected a whole number, got True"):
        RunConfig(epochs=True)
    with pytest.raises(UsageError, match="--dataset: expected text, got nothing"):
        RunConfig(dataset=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--fanouts: expected 5 entries"):
        dataclasses.replace(RunConfig(), layers=5)  # the fan-outs are still two


def test_any_number_that_the_batch_feeds() -> None:
    config = RunConfig(global_batch_size=4)
    config.validate_world(1)
    config.validate_world(4)
    with pytest.raises(UsageError, match="--global-batch-size: .* got 4 for 5 ranks"):
        config.validate_world(5)


def test_another_number_than_the_one_that_is_meant() -> None:
    config = RunConfig(world_size=4)
    config.validate_world(4)
    with pytest.raises(UsageError) as caught:
        config.validate_world(1)
    assert "this run was meant for 4 ranks but 1 started" in str(caught.value)
    assert "`horovodrun -np 4 python ...`" in str(caught.value)


def test_json_and_back(parse) -> None:
    config = parse("--fanouts", "3,-1", "--lr", "0.1", "--eval", "sampled")
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert set(config.to_dict()) == set(OPTIONS)


def test_an_unknown_setting_does_not_come_back() -> None:
    with pytest.raises(UsageError, match="unknown setting 'hiden', did you mean hidden"):
        RunConfig.from_dict({"hiden": 3})


@pytest.mark.parametrize(
    "change",
    [
        "--records elsewhere",
        "--prefetch 0",
        "--threads 4",
        "--pin",
        "--world-size 2",
        "--checkpoint-dir c --resume",
        "--progress off",
        "--quiet",
        "--dry-run",
        "--epochs 99",
        "--eval sampled",
        "--eval-every 3",
        "--device cpu",
        "--data-root d",
        "--verify",
        "--patience 9",
        "--dataset synthetic",
        "--layers 2",
    ],
)
def test_the_digest_is_equal_where_the_curve_is(parse, change: str) -> None:
    assert parse(*change.split()).digest() == parse().digest()


@pytest.mark.parametrize(
    "change",
    [
        "--dataset synthetic:papers=1e4",
        "--layers 3",
        "--hidden 8",
        "--fanouts 5,5",
        "--aggregator sum",
        "--dropout 0.1",
        "--input-dropout 0.1",
        "--global-batch-size 8",
        "--optimizer sgd",
        "--lr 1",
        "--weight-decay 1",
        "--lr-schedule cosine",
        "--lr-schedule step",
        "--warmup-epochs 1",
        "--scale-lr",
        "--seed 1",
        "--precision bf16",
        "--table-dtype fp16",
    ],
)
def test_the_digest_differs_where_the_curve_does(parse, change: str) -> None:
    assert parse(*change.split()).digest() != parse().digest()


def test_the_length_of_the_run_bends_a_cosine(parse) -> None:
    short, long = (parse("--lr-schedule", "cosine", "--epochs", epochs) for epochs in ("5", "6"))
    assert short.digest() != long.digest()


def test_the_digest_is_a_sha256(parse) -> None:
    assert re.fullmatch("[0-9a-f]{64}", parse().digest())


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({}, "4bd31d91a657b3b6cbb45a956f517f0889027933bc79f768817d58cc6aabada5"),
        ({"dataset": "cora"}, "2371b3576b64bdef1b887b76c7b11376188cb6fc66673a37993a34aa2ee07f63"),
        (
            {
                **{"dataset": "cora", "task": "link", "predictor": "mlp", "link_loss": "bce"},
                **{"negatives": 10, "negatives_kind": "uniform", "negatives_pool": 0},
                **{"hidden": 256, "lr": 0.01, "weight_decay": 0.0},
            },
            "c938b3222735546de4caa0c92a92b4456392eb51b57e88c5f5319262d1d47e61",
        ),
    ],
)
def test_records_from_before_there_was_a_model_keep_their_digest(settings, digest: str) -> None:
    config = RunConfig(**settings)
    assert config.digest() == digest
    older = config.to_dict()
    assert older.pop("model") == "sage"
    assert RunConfig.from_dict(older) == config


def test_nothing_can_be_changed_afterwards(parse) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().epochs = 3  # type: ignore[misc]


def test_an_elastic_run_is_bound_to_no_number_of_ranks() -> None:
    RunConfig(dataset="cora").validate_elastic()
    with pytest.raises(UsageError) as raised:
        RunConfig(dataset="cora", world_size=2, scale_lr=True).validate_elastic()
    reported = str(raised.value)
    assert "--world-size: ranks may go and join" in reported and "--scale-lr: ranks may" in reported
