"""The command line of the models without message passing; no TensorFlow is needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from baselines.cora.settings import OPTIONS, RECIPES, parse
from gnn_core.usage import UsageError


def test_a_recipe_fills_what_is_not_given() -> None:
    settings = parse(["--model", "words", "--hidden-units", "8"])
    assert (settings.hidden_units, settings.decay) == (8, RECIPES["words"]["decay"])
    for model, recipe in RECIPES.items():
        assert recipe.items() <= asdict(parse(["--model", model])).items()
    assert {name for recipe in RECIPES.values() for name in recipe} < OPTIONS.keys()
    assert parse(["--model", "words"]).width is None


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("4,1", [4, 1]), ("7,0-1", [7, 0, 1])]
)
def test_seeds_are_spelled_in_three_ways(text: str, seeds: list[int]) -> None:
    assert parse(["--seeds", text]).seed_list == seeds
    assert parse(["--seed", text]).seed_list == parse([f"--seed={text}"]).seed_list == seeds


def test_a_file_gives_settings_and_a_flag_beats_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: graph\nwidth: 8\n")
    settings = parse(["--config", str(file), "--width", "9"])
    assert (settings.model, settings.width) == ("graph", 9)


def test_the_digest_is_of_what_the_loss_depends_on() -> None:
    one = parse(["--records", "here"])
    assert one.digest(0) == parse(["--strategy", "mirrored", "--records", "there"]).digest(0)
    assert one.digest(0) != one.digest(1)
    assert one.digest(0) != parse(["--width", "64"]).digest(0)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--model", "word"], "--model: expected one of words, graph, graph+words, got 'word'"),
        (["--modle", "words"], "unknown flag --modle, did you mean --model?"),
        (["--strategy", "mirror"], "--strategy: expected one of one, mirrored, multiworker"),
        (["--replicas", "2"], "--replicas: expected 1 with --strategy one, got 2"),
        (["--replicas", "0", "--strategy", "mirrored"], "--replicas: expected a whole number at"),
        (["--seeds", "a"], "--seeds: expected seeds such as 3, 0-9 or 1,4,5, got 'a'"),
        (["--seeds", "5-3"], "--seeds: expected seeds such as"),
        (["--seeds", "1,1"], "--seeds: expected each seed once, got '1,1'"),
        (["--epochs", "0"], "--epochs: expected a whole number at least 1, got 0"),
        (["--word-dropout", "1"], "--word-dropout: expected a finite number at least 0 and below"),
        (["--temperature", "nan"], "--temperature: expected a finite number above 0, got nan"),
        (["--model", "words", "--width", "8"], "--width: the words model has no use for it"),
        (["--model", "graph", "--word-dropout", "0"], "--word-dropout: the graph model has no"),
        (["--width"], "--width: expected a value after it, got none"),
        (["--width", "x", "--epochs", "y"], "--epochs: expected a whole number, got 'y'"),
    ],
)
def test_a_mistake_is_reported_in_a_line(words: list[str], reported: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert reported in str(caught.value)
    assert "\n" not in str(caught.value)
