"""The fixtures that other tests stand on do what they say."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.patience import patient


def test_a_command_gives_its_code_and_both_of_its_streams(run_cli: Callable) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run_cli(["python", "-c", script])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_command_runs_in_the_repository_and_sees_the_given_variables(run_cli: Callable) -> None:
    script = "import os; print(os.getcwd(), os.environ['A'], os.environ['PYTHONUNBUFFERED'])"
    done = run_cli(["python", "-c", script], env={"A": "b"})
    assert done.stdout.split() == [str(Path(__file__).parents[2]), "b", "1"]


def test_a_command_that_hangs_is_ended_with_its_children(run_cli: Callable) -> None:
    child = "import time; time.sleep(60)"
    script = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid)\n"
        "time.sleep(60)\n"
    )
    complaint = f"still running after {patient(1):g} s"
    with pytest.raises(pytest.fail.Exception, match=complaint) as caught:
        run_cli(["python", "-c", script], timeout=1)
    pid = int(str(caught.value).split("stdout:\n")[1].split()[0])
    for _ in range(400):
        if not _is_alive(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} was left behind")


def _is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.joinpath("self").exists():
        # A zombie is dead, only not yet buried by whoever adopted it.
        return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_missing_launcher_skips_and_says_so(
    horovodrun: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(pytest.skip.Exception, match="horovodrun is not installed beside"):
        horovodrun(2, ["-c", "pass"])


def test_a_test_that_needs_what_is_missing_is_skipped_and_says_what(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = request.config.pluginmanager.get_plugins()
    conftest = next(plugin for plugin in plugins if hasattr(plugin, "NEEDS"))
    request.node.add_marker("needs_torch")
    monkeypatch.setitem(conftest.NEEDS, "needs_torch", "numpy")
    conftest.pytest_runtest_setup(request.node)
    monkeypatch.setitem(conftest.NEEDS, "needs_torch", "no_such_package.part")
    with pytest.raises(pytest.skip.Exception, match="no_such_package.part is not installed"):
        conftest.pytest_runtest_setup(request.node)


def test_the_real_graphs_are_where_the_variable_says_or_the_test_is_skipped(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGSAGE_DATA", str(tmp_path / "missing"))
    with pytest.raises(pytest.skip.Exception, match="RINGSAGE_DATA names no folder"):
        request.getfixturevalue("real_data_root")


def test_the_tiny_graph_can_be_learned_and_better_with_its_edges(tiny_graph) -> None:
    features, labels = tiny_graph.features, tiny_graph.labels
    assert [len(tiny_graph.split(name)) for name in ("train", "valid", "test")] == [64, 28, 28]
    assert tiny_graph.num_classes == 4
    degrees = np.diff(tiny_graph.indptr)
    receivers = np.repeat(np.arange(len(degrees)), degrees)
    means = np.zeros_like(features)
    np.add.at(means, receivers, features[tiny_graph.indices])
    means = (means + features) / (degrees + 1)[:, None]
    alone = (features[:, :4].argmax(axis=1) == labels).mean()
    together = (means[:, :4].argmax(axis=1) == labels).mean()
    assert 0.4 < alone < together
    assert together > 0.75


PROGRAM = """
import os, sys, time
if sys.argv[1:] == ["hang"]:
    print(os.getpid())
    time.sleep(60)
print(os.getcwd(), os.environ["RINGSAGE_A"], "torch" in sys.modules)
print(__name__, sys.argv, sys.orig_argv, sys.stdin.read(), file=sys.stderr)
sys.exit(3)
"""


def test_a_program_is_forked_and_is_as_if_it_had_been_started(
    run_cli: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "program.py").write_text(PROGRAM)
    for first in (["program.py"], ["-m", "program"]):
        done = run_cli(["python", *first, "x"], env={"RINGSAGE_A": "b"}, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (3, f"{tmp_path} b True\n")
        name = "program.py" if len(first) == 1 else str(tmp_path / "program.py")
        assert done.stderr == f"__main__ {[name, 'x']} {[sys.executable, *first, 'x']} \n"
    started = run_cli(
        ["python", "program.py", "x"], env={"RINGSAGE_A": "b", "LC_ALL": "C"}, cwd=tmp_path
    )
    assert started.stdout == f"{tmp_path} b False\n"  # the usual way


def test_a_forked_program_finds_modules_on_its_path(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text("print('found')\n")
    env = {"PYTHONPATH": str(tmp_path / "elsewhere")}
    done = run_cli(["python", "-m", "mine"], env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


def test_a_forked_program_that_hangs_is_ended(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with pytest.raises(pytest.fail.Exception, match="still running after") as caught:
        run_cli(["python", tmp_path / "program.py", "hang"], timeout=0.5)
    assert not _is_alive(int(str(caught.value).split("stdout:\n")[1].split()[0]))
