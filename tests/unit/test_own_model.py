"""A model of the user: it trains as the built-in ones do, and what is wrong with it is one line."""

# ruff: noqa: E402
from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gnn_core.config import RunConfig, UsageError
from gnn_core.data.graph import Graph
from gnn_core.models import ModelSettings, num_weights, short_name
from gnn_core.training.checkpoint import Checkpoints, state_of
from gnn_core.training.state import RunProgress
from horovod_gnn.models import check_model
from horovod_gnn.own_model import build_own
from horovod_gnn.parallel import SingleProcess
from tests.parallel.made_runs import distance, trained
from tests.unit.documents import blocks
from tests.unit.test_learner import assert_equal, made_config, made_learner, train

pytestmark = pytest.mark.needs_torch
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = f"{ROOT}/examples/pyg_sage.py:PygSage"
GOOD = """
    from torch import nn
    from horovod_gnn.edges import aggregate
    from horovod_gnn.layered import LayeredModel

    class Mine(LayeredModel):
        def make_layer(self, depth, in_features, out_features):
            return nn.Linear(in_features, out_features)

        def run_layer(self, layer, h, edges, nodes):
            return layer(h[: edges.num_dst] + aggregate(h, edges, "mean"))
"""
PLAIN = """
    import torch
    from torch import nn
    from horovod_gnn.arithmetic import Arithmetic
    from horovod_gnn.inputs import fetch_rows
    from horovod_gnn.node_model import NodeModel

    class Mine(NodeModel):
        def __init__(self, settings):
            super().__init__()
            self.widths = (settings.hidden,) * (settings.layers - 1) + (settings.out_features,)
            self.arithmetic = Arithmetic(settings.precision, settings.native_bf16)
            ins = (settings.in_features, *self.widths)
            self.dense = nn.ModuleList(map(nn.Linear, ins, self.widths))
            self.to(self.arithmetic.accumulator)

        def forward(self, inputs, nodes, blocks, key=0):
            h = fetch_rows(inputs, nodes, self.arithmetic.accumulator)
            for depth, block in enumerate(blocks):
                h = self.dense[depth](h[: block.num_dst])
            return h

        @torch.no_grad()
        def infer_layer(self, depth, states, nodes, block):
            h = fetch_rows(states, nodes[: block.num_dst], self.arithmetic.accumulator)
            return self.dense[depth](h)
"""
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the source of a model; gives the value of --model."""

    def written(source: str) -> str:
        (tmp_path / "mine.py").write_text(textwrap.dedent(source))
        return f"{tmp_path}/mine.py:Mine"

    return written


def checked(model: str, **changes: Any) -> None:
    check_model(made_config(model=model, **changes).with_model_sha256())


@pytest.mark.parametrize("source", [GOOD, PLAIN], ids=["layered", "plain"])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_a_good_one_is_accepted(write: Write, source: str, precision: str) -> None:
    for changes in ({}, {"task": "link"}, {"layers": 1, "fanouts": (3,)}):
        checked(write(source), precision=precision, **changes)


@pytest.mark.parametrize("source", [GOOD, PLAIN], ids=["layered", "plain"])
def test_it_trains_is_evaluated_and_saved(
    tiny_graph: Graph, write: Write, source: str, tmp_path: Path
) -> None:
    model = write(source)
    config = made_config(model=model).with_model_sha256()
    whole = made_learner(tiny_graph, model=model)
    losses = train(whole, 0)
    checkpoints = Checkpoints(str(tmp_path), config, "f" * 64, 1, "run")
    checkpoints.save_last(whole.weights(), whole.optimizer_state(), RunProgress(1), {})
    state = state_of(checkpoints.read_last())
    rest = made_learner(tiny_graph, model=model)
    torch.manual_seed(9)  # the initial weights do not depend on it
    assert train(made_learner(tiny_graph, model=model), 0) == losses
    rest.load_weights(state.weights)
    rest.load_optimizer_state(state.optimizer)
    assert train(rest, 1) == train(whole, 1)
    assert_equal(rest.weights(), whole.weights())
    assert rest.evaluate(("valid",))["valid"].count == len(tiny_graph.split("valid"))


def test_the_example_is_graphsage(tiny_graph: Graph) -> None:
    pytest.importorskip("torch_geometric")
    checked(EXAMPLE)
    runs = [trained(tiny_graph, SingleProcess(), model=EXAMPLE, epochs=2) for _ in range(2)]
    assert runs[0].record.step_losses == runs[1].record.step_losses
    assert len((ROOT / "examples" / "pyg_sage.py").read_text().splitlines()) < 25
    usual = trained(tiny_graph, SingleProcess(), epochs=2)
    assert distance(runs[0].losses, usual.losses) < 0.5  # of the same kind, from other weights
    config = made_config(model=EXAMPLE).with_model_sha256()
    settings = ModelSettings.of(config, 9, 4)
    made = build_own(config.model, config.model_sha256, settings)
    assert num_weights(config.model, settings) == sum(p.numel() for p in made.parameters())


def test_the_file_is_part_of_the_digest(write: Write, tmp_path: Path) -> None:
    model = write(GOOD)
    config = RunConfig(dataset="cora", model=model).with_model_sha256()
    sha256 = hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    settings = config.curve_settings()
    assert (settings["model"], settings["model_sha256"]) == ("mine.py:Mine", sha256)
    assert config.to_dict()["model"] == model
    write(GOOD + "# another\n")
    other = RunConfig(dataset="cora", model=model).with_model_sha256()
    assert other.digest() != config.digest()
    assert RunConfig.from_dict(config.to_dict()).digest() == config.digest()
    with pytest.raises(UsageError, match="--model-sha256: expected .* the file has changed"):
        check_model(config)


def test_a_folder_does_not_change_the_digest(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    model = write(GOOD)
    (tmp_path / "other" / "mine.py").write_bytes((tmp_path / "mine.py").read_bytes())
    elsewhere = f"{tmp_path}/other/mine.py:Mine"
    digests = {RunConfig(model=one).with_model_sha256().digest() for one in (model, elsewhere)}
    assert len(digests) == 1 and short_name(elsewhere) == "mine.py:Mine"


def test_a_changed_file_is_another_run(write: Write, tmp_path: Path) -> None:
    before = made_config(model=write(GOOD)).with_model_sha256()
    saved = Checkpoints(str(tmp_path), before, "f" * 64, 1, "run")
    saved.save_last({}, {}, RunProgress(), {})
    now = made_config(model=write(GOOD + "# changed\n")).with_model_sha256()
    with pytest.raises(UsageError, match="another run: --model-sha256 was .*, now "):
        Checkpoints(str(tmp_path), now, "f" * 64, 1, "run").read_last()


NAMES = {
    "mine.py": "expected FILE.py:CLASS, such as examples/pyg_sage.py:PygSage, got 'mine.py'",
    "mine.py:": "expected FILE.py:CLASS",
    "mine.py:a b": "expected FILE.py:CLASS",
    "a/mine.txt:Mine": "expected FILE.py:CLASS",
    "mine:Mine": "expected one of sage, gcn, gat, gin, got 'mine:Mine'",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_name_no_class(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        RunConfig(model=name)
    assert f"--model: {NAMES[name]}" in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--model: .*cannot read .*mine.py: No such file"):
        checked(f"{tmp_path}/mine.py:Mine")


def test_a_hash_without_a_file() -> None:
    with pytest.raises(UsageError, match="--model-sha256: --model sage has no use for it"):
        RunConfig(model_sha256="0" * 64)
    with pytest.raises(UsageError, match="--model-sha256: expected 64 digits"):
        RunConfig(model="mine.py:Mine", model_sha256="12")


WRONG = {
    "no such class": (
        GOOD.replace("class Mine", "class Mime"),
        "has no class Mine, did you mean Mime?",
    ),
    "no class": ("Mine = 3", "expected Mine to be a class derived from LayeredModel or NodeModel"),
    "no model": (
        "from torch import nn\n    class Mine(nn.Module): pass".replace("    ", ""),
        "expected Mine to be a class derived from LayeredModel or NodeModel, got <class",
    ),
    "no Python": ("class Mine(", "the file failed: SyntaxError"),
    "an error in the file": (GOOD + "\n    1 / 0\n", "the file failed in line 13: ZeroDivision"),
    "no such module": ("import no_such_module", "ModuleNotFoundError: No module named"),
    "no run_layer": (
        GOOD.replace("def run_layer", "def runs_layer"),
        "expected Mine to define run_layer, which it does not",
    ),
    "no infer_layer": (
        PLAIN.replace("def infer_layer", "def infers_layer"),
        "expected Mine to define infer_layer, which it does not",
    ),
    "two arguments": (
        PLAIN.replace("__init__(self, settings)", "__init__(self, settings, width)"),
        "expected a constructor of one argument, ModelSettings, got Mine(settings, width)",
    ),
    "an error in the constructor": (
        PLAIN.replace("settings.layers - 1", "settings.depth - 1"),
        "its constructor failed in line 11: AttributeError",
    ),
    "no widths": (PLAIN.replace("self.widths", "self.width"), "expected an attribute `widths`"),
    "another output width": (
        PLAIN.replace("(settings.out_features,)", "(settings.hidden,)"),
        "expected `widths` of 2 layers, the last one 3 (--layers, and the classes or --hidden), "
        "got (8, 8)",
    ),
    "an output of another width": (
        PLAIN.replace("return h\n", "return h[:, :1]\n"),
        "expected forward to give ([3, 3], torch.float32), got ([3, 1], torch.float32)",
    ),
    "a layer of another width": (
        PLAIN.replace("return self.dense[depth](h)\n", "return self.dense[depth](h)[:, 1:]\n"),
        "expected infer_layer at depth 0 to give ([3, 8], torch.float32), got ([3, 7]",
    ),
    "an error in a layer": (
        GOOD.replace("edges, nodes):", "edges, nodes):\n            h.no_such"),
        "forward failed in line 11: AttributeError",
    ),
    "layers that differ from forward": (
        PLAIN.replace("return self.dense[depth](h)\n", "return self.dense[depth](h) + 1\n"),
        "expected infer_layer, layer by layer, to give what forward gives",
    ),
    "no gradient": (
        PLAIN.replace("return h\n", "return h.detach()\n"),
        "expected logits with a gradient, got none",
    ),
    "no parameters": (
        PLAIN.replace("nn.ModuleList(map(nn.Linear, ins, self.widths))", "[]"),
        "expected parameters to train, got none",
    ),
    "parameters of another type": (
        PLAIN.replace("self.to(self.arithmetic.accumulator)", "self.half()"),
        "expected parameters of torch.float32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_one_line(write: Write, case: str) -> None:
    source, words = WRONG[case]
    with pytest.raises(UsageError) as raised:
        checked(write(source), precision="fp32")
    message = str(raised.value)
    assert message.startswith("--model mine.py:Mine: ") and words in message, message
    assert "\n" not in message


def test_the_document_shows_the_example() -> None:
    (shown,) = blocks(ROOT / "docs" / "models.md", "python")
    assert (ROOT / "examples" / "pyg_sage.py").read_text().endswith(shown)
