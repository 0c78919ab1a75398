"""The house rules that can be read off the source: who may import whom, sizes, names, entries.

Nothing is imported here; every module is parsed. Each rule is a test of its own, and each rule is
also shown, on a small tree made for it, to catch what it forbids.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gnn_core", "horovod_gnn", "tf_mirrored", "baselines", "ringsage")
FRAMEWORKS = ("torch", "torch_geometric", "tensorflow", "tf_keras", "keras", "horovod", "mpi4py")
DISK = ("pathlib", "os", "io", "json", "csv", "yaml", "pickle", "shutil", "tempfile", "argparse")
ENTRIES = ("train", "single", "ddp", "param_server", "compare", "predict")
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 500, 60


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name (a package's `__init__` has the package's) and its tree."""

    path: Path
    name: str

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def imports(self) -> list[tuple[str, int]]:
        """Everything it imports, at any depth: (dotted name, line). `from a import b` is `a.b`."""
        nodes: Iterator[Any] = ast.walk(self.tree)
        return [(name, node.lineno) for node in nodes for name in _imported(node)]

    @property
    def is_entry(self) -> bool:
        return self.path.stem in ENTRIES and not within(self.name, ("gnn_core",))

    def at(self, line: int, what: str) -> str:
        return f"{self.name}:{line} {what}"


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
        "__import__",
        "import_module",
        "importlib.import_module",
    ):
        if node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def read_house(root: Path) -> list[Module]:
    """Find the modules of every package under `root`, in order of path."""
    modules = []
    for path in sorted(path for package in PACKAGES for path in root.glob(f"{package}/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules.append(Module(path, ".".join(parts).removesuffix(".__init__")))
    return modules


def within(name: str, rooms: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of `rooms` or lies inside one."""
    return any(f"{name}.".startswith(f"{room}.") for room in rooms)


Check = Callable[[Module], Iterator[str]]


def never(who: tuple[str, ...], what: tuple[str, ...], but: tuple[str, ...] = ()) -> Check:
    """Modules within `who`, except those within `but`, import nothing within `what`."""

    def check(module: Module) -> Iterator[str]:
        if within(module.name, who) and not within(module.name, but):
            for target, line in module.imports:
                if within(target, what):
                    yield module.at(line, f"imports {target}")

    return check


def imports_an_entry(module: Module) -> Iterator[str]:
    for target, line in module.imports:
        parts = target.split(".")
        if parts[0] in PACKAGES and parts[0] != "gnn_core" and set(parts[1:3]) & set(ENTRIES):
            yield module.at(line, f"imports the entry script {target}")


def has_no_job_in_its_name(module: Module) -> Iterator[str]:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    for part in vague.intersection(module.name.split(".")):
        yield module.at(1, f"is named {part}, which is no job")


def imports_relatively(module: Module) -> Iterator[str]:
    siblings = {path.stem for path in module.path.parent.glob("*.py")} - sys.stdlib_module_names
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield module.at(node.lineno, "has a relative import")
    for target, line in module.imports:
        if target.split(".")[0] in siblings:
            yield module.at(line, f"imports its neighbour {target} without the package")


def is_too_long(module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines >= MAX_MODULE_LINES:
        yield module.at(lines, f"is not under {MAX_MODULE_LINES} lines")


def has_a_long_function(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines >= MAX_FUNCTION_LINES:
                yield module.at(node.lineno, f"{node.name} has {lines} lines")


def lacks_the_path_statement(module: Module) -> Iterator[str]:
    if not module.is_entry:
        return
    statements = [
        node.lineno
        for node in module.tree.body
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "not __package__"
        and any("sys.path" in ast.unparse(statement) for statement in node.body)
    ]
    in_house = [line for target, line in module.imports if within(target, PACKAGES)]
    if not statements:
        yield module.at(1, "lacks `if not __package__: sys.path[0] = <repository root>`")
    elif in_house and min(in_house) < min(statements):
        yield module.at(min(in_house), "imports from the house before its path statement")


def only(who: str, library: str, part: str, *aliases: str) -> Check:
    """No module but `who` names that part of the library, whatever name it gives the library."""

    def check(module: Module) -> Iterator[str]:
        if module.name == who:
            return
        known = {library, *aliases}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                known |= {alias.asname or "" for alias in node.names if alias.name == library}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr == part:
                if ast.unparse(node.value).split(".")[0] in known:
                    yield module.at(node.lineno, f"names {ast.unparse(node)}")
        for target, line in module.imports:
            parts = target.split(".")
            if parts[0] == library and part in parts:
                yield module.at(line, f"imports {target}")

    return check


def while_imported(module: Module) -> Iterator[Any]:
    """Everything that runs, or is read, when the module is imported."""
    waiting: list[ast.AST] = list(module.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue  # runs later
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def reads_the_environment_at_import(module: Module) -> Iterator[str]:
    if module.is_entry:
        return
    for node in while_imported(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
            yield module.at(node.lineno, f"uses {ast.unparse(node)} while it is imported")


# Before TensorFlow is imported, MPI is met, and flags are read in no time.
BEFORE_TENSORFLOW = tuple(
    f"tf_mirrored.{name}" for name in ("cluster", "devices", "quiet", "strategy", "train")
)


def imports_tensorflow_early(module: Module) -> Iterator[str]:
    if module.name not in BEFORE_TENSORFLOW:
        return
    for node in while_imported(module):
        for target in _imported(node):
            later = within(target, ("tf_mirrored",)) and not within(target, BEFORE_TENSORFLOW)
            if later or within(target, ("tensorflow", "keras", "tf_keras", "mpi4py")):
                yield module.at(node.lineno, f"imports {target} while it is imported")


COMPUTE = (
    "gnn_core.initial",
    "gnn_core.dropout",
    "horovod_gnn.model",
    "horovod_gnn.layered",
    "horovod_gnn.convolutions",
    "horovod_gnn.attention",
    "horovod_gnn.norm",
    "horovod_gnn.edges",
    "horovod_gnn.kernels",
    "horovod_gnn.arithmetic",
    "horovod_gnn.dropout",
    "horovod_gnn.fused",
    "horovod_gnn.inputs",
    "horovod_gnn.node_model",
    "tf_mirrored.model",
    "tf_mirrored.segments",
)
TF_STRANGERS = ("torch", "torch_geometric", "horovod", "horovod_gnn", "baselines")
READERS = ("gnn_core.report", "gnn_core.sweep", "gnn_core.bench")
BENCHMARKS = (
    "baselines.ddp_probe",
    "gnn_core.bench",
    "horovod_gnn.bench",
    "horovod_gnn.probe",
    "tf_mirrored.bench",
    "baselines.fault_runs",
    "baselines.faults_bench",
    "baselines.heuristics",
    "baselines.param_server_bench",
    "baselines.pyg_accuracy",
    "baselines.link_groups",
    "baselines.ranks_bench",
    "baselines.start_bench",
    "baselines.stragglers_bench",
)
SWEEPS = (
    "gnn_core.sweep",
    "gnn_core.bench",
    "gnn_core.deploy.sweep_rules",  # a sweep's plan is read by what will run it
    "gnn_core.deploy.slurm",  # and each run of it can be a task of an array
    "baselines.compare",
    "baselines.fault_runs",
    "baselines.faults_bench",
    "baselines.param_server_bench",
    "baselines.ranks_bench",
    "baselines.start_bench",
    "baselines.stragglers_bench",
)
RULES: dict[str, Check] = {
    "gnn_core imports no framework": never(("gnn_core",), FRAMEWORKS),
    "gnn_core imports no trainer": never(("gnn_core",), PACKAGES[1:]),
    "the registry of strategies imports nothing of the house": never(
        ("gnn_core.strategies",), PACKAGES
    ),
    "settings import no stage of a run": never(
        ("gnn_core.config", "gnn_core.settings"),
        ("gnn_core.data", "gnn_core.measure", "gnn_core.training", "gnn_core.env"),
    ),
    "measure imports neither data nor training": never(
        ("gnn_core.measure",), ("gnn_core.data", "gnn_core.training")
    ),
    "data imports no training": never(("gnn_core.data",), ("gnn_core.training",)),
    "the report imports neither data nor training": never(
        ("gnn_core.report",), ("gnn_core.data", "gnn_core.training")
    ),
    "the report imports neither sweep nor bench": never(("gnn_core.report",), READERS[1:]),
    "no run imports the report": never(PACKAGES, ("gnn_core.report",), READERS),
    "no run imports the sweep": never(PACKAGES, ("gnn_core.sweep",), SWEEPS),
    "no run imports a benchmark": never(PACKAGES, BENCHMARKS, BENCHMARKS),
    "nobody imports the data benchmark": never(PACKAGES, ("gnn_core.bench.sampling",)),
    "training imports no inference": never(
        ("gnn_core.data", "gnn_core.measure", "gnn_core.training"), ("gnn_core.inference",)
    ),
    "deploy imports no training": never(("gnn_core.deploy",), ("gnn_core.training",)),
    "nobody imports deploy": never(PACKAGES, ("gnn_core.deploy",), ("gnn_core.deploy",)),
    "the model imports no training": never(COMPUTE, ("gnn_core.training",)),
    "only parallel.py names horovod": never(PACKAGES, ("horovod",), ("horovod_gnn.parallel",)),
    "the model imports no configuration": never(COMPUTE, ("gnn_core.config", "gnn_core.settings")),
    "the model touches no disk": never(COMPUTE, (*DISK, "gnn_core.data.store", "gnn_core.measure")),
    "horovod_gnn imports no other trainer": never(
        ("horovod_gnn",), ("tf_mirrored", "baselines", "tensorflow", "keras")
    ),
    "tf_mirrored imports no torch": never(("tf_mirrored",), TF_STRANGERS),
    "only strategy.py names tf.distribute": only(
        "tf_mirrored.strategy", "tensorflow", "distribute", "tf"
    ),
    "only process_group.py names torch.distributed": only(
        "baselines.process_group", "torch", "distributed"
    ),
    "TensorFlow comes late": imports_tensorflow_early,
    "baselines import no horovod": never(("baselines",), ("horovod",)),
    "nobody imports an entry script": imports_an_entry,
    "every module is named after its job": has_no_job_in_its_name,
    "imports are absolute": imports_relatively,
    "modules are short": is_too_long,
    "functions are short": has_a_long_function,
    "entry scripts work by path": lacks_the_path_statement,
    "nothing reads the environment at import": reads_the_environment_at_import,
}


def import_circle(house: list[Module]) -> Iterator[str]:
    """A circle of modules that import each other, while they are imported or later."""
    names = {module.name for module in house}
    graph = {
        module.name: {_module_of(target, names) for target, _ in module.imports} - {module.name, ""}
        for module in house
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield " <- ".join(error.args[1])


def _module_of(target: str, names: set[str]) -> str:
    """The module in which an imported name lies; an empty string if it is none of the house."""
    while target and target not in names:
        target = target.rpartition(".")[0]
    return target


# Rules on all modules together.
HOUSE_RULES = {"no modules import each other": import_circle}


@pytest.fixture(scope="module")
def house() -> list[Module]:
    """Parse this repository."""
    return read_house(ROOT)


@pytest.mark.parametrize("rule", [*RULES, *HOUSE_RULES])
def test_the_house_keeps_the_rule(house: list[Module], rule: str) -> None:
    assert "gnn_core.config" in [module.name for module in house]
    broken = list(_violations(rule, house))
    assert not broken, f"{rule}, but:\n" + "\n".join(broken)


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
STATEMENT = "import sys\nif not __package__:\n    sys.path[0] = '..'\n"
# (rule, file that breaks it, its source)
VIOLATIONS = [
    *(("gnn_core imports no framework", "gnn_core/a.py", f"import {name}") for name in FRAMEWORKS),
    ("gnn_core imports no framework", "gnn_core/env/a.py", "def f():\n    from torch import nn"),
    (
        "gnn_core imports no framework",
        "gnn_core/a.py",
        "import importlib as i\n__import__('torch')",
    ),
    *(
        ("gnn_core imports no framework", "gnn_core/training/a.py", f"def f():\n    import {name}")
        for name in FRAMEWORKS
    ),
    ("gnn_core imports no trainer", "gnn_core/a.py", "from baselines import x"),
    ("gnn_core imports no trainer", "gnn_core/training/run.py", "import horovod_gnn.learner"),
    ("gnn_core imports no trainer", "gnn_core/training/run.py", "from tf_mirrored import learner"),
    *(
        ("no run imports the report", f"{place}/a.py", "from gnn_core import report")
        for place in (
            *(f"gnn_core/{room}" for room in ("data", "deploy", "env", "measure", "settings")),
            *("gnn_core", "gnn_core/training", "horovod_gnn", "tf_mirrored", "baselines"),
        )
    ),
    ("no run imports the report", "horovod_gnn/probe.py", "def f():\n    import gnn_core.report"),
    (
        "no run imports the report",
        "gnn_core/deploy/sweep_rules.py",
        "import gnn_core.report.sentences",
    ),
    ("no run imports the sweep", "gnn_core/training/a.py", "from gnn_core.sweep import plan"),
    ("no run imports the sweep", "gnn_core/deploy/a.py", "import gnn_core.sweep.plan"),
    ("no run imports a benchmark", "gnn_core/training/a.py", "from gnn_core.bench import frame"),
    ("no run imports a benchmark", "horovod_gnn/loop.py", "from horovod_gnn.bench import main"),
    ("no run imports a benchmark", "gnn_core/sweep/a.py", "import gnn_core.bench.frame"),
    (
        "nobody imports the data benchmark",
        "gnn_core/bench/a.py",
        "from gnn_core.bench import sampling",
    ),
    (
        "the registry of strategies imports nothing of the house",
        "gnn_core/strategies.py",
        "from gnn_core.usage import UsageError",
    ),
    ("settings import no stage of a run", "gnn_core/config.py", "import gnn_core.data.graph"),
    (
        "settings import no stage of a run",
        "gnn_core/settings/a.py",
        "from gnn_core.measure import machine",
    ),
    (
        "measure imports neither data nor training",
        "gnn_core/measure/a.py",
        "from gnn_core.data.graph import Graph",
    ),
    (
        "measure imports neither data nor training",
        "gnn_core/measure/a.py",
        "def f():\n    import gnn_core.training",
    ),
    ("no run imports the report", "gnn_core/measure/a.py", "import gnn_core.report"),
    ("no run imports the sweep", "gnn_core/measure/a.py", "import gnn_core.sweep"),
    ("no run imports a benchmark", "gnn_core/measure/a.py", "import gnn_core.bench"),
    ("the report imports neither sweep nor bench", "gnn_core/report/a.py", "import gnn_core.sweep"),
    (
        "the report imports neither sweep nor bench",
        "gnn_core/report/a.py",
        "def f():\n    from gnn_core.bench import frame",
    ),
    (
        "no modules import each other",
        "gnn_core/config.py",
        "def f():\n    from gnn_core.data.graph import Graph",
    ),
    (
        "no modules import each other",
        "horovod_gnn/model.py",
        "if TYPE_CHECKING:\n    from baselines import single",
    ),
    (
        "the report imports neither data nor training",
        "gnn_core/report/__init__.py",
        "import gnn_core.data",
    ),
    (
        "data imports no training",
        "gnn_core/data/loader.py",
        "from gnn_core.training.world import World",
    ),
    (
        "the report imports neither data nor training",
        "gnn_core/report/a.py",
        "import gnn_core.training",
    ),
    (
        "the report imports neither data nor training",
        "gnn_core/report/a.py",
        "def f():\n    from gnn_core import training",
    ),
    (
        "training imports no inference",
        "gnn_core/training/a.py",
        "from gnn_core.inference import output",
    ),
    ("deploy imports no training", "gnn_core/deploy/a.py", "import gnn_core.training.job"),
    ("nobody imports deploy", "gnn_core/report/a.py", "from gnn_core.deploy import validate"),
    ("nobody imports deploy", "gnn_core/config.py", "import gnn_core.deploy.programs"),
    ("nobody imports deploy", "baselines/a.py", "def f():\n    import gnn_core.deploy"),
    (
        "the model imports no training",
        "horovod_gnn/model.py",
        "from gnn_core.training.state import Weights",
    ),
    ("the model imports no training", "gnn_core/initial.py", "import gnn_core.training"),
    ("only parallel.py names horovod", "horovod_gnn/loop.py", "import horovod.torch as hvd"),
    ("only parallel.py names horovod", "horovod_gnn/a.py", "from horovod import torch"),
    ("the model imports no configuration", "horovod_gnn/model.py", "import gnn_core.config"),
    ("the model imports no configuration", "gnn_core/initial.py", "from gnn_core import config"),
    ("the model touches no disk", "gnn_core/dropout.py", "import os"),
    ("the model touches no disk", "horovod_gnn/kernels.py", "from pathlib import Path"),
    ("the model touches no disk", "horovod_gnn/model.py", "from gnn_core.measure import records"),
    ("the model touches no disk", "tf_mirrored/model.py", "def f():\n    import tempfile"),
    ("the model imports no configuration", "tf_mirrored/model.py", "import gnn_core.config"),
    ("the model imports no configuration", "tf_mirrored/segments.py", "import gnn_core.config"),
    (
        "the model imports no training",
        "tf_mirrored/model.py",
        "from gnn_core.training.state import Weights",
    ),
    ("horovod_gnn imports no other trainer", "horovod_gnn/a.py", "import tensorflow as tf"),
    ("tf_mirrored imports no torch", "tf_mirrored/a.py", "import torch.nn"),
    ("tf_mirrored imports no torch", "tf_mirrored/a.py", "from horovod_gnn.model import GraphSAGE"),
    ("only strategy.py names tf.distribute", "tf_mirrored/a.py", "tf.distribute.get_strategy()"),
    ("only strategy.py names tf.distribute", "baselines/a.py", "import tensorflow.distribute"),
    ("only strategy.py names tf.distribute", "baselines/a.py", "def f():\n    tf.distribute.X()"),
    ("only strategy.py names tf.distribute", "baselines/a.py", "def f(x: tf.distribute.X): pass"),
    (
        "only strategy.py names tf.distribute",
        "tf_mirrored/loop.py",
        "import tensorflow as flow\nflow.compat.v1.distribute",
    ),
    (
        "only strategy.py names tf.distribute",
        "horovod_gnn/a.py",
        "def f():\n    from tensorflow.python.distribute import mirrored_strategy",
    ),
    (
        "only process_group.py names torch.distributed",
        "baselines/ddp.py",
        STATEMENT + "import torch.distributed as dist",
    ),
    (
        "only process_group.py names torch.distributed",
        "horovod_gnn/loop.py",
        "import torch\ndef f():\n    torch.distributed.barrier()",
    ),
    (
        "only process_group.py names torch.distributed",
        "horovod_gnn/learner.py",
        "from torch import distributed",
    ),
    (
        "only process_group.py names torch.distributed",
        "baselines/a.py",
        "def f():\n    from torch.nn.parallel import x\n    import torch.distributed.run",
    ),
    ("TensorFlow comes late", "tf_mirrored/cluster.py", "import tensorflow as tf"),
    ("TensorFlow comes late", "tf_mirrored/cluster.py", "from mpi4py import MPI"),
    ("TensorFlow comes late", "tf_mirrored/devices.py", "class A:\n    import keras"),
    ("TensorFlow comes late", "tf_mirrored/strategy.py", "from tf_mirrored.input import Feed"),
    ("TensorFlow comes late", "tf_mirrored/train.py", STATEMENT + "import tf_mirrored.learner"),
    ("baselines import no horovod", "baselines/a.py", "import horovod"),
    ("nobody imports an entry script", "baselines/a.py", "from horovod_gnn.train import main"),
    ("nobody imports an entry script", "horovod_gnn/a.py", "from horovod_gnn import train"),
    ("every module is named after its job", "gnn_core/data/utils.py", ""),
    ("every module is named after its job", "gnn_core/common/graph.py", ""),
    ("imports are absolute", "gnn_core/a.py", "from . import b"),
    ("imports are absolute", "gnn_core/data/a.py", "import graph"),
    ("modules are short", "gnn_core/a.py", "\n" * MAX_MODULE_LINES),
    ("functions are short", "gnn_core/a.py", LONG_FUNCTION),
    ("functions are short", "gnn_core/a.py", "async " + LONG_FUNCTION),
    ("entry scripts work by path", "horovod_gnn/train.py", "import sys"),
    ("entry scripts work by path", "baselines/single.py", "import gnn_core.config\n" + STATEMENT),
    ("nothing reads the environment at import", "gnn_core/a.py", "import os\nx = os.environ['X']"),
    (
        "nothing reads the environment at import",
        "gnn_core/a.py",
        "class A:\n    x = os.getenv('X')",
    ),
]
ALLOWED = {
    "gnn_core/__init__.py": "",
    "gnn_core/config.py": "import os\ndef f():\n    return os.environ['torch'], 'import torch'",
    "gnn_core/bench/frame.py": "def f():\n    import gnn_core.report.a",
    "gnn_core/bench/sampling.py": "from gnn_core.measure import machine",
    "gnn_core/sweep/compare.py": "from gnn_core.data import datasets\nimport gnn_core.report.a",
    "gnn_core/deploy/sweep_rules.py": "from gnn_core.sweep import plan",
    "gnn_core/strategies.py": "from dataclasses import dataclass",
    "gnn_core/report/a.py": "from gnn_core.measure.records import x\nimport gnn_core.strategies",
    "horovod_gnn/probe.py": "from gnn_core.bench.frame import x",
    "gnn_core/deploy/mpijob.py": "import gnn_core.deploy.pods, gnn_core.config\nimport yaml",
    "gnn_core/data/graph.py": "from gnn_core.config import UsageError",
    "gnn_core/training/run.py": "from gnn_core.measure.records import begin_run\nimport os",
    "gnn_core/training/evaluate.py": "from gnn_core.data.loader import Loader\nimport tempfile",
    "gnn_core/report/train.py": "import torchmetrics_is_not_torch",
    "horovod_gnn/parallel.py": "def start():\n    import horovod.torch as hvd\n    return hvd",
    "horovod_gnn/model.py": "import torch\nfrom gnn_core.data.batch import Block",
    "horovod_gnn/learner.py": "import torch\nfrom gnn_core.training.learner import require_alike",
    "horovod_gnn/train.py": STATEMENT + "from gnn_core.training.job import run_job",
    "tf_mirrored/strategy.py": (
        "from tf_mirrored.cluster import Cluster\nif TYPE_CHECKING:\n    import tensorflow as tf\n"
        "def f(x: tf.distribute.Strategy):\n    import tensorflow as tf\n    tf.distribute.X()"
    ),
    "tf_mirrored/cluster.py": "def f():\n    from mpi4py import MPI",
    "tf_mirrored/model.py": "import keras\nfrom tf_mirrored.input import BlockInput",
    "tf_mirrored/input.py": "from gnn_core.config import RunConfig\nnumpy.distribute",
    "baselines/process_group.py": "import torch\nimport torch.distributed as dist\ndist.barrier()",
    "baselines/single.py": STATEMENT + "from horovod_gnn.model import GraphSAGE",
}


def _build(root: Path, files: dict[str, str]) -> list[Module]:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source, encoding="utf-8")
    return read_house(root)


def _violations(rule: str, house: list[Module]) -> Iterator[str]:
    if rule in HOUSE_RULES:
        yield from HOUSE_RULES[rule](house)
        return
    for module in house:
        yield from RULES[rule](module)


def _broken(house: list[Module]) -> set[str]:
    return {rule for rule in (*RULES, *HOUSE_RULES) if any(_violations(rule, house))}


@pytest.mark.parametrize(("rule", "file", "source"), VIOLATIONS)
def test_the_checker_catches(tmp_path: Path, rule: str, file: str, source: str) -> None:
    assert rule in _broken(_build(tmp_path, ALLOWED | {file: source}))


def test_the_checker_lets_a_good_house_be(tmp_path: Path) -> None:
    assert _broken(_build(tmp_path, ALLOWED)) == set()


def test_every_rule_is_shown_to_catch_something() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} == {*RULES, *HOUSE_RULES}


def repeated_names(folder: Path) -> list[str]:
    """Names that two test files below a folder share: pytest imports both by that name alone."""
    names = Counter(path.name for path in folder.glob("**/test_*.py"))
    return [name for name, times in names.items() if times > 1]


def test_every_test_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert repeated_names(ROOT / "tests") == []
    for name in ("unit/test_a.py", "e2e/test_a.py", "e2e/test_b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert repeated_names(tmp_path) == ["test_a.py"]
