"""What horovodrun makes of the lines that ranks print: nothing, unless a flag asks for tags."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.env import mpi_settings
from tests.e2e.small import LAUNCHERS

pytestmark = pytest.mark.needs_horovod
SAY = """
import os, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["HOROVOD_RANK"]
sys.stdout.write(f"rank {rank} of {os.environ['RINGSAGE_LAUNCHED'].split()[0]}\\n")
"""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the horovodrun of this checkout beside this environment's Python and mpirun."""
    venv = tmp_path_factory.mktemp("venv")
    (venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    mpi_settings.settle(venv)
    for name, program in (("python", sys.executable), ("mpirun", LAUNCHERS / "mpirun")):
        if not Path(program).exists():
            pytest.skip(f"{program} is not installed: `make install`")
        (venv / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(program))} "$@"\n')
        (venv / "bin" / name).chmod(0o755)
    return venv / "bin" / "horovodrun"


@pytest.mark.parametrize(
    ("flags", "tags"),
    [
        ([], ["", ""]),
        (["--tag-output"], ["[1,0]<stdout>:", "[1,1]<stdout>:"]),
        (["--gloo"], ["", ""]),
        (["--gloo", "--tag-output"], ["[0]<stdout>:", "[1]<stdout>:"]),
        (["elastic"], ["", ""]),
        (["elastic", "--tag-output"], ["[0]<stdout>:", "[1]<stdout>:"]),
    ],
)
def test_lines_are_tagged_only_when_asked(
    run_cli: Callable, launcher: Path, tmp_path: Path, flags: list[str], tags: list[str]
) -> None:
    if flags[:1] == ["elastic"]:
        hosts = tmp_path / "hosts.sh"
        hosts.write_text("#!/bin/sh\necho localhost:2\n")
        hosts.chmod(0o755)
        elastic = ["--min-np", "2", "--host-discovery-script", str(hosts)]
        flags = [*elastic, "--network-interfaces", "lo", *flags[1:]]
    program = tmp_path / "say.py"
    program.write_text(SAY)
    done = run_cli([launcher, "-np", "2", *flags, sys.executable, program], timeout=120)
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert lines == [f"{tag}rank {rank} of horovodrun" for rank, tag in enumerate(tags)]


@pytest.mark.parametrize("flags", [[], ["--gloo"]], ids=["mpi", "gloo"])
def test_it_starts_ranks_without_importing_torch(
    run_cli: Callable, launcher: Path, tmp_path: Path, flags: list[str]
) -> None:
    """That takes more than a second, before any rank begins to import it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = run_cli(
        [launcher, "-np", "1", *flags, "echo", "started"], env={"PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


def test_the_help_names_the_flag(run_cli: Callable, launcher: Path) -> None:
    done = run_cli([launcher, "--help"])
    assert done.returncode == 0
    assert "--tag-output" in done.stdout
