"""The command line: how it is read, what --help and --dry-run show."""

from __future__ import annotations

import pytest

from gnn_core.config import OPTIONS, RunConfig, UsageError, parse_config


def test_each_flag_reaches_its_field(parse) -> None:
    config = parse(
        *"--dataset cora --layers 3 --hidden 16 --fanouts 5,-1,2 --aggregator max".split(),
        *"--dropout 0.25 --lr 1e-3 --optimizer sgd --seed 7 --global-batch-size 32".split(),
        *"--precision bf16 --threads 2 --no-pin --scale-lr --records out".split(),
    )
    assert (config.dataset, config.layers, config.hidden) == ("cora", 3, 16)
    assert (config.fanouts, config.aggregator, config.dropout) == ((5, -1, 2), "max", 0.25)
    assert (config.lr, config.optimizer, config.seed) == (0.001, "sgd", 7)
    assert (config.global_batch_size, config.precision, config.threads) == (32, "bf16", 2)
    assert (config.pin, config.scale_lr, config.records) == (False, True, "out")


def test_nothing_given_is_a_whole_run(parse) -> None:
    config = parse()
    assert config.dataset == "synthetic"
    unset = {name for name in OPTIONS if getattr(config, name) is None}
    assert unset == {
        "data_root",
        "cache_dir",
        "memory_limit",
        "disk_cache",
        "lr_step_epochs",
        "lr_gamma",
        "eval_fanouts",
        "checkpoint_dir",
        "tensorboard",
        "metrics_textfile",
        "trace",
        "partitions",
        "world_size",
        "replicas",
        "hold_out",
        "held_out",
        "negatives",
        "negatives_kind",
        "negatives_pool",
        "edges_per_epoch",
        "link_loss",
        "predictor",
        "model_sha256",
        "coordinator",
        "secret_file",
        "journal",
        "replay",
    }


def test_the_last_of_two_equal_flags_holds(parse) -> None:
    assert parse("--epochs", "3", "--epochs", "4").epochs == 4


@pytest.mark.parametrize("argv", [("--fanouts", "-1,-1"), ("--fanouts=-1,-1",)])
def test_fanouts_may_begin_with_a_minus(parse, argv: tuple[str, ...]) -> None:
    assert parse(*argv).fanouts == (-1, -1)


def test_own_arguments_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--epochs", "3"])
    assert parse_config(None, "single").epochs == 3


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--epohcs 3", "unknown flag --epohcs, did you mean --epochs?"),
        ("--global_batch_size=3", "did you mean --global-batch-size?"),
        ("--no-resum", "did you mean --no-resume?"),
        ("--confg run.yaml", "did you mean --config?"),
        ("--zzz", "unknown flag --zzz"),
        ("--epoch 3", "unknown flag --epoch, did you mean --epochs?"),  # no abbreviations
        ("cora", "unexpected 'cora', every setting is a flag"),
        ("--lr", "--lr: expected a value after it, got none"),
        ("--threads=--", "--threads: expected a value after it, got --"),
        ("--lr --epochs 3", "--lr: expected a value after it, got none"),
        ("--resume=yes", "--resume: ignored explicit argument 'yes'"),
        ("--epochs three", "--epochs: expected a whole number, got 'three'"),
        ("--epochs 2.5", "--epochs: expected a whole number, got '2.5'"),
        ("--lr fast", "--lr: expected a number, got 'fast'"),
        ("--fanouts 10;5", "--fanouts: expected whole numbers with commas between"),
        ("--fanouts 10,,5", "--fanouts: expected whole numbers with commas between"),
        ("--fanouts=", "--fanouts: expected whole numbers with commas between"),
    ],
)
def test_a_misspelled_command_line_is_reported(complaint, argv: str, expected: str) -> None:
    assert expected in complaint(*argv.split())


def test_the_value_of_an_unknown_flag_is_not_a_second_mistake(complaint) -> None:
    assert complaint("--epohcs", "3") == "unknown flag --epohcs, did you mean --epochs?"


def test_a_flag_the_strategy_ignores_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(["--scale-lr"], "single", {"--scale-lr": "one process has one rank"})
    reason = "the single strategy ignores it: one process has one rank"
    assert str(caught.value) == f"--scale-lr: {reason}"


def test_also_out_of_the_file_and_also_when_it_equals_the_default(complaint, yaml_file) -> None:
    path = yaml_file("threads: 1\n")
    message = complaint("--config", path, threads="TensorFlow keeps its own")
    assert message.startswith("threads (--config): the horovod strategy ignores it")


def test_left_alone_it_is_no_problem(parse) -> None:
    assert parse(threads="why").threads == 1


def test_help_says_so(parse, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help", pin="ranks are placed by the cluster")
    text = " ".join(capsys.readouterr().out.split())
    assert "not with the horovod strategy: ranks are placed by the cluster" in text


def test_an_unknown_name_is_a_slip_of_the_program(parse) -> None:
    with pytest.raises(KeyError, match="no such flag, did you mean threads"):
        parse(thread="why")


def test_every_setting_with_its_value_and_origin(parse, yaml_file) -> None:
    config = parse("--config", yaml_file("dataset: cora\n"), "--layers", "3")
    rows = {flag: tuple(rest) for _, group in config.describe() for flag, *rest in group}
    assert rows["--dataset"] == ("cora", "file")
    assert rows["--layers"] == ("3", "flag")
    assert rows["--fanouts"] == ("-1,-1,-1", "derived")
    assert rows["--lr"] == ("0.01", "recipe cora")
    assert rows["--aggregator"] == ("mean", "default")
    assert rows["--checkpoint-dir"] == ("-", "default")
    assert rows["--pin"] == ("off", "default")
    assert OPTIONS.keys() - {flag[2:].replace("-", "_") for flag in rows} == {
        "hold_out",
        "held_out",
        "svd_width",
        "negatives",
        "negatives_kind",
        "negatives_pool",
        "shared_negatives",
        "hide_targets",
        "edges_per_epoch",
        "link_loss",
        "predictor",
        "predictor_layers",
        "candidates",
        "eval_edges",  # --task link
        "lr_step_epochs",
        "lr_gamma",
        "eval_fanouts",
        "eval_nodes",
        "checkpoint_every_steps",
        "resume",
        "start_timeout",
        "collective_timeout",  # --strategy multiworker
        "partition_topology",
        "fetch_window",
        "fetch_cache",
        "share_parts",  # --partitions
        "heads",
        "model_sha256",  # --model
    }


@pytest.mark.parametrize(
    ("argv", "listed", "left_out"),
    [
        ("--task link", "--negatives --predictor-layers --held-out", "--eval --eval-fanouts"),
        ("--task link --hold-out published", "--candidates", "--held-out"),
        ("--task node", "--eval", "--negatives --predictor-layers --hold-out"),
        ("--eval sampled", "--eval-fanouts --eval-nodes", "--eval-edges"),
        ("--lr-schedule step", "--lr-gamma --lr-step-epochs", ""),
        ("--lr-schedule cosine", "--warmup-epochs", "--lr-gamma --lr-step-epochs"),
        ("--checkpoint-dir c", "--resume --checkpoint-every-steps", ""),
        ("--strategy one", "--strategy", "--replicas --start-timeout --collective-timeout"),
        ("--strategy one --replicas 1", "--replicas", "--start-timeout"),  # given, so it is told
        ("--strategy multiworker", "--start-timeout --collective-timeout", "--replicas"),
    ],
)
def test_only_settings_that_apply_are_listed(parse, argv: str, listed: str, left_out: str) -> None:
    rows = {flag for _, group in parse(*argv.split()).describe() for flag, *_ in group}
    assert set(listed.split()) <= rows
    assert rows.isdisjoint(left_out.split())


def test_what_the_strategy_ignores_is_not_listed(parse) -> None:
    """Also of programs that wait for their ranks but know no --strategy."""
    config = parse(strategy="Keras only", replicas="Keras only")
    rows = {flag for _, group in config.describe() for flag, *_ in group}
    assert rows.isdisjoint({"--strategy", "--replicas"})
    assert {"--start-timeout", "--collective-timeout"} <= rows


def test_the_summary_has_a_line_for_each() -> None:
    lines = RunConfig(hidden=9, task="link").summary().splitlines()
    assert ["--hidden", "9", "given"] in [line.split() for line in lines]
    assert [line.strip() for line in lines if not line.startswith(" ")] == [
        "what to train on",
        "model",
        "link prediction (--task link)",
        "optimisation",
        "evaluation",
        "numbers and machine",
        "output",
        "launch",
        "parameter server",
    ]


def test_help_teaches(parse, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    before_flags = text[: text.index("--dataset NAME")]
    for example in (
        "horovodrun -np 4 python horovod_gnn/train.py",
        "mpirun -np 4",
        "python baselines/single.py",
        "--dry-run",
        "--resume",
        "--config run.yaml",
    ):
        assert example in before_flags
    words = " ".join(text.split())
    for option in OPTIONS.values():
        assert f"{option.flag}" in words
        assert option.help in words
        if option.per_data_set:
            assert f"{option.help} (default: per data set)" in words
    assert max(map(len, text.splitlines())) <= 100
