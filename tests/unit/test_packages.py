"""What a program says in an environment that lacks a package, and what installs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gnn_core import packages
from gnn_core.launch import guarded
from gnn_core.usage import UsageError

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [
    path.relative_to(ROOT)
    for folder in ("gnn_core", "horovod_gnn", "tf_mirrored", "baselines", "ringsage", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if '\nif __name__ == "__main__":\n' in path.read_text("utf-8")
    and path.name not in ("install.py", "doctor.py")  # they run where nothing is installed
]
NEED_TORCH = {
    *(f"horovod_gnn/{name}.py" for name in ("bench", "predict", "probe", "train")),
    *(f"baselines/{name}.py" for name in ("ddp", "ddp_probe", "predict", "ranks_bench", "single")),
    "baselines/param_server.py",
    "baselines/link_groups.py",
    "baselines/pyg_accuracy.py",
    "examples/digits_torch.py",
}
NEED_REPORT = {
    f"gnn_core/report/{name}.py"
    for name in ("analysis", "curve_figure", "demo", "link_figure", "page", "scaling")
}
# Distributions whose module has another name.
MODULE = {
    "PyYAML": "yaml",
    "tensorflow-cpu": "tensorflow",
    "scikit-learn": "sklearn",
    "kubernetes-validate": "kubernetes_validate",
    "prometheus-client": "prometheus_client",
    "grpcio": "grpc",
    "protobuf": "google.protobuf",
}
CHILD = """
import contextlib, io, json, runpy, sys
root, *programs = sys.argv[1:]
sys.path.insert(0, root)
for module in {blocked!r}:
    sys.modules[module] = None  # importing it raises ModuleNotFoundError
said = {{}}
for program in programs:
    sys.argv = [program, "--help"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(f"{{root}}/{{program}}", run_name="__main__")
            code = 0
        except SystemExit as exit:
            code = exit.code
        except BaseException as error:
            code = repr(error)
    said[program] = [code, err.getvalue()]
print(json.dumps(said))
"""


def _without(blocked: list[str], *programs: str) -> dict[str, list]:
    """Run programs with --help where modules cannot be imported: program -> code and stderr."""
    child = [sys.executable, "-c", CHILD.format(blocked=blocked), str(ROOT), *programs]
    done = subprocess.run(child, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_program_names_the_package_that_is_missing() -> None:
    extras = [module for modules in packages.EXTRAS.values() for module in modules]
    said = _without(extras, *map(str, PROGRAMS))
    refused = {program: err for program, (code, err) in said.items() if code == 2 and err}
    for program, error in refused.items():
        extra = "torch" if program in NEED_TORCH else "report"
        form = rf"error: expected the package \w+, got none installed: `pip install '.+\[{extra}\]'"
        assert re.fullmatch(form + "`\n", error), error
    assert refused.keys() == NEED_TORCH | NEED_REPORT
    others = {program: rest for program, rest in said.items() if program not in refused}
    # Three take no flags, and one runs in environments of other libraries, without this project.
    no_help = {"gnn_core/report/loose_figures.py", "gnn_core/data/partition/metis.py"}
    no_help |= {"gnn_core/deploy/hosts_probe.py", "baselines/disk_peer.py"}
    assert {program for program, (code, _) in others.items() if code != 0} <= no_help, others


def test_a_dependency_of_all_is_named_too() -> None:
    (code, error), = _without(["numpy"], "horovod_gnn/train.py").values()  # fmt: skip
    assert code == 2
    assert re.fullmatch(
        r"error: expected the package numpy, got none installed: `pip install '[^\[]+'`\n", error
    )


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def modules(requirements: list[str]) -> tuple[str, ...]:
        names = [re.split(r"[<>=]", one)[0] for one in requirements]
        return tuple(MODULE.get(name, name) for name in names)

    extras = project["optional-dependencies"]
    assert modules(project["dependencies"]) == packages.BASE
    assert {name: modules(extras[name]) for name in extras if name != "dev"} == packages.EXTRAS


def test_what_programs_read_is_installed_beside_them() -> None:
    """By `pip install .`, too, where the repository is not there."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    patterns = tools["setuptools"]["package-data"]
    found = [
        path for kind in ("j2", "sh", "yaml") for path in (ROOT / "gnn_core").rglob(f"*.{kind}")
    ]
    assert len(found) >= 3
    for path in found:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(one) for one in patterns.get(package, ())), path


def test_a_package_that_is_imported_late_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)

    def main() -> int:
        import keras  # noqa: F401

        return 0

    assert guarded(main) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: expected the package keras, got none installed: `pip install ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("module", ["no_such_module", "numpy.no_such_module"])
def test_another_module_is_a_defect_and_keeps_its_traceback(module: str) -> None:
    def main() -> int:
        __import__(module)
        return 0

    with pytest.raises(ModuleNotFoundError):
        guarded(main)


def test_the_library_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ringsage

    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (ringsage.join, ringsage.train, lambda: ringsage.predict("saved", None)):
        with pytest.raises(UsageError, match=r"expected the package torch.*\[torch\]'`$"):
            call()


def test_a_checkout_that_is_not_installed_is_installed_from_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(name: str) -> None:
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "distribution", none)
    assert packages.install_command("torch") == f"`pip install '{ROOT}[torch]'`"
