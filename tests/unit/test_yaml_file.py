"""`--config FILE`: what a YAML file may say, and how its slips are reported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.config import OPTIONS, RECIPES, UsageError
from gnn_core.settings.yaml_file import read_config_file


def test_flags_beat_the_file_and_the_file_beats_the_recipe(parse, yaml_file) -> None:
    path = yaml_file("dataset: cora\nepochs: 7\nhidden: 8\n")
    config = parse("--config", path, "--epochs", "9")
    assert (config.dataset, config.epochs, config.hidden) == ("cora", 9, 8)
    assert config.lr == RECIPES["cora"]["lr"]


def test_both_spellings_and_every_type(parse, yaml_file) -> None:
    path = yaml_file(
        "global-batch-size: 64\nweight_decay: 1e-3\nlr: 1\nfanouts: [15, -1]\npin: yes\n"
        "progress: off\nlr_schedule: null\ndata_root: data\n"
    )
    config = parse("--config", path)
    assert config.global_batch_size == 64
    assert (config.weight_decay, config.lr) == (0.001, 1.0)
    assert isinstance(config.lr, float)
    assert (config.fanouts, config.pin, config.progress) == ((15, -1), True, "off")
    assert (config.lr_schedule, config.data_root) == ("constant", "data")


@pytest.mark.parametrize(
    ("text", "fanouts"), [("15,10,5", (15, 10, 5)), ("7", (7,)), ("[-1]", (-1,))]
)
def test_fanouts_as_text_number_or_list(parse, yaml_file, text: str, fanouts) -> None:
    assert parse("--config", yaml_file(f"fanouts: {text}\n")).fanouts == fanouts


def test_an_empty_file_sets_nothing(parse, yaml_file) -> None:
    assert parse("--config", yaml_file("# nothing yet\n")) == parse()


def test_home_is_found_without_a_shell(parse, yaml_file, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert parse("--config", yaml_file("records: ~/runs\n")).records == "/somewhere/runs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epohcs: 3", "unknown key 'epohcs', did you mean epochs?"),
        ("3: 4", "unknown key 3"),
        ("config: other.yaml", "unknown key 'config'"),
        ("epochs: 3\nepochs: 4", "epochs: given twice, keep one"),
        ("eval-every: 3\neval_every: 3", "eval_every: given twice, keep one"),
        ("epochs: many", "epochs: expected a whole number, got 'many'"),
        ("epochs: 3.0", "epochs: expected a whole number, got 3.0"),
        ("epochs: true", "epochs: expected a whole number, got True"),
        ("epochs: [3]", "epochs: expected a whole number, got [3]"),
        ("lr: {a: 1}", "lr: expected a number, got {'a': 1}"),
        ("pin: 1", "pin: expected true or false, got 1"),
        ("dataset: 5", "dataset: expected text, got 5"),
        ("fanouts: [5, x]", "fanouts: expected whole numbers with commas between"),
        ("lr: .nan", "lr (--config): expected a finite number above 0, got nan"),
        ("eval: exakt", "eval (--config): expected one of exact, sampled, got 'exakt', did"),
        ("- epochs", "expected lines of `key: value`, got a YAML sequence"),
        ("epochs", "expected lines of `key: value`, got a YAML scalar"),
        ("a: [", "not valid YAML: "),
        ("a: 1\n---\nb: 2", "not valid YAML: "),
        ("dataset: !!python/name:os.system", "not valid YAML: "),
        ("a: " + "[" * 5000, "not valid YAML: "),
    ],
)
def test_a_wrong_file_is_reported_with_its_name_or_key(
    complaint, yaml_file, text, expected
) -> None:
    assert expected in complaint("--config", yaml_file(text))


def test_a_flag_repairs_what_the_file_got_wrong_only_in_part(complaint, yaml_file) -> None:
    message = complaint("--config", yaml_file("epochs: many\n"), "--epochs", "0")
    assert "epochs: expected a whole number, got 'many'" in message
    assert "--epochs: expected a whole number at least 1, got 0" in message


def test_a_file_that_cannot_be_read(complaint, tmp_path: Path) -> None:
    assert "no.yaml: No such file" in complaint("--config", str(tmp_path / "no.yaml"))
    assert "got a folder" in complaint("--config", str(tmp_path))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in complaint("--config", str(tmp_path / "b.yaml"))


STRANGE = {
    "aliases that stand for much": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "aliases of a long text": f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 5000)}]",
    "an alias inside of itself": "a: &a [*a]",
    "a tag": "seed: !!int x",
    "a date by tag": "dataset: !!timestamp x",
    "a boolean by tag": "dataset: !!bool x",
    "half a surrogate pair": 'dataset: "\\ud800"',
    "a character beyond all": 'dataset: "\\UFFFFFFFF"',
    "a merge": "<<: {seed: 1}",
    "a merge of a list": "a: &a {b: 1}\n<<: [*a, *a]",
    "levels": "a: " + "[" * 100 + "]" * 100,
    "a number of thousands of digits": "seed: " + "9" * 5000,
    "a key twice, further in": "fanouts: {a: 1, a: 2}",
    "many values": "fanouts: [" + "1," * 20_000 + "]",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_strange_yaml_is_refused_at_once(yaml_file: Callable[[str], str], text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError, match="run.yaml: not valid YAML: ") as caught:
        read_config_file(yaml_file(text), OPTIONS)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("seed: 010", "expected a whole number, got '010'"),
        ("seed: 1:30", "expected a whole number, got '1:30'"),
        ("seed: 0x10", "expected a whole number, got '0x10'"),
        ("seed: 0b1", "expected a whole number, got '0b1'"),
        ("dataset: no", "YAML takes yes, no, on and off for that, quote it"),
        ("dataset: {a: 1}", "expected text, got"),
    ],
)
def test_a_number_is_what_a_person_reads(
    yaml_file: Callable[[str], str], text: str, wanted: str
) -> None:
    """YAML 1.1 has octal numbers, sexagesimal ones, and words that are true."""
    _, problems, _ = read_config_file(yaml_file(text), OPTIONS)
    assert len(problems) == 1 and wanted in problems[0]


def test_numbers_that_are_read_as_they_look(yaml_file: Callable[[str], str]) -> None:
    text = "lr: 1e-3\ndropout: .5\nseed: 1_000\nweight_decay: 5.\nverify: yes\ndataset: 2026-01-02"
    values, problems, _ = read_config_file(yaml_file(text), OPTIONS)
    assert problems == []
    assert values == {
        "lr": 0.001,
        "dropout": 0.5,
        "seed": 1000,
        "weight_decay": 5.0,
        "verify": True,
        "dataset": "2026-01-02",
    }


def test_a_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((str(tmp_path / "pipe"), "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(UsageError, match=f"^--config: .*: expected a file, got {what}"):
            read_config_file(path, OPTIONS)
