"""Where a run ran: read from made-up /proc and /sys trees, a real git, and this very process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gnn_core.measure import machine
from tests.patience import patient

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc of Linux")
GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def process(proc: Path, pid: int, parent: int, *words: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            ["/venv/bin/python", "/venv/bin/horovodrun", "-np", "2", "python", "train.py"],
            "horovodrun -np 2 python train.py",
        ),
        (
            ["/opt/bin/mpirun", "-np", "2", "python", "my file.py"],
            "mpirun -np 2 python 'my file.py'",
        ),
        (
            ["python3", "-m", "torch.distributed.run", "x.py"],
            "python3 -m torch.distributed.run x.py",
        ),
        # The environment's mpirun is a script that becomes Open MPI's orterun.
        (
            ["/venv/bin/orterun", "-np", "2", "-x", "LANG", "python", "train.py"],
            "mpirun -np 2 -x LANG python train.py",
        ),
        (
            ["mpirun", "--tag-output", "-np", "2", "-x", "A", "-x", "B=1", "python", "train.py"],
            "mpirun --tag-output -np 2 -x B=1 python train.py",
        ),
        (
            ["/venv/bin/python", ".venv/bin/torchrun", "--nproc-per-node", "2", "x.py"],
            ".venv/bin/torchrun --nproc-per-node 2 x.py",
        ),
    ],
)
def test_the_launcher_is_found_above_this_process(
    tmp_path: Path, typed: list[str], expected: str
) -> None:
    process(tmp_path, 1, 0, "/sbin/init")
    process(tmp_path, 20, 1, "bash", "-c", "horovodrun ...")
    process(tmp_path, 30, 20, *typed)
    process(tmp_path, 40, 30, "/bin/sh", "-c", "python train.py")
    process(tmp_path, 50, 40, "python", "train.py")
    assert machine.launch_line(tmp_path, pid=50, own=["python", "train.py"]) == expected


def test_a_launcher_that_has_become_another_one_tells_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(tmp_path, 10, 1, "orterun", "--tag-output", "-np", "2", "python", "train.py")
    process(tmp_path, 11, 10, "python", "train.py")
    monkeypatch.setenv("RINGSAGE_LAUNCHED", "horovodrun -np 2 python 'my file.py'")
    line = machine.launch_line(tmp_path, pid=11, own=["python", "my file.py"])
    assert line == "horovodrun -np 2 python 'my file.py'"


def test_programs_of_the_environment_go_by_their_names(tmp_path: Path) -> None:
    """Also behind a launcher: a record is no place for the paths of a machine."""
    python = str(Path(sys.prefix, "bin", "python"))
    process(tmp_path, 10, 1, "mpirun", "-np", "2", python, "train.py", "--device", "cpu")
    process(tmp_path, 11, 10, python, "train.py")
    line = machine.launch_line(tmp_path, pid=11, own=[python, "train.py"])
    assert line == "mpirun -np 2 python train.py --device cpu"


def test_the_outermost_launcher_counts(tmp_path: Path) -> None:
    """`horovodrun` starts `mpirun`: what was typed is the former."""
    process(tmp_path, 10, 1, "python", "/bin/horovodrun", "-np", "4", "python", "train.py")
    process(tmp_path, 11, 10, "mpirun", "--bind-to", "none", "-np", "4", "python", "train.py")
    process(tmp_path, 12, 11, "python", "train.py")
    assert machine.launch_line(tmp_path, 12, []) == "horovodrun -np 4 python train.py"


def test_a_daemon_on_another_host_hides_the_options_alone(tmp_path: Path) -> None:
    process(tmp_path, 9, 1, "/usr/sbin/sshd", "-De")
    process(tmp_path, 10, 9, "/opt/bin/orted", "-mca", "ess", "env")
    process(tmp_path, 11, 10, "python", "train.py")
    own = [f"{sys.prefix}/bin/python", "train.py", "--token=abc"]
    assert machine.launch_line(tmp_path, 11, own) == "mpirun ... python train.py '--token=***'"


def test_without_a_launcher_it_is_the_own_command(tmp_path: Path) -> None:
    """A word `mpirun` among the arguments, or in an editor's title, launches nothing."""
    process(tmp_path, 1, 0, "vim", "-O", "mpirun")
    process(tmp_path, 12, 1, "python", "train.py")
    own = [f"{sys.prefix}/bin/python", f"{Path.cwd()}/baselines/single.py", "--dataset", "cora"]
    line = machine.launch_line(tmp_path, 12, own)
    assert line == "python baselines/single.py --dataset cora"
    assert machine.launch_line(tmp_path / "no-proc", 12, own) == line


def test_an_interpreter_with_a_relative_path_stays_as_it_was_typed(tmp_path: Path) -> None:
    own = [".venv/bin/python", "-m", "baselines.single", "--dataset", "synthetic:papers=1e3,seed=2"]
    line = machine.launch_line(tmp_path, 1, own)
    assert shlex.split(line) == own and line.startswith(".venv/bin/python -m baselines.single ")


def test_a_loop_of_parents_ends(tmp_path: Path) -> None:
    process(tmp_path, 12, 12, "python", "train.py")
    assert machine.launch_line(tmp_path, 12, ["python", "x"]) == "python x"


def test_secrets_are_struck_out(tmp_path: Path) -> None:
    own = ["python", "t.py", "-x", "HF_TOKEN=abc", "--api-key=def", "--keys=3", "--lr=0.1"]
    line = machine.launch_line(tmp_path, 1, own)
    assert "abc" not in line and "def" not in line
    assert "--keys=3" in line and "--lr=0.1" in line


@LINUX
def test_a_real_parent_is_found(tmp_path: Path) -> None:
    """A script called `mpirun` that starts Python, which asks who started it."""
    launcher = tmp_path / "mpirun"
    launcher.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsubprocess.run(sys.argv[3:], check=True)\n"
    )
    launcher.chmod(0o755)
    ask = "from gnn_core.measure import machine; print(machine.launch_line())"
    root = Path(machine.__file__).parents[2]
    done = subprocess.run(
        [launcher, "-np", "2", sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        timeout=patient(60),
    )
    assert done.stdout.startswith("mpirun -np 2 ")


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    """Half a core more is a core more; a limit above the machine's own is none."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    (proc / "cpuinfo").write_text(
        "model name\t: Some CPU @ 2 GHz\nflags\t: fpu avx2 avx512f amx_bf16\n"
    )
    whole = machine.hardware(proc, cgroup)
    assert whole["memory_bytes"] == 16 * 2**30
    assert whole["cpu_model"] == "Some CPU @ 2 GHz"
    assert whole["cpu_flags"] == ["avx2", "avx512f", "amx_bf16"]
    (cgroup / "cpu.max").write_text("50000 100000\n")
    (cgroup / "memory.max").write_text(f"{2**30}\n")
    limited = machine.hardware(proc, cgroup)
    assert (limited["cores_available"], limited["memory_bytes"]) == (1, 2**30)
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert machine.hardware(proc, cgroup)["cores_available"] == whole["cores_available"]
    assert machine.hardware(proc, cgroup)["memory_bytes"] == 16 * 2**30


def test_a_rank_bound_to_one_core_is_not_a_machine_of_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher may use four cores, this rank one of them."""
    process(tmp_path, 10, 1, "mpirun", "-np", "4", "python", "train.py")
    process(tmp_path, os.getpid(), 10, "python", "train.py")
    cores = {0: {2}, 10: {0, 1, 2, 3}}
    monkeypatch.setattr(machine.os, "sched_getaffinity", cores.__getitem__, raising=False)
    assert machine.cores_available(tmp_path, tmp_path / "no-cgroup") == 4


def test_what_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    facts = machine.hardware(tmp_path, tmp_path)
    assert facts["memory_bytes"] is None and facts["cpu_flags"] == []
    assert machine.memory_of_process(proc=tmp_path) == {
        "rss_bytes": None,
        "peak_rss_bytes": None,
        "pss_bytes": None,
    }
    json.dumps(facts, allow_nan=False)


@LINUX
def test_memory_of_this_process_is_in_bytes() -> None:
    """A Python with NumPy holds between 10 MB and 10 GB; its peak is no less than it holds now."""
    memory = machine.memory_of_process()
    rss, peak = memory["rss_bytes"], memory["peak_rss_bytes"]
    assert rss is not None and peak is not None
    assert 10e6 < rss < 10e9 and peak >= 0.9 * rss
    if memory["pss_bytes"] is not None:
        assert 0 < memory["pss_bytes"] <= 1.1 * rss
    assert machine.process_memory().peak_rss_bytes is not None


def test_memory_is_read_from_the_right_lines(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("VmPeak:\t9 kB\nVmHWM:\t  300 kB\nVmRSS:\t200 kB\n")
    rollup = "5600-7ffc ---p 00000000 00:00 0  [rollup]\nRss: 200 kB\nPss: 50 kB\nPss_Dirty: 1 kB\n"
    (tmp_path / "7" / "smaps_rollup").write_text(rollup)
    assert machine.memory_of_process(7, tmp_path) == {
        "rss_bytes": 200 * 1024,
        "peak_rss_bytes": 300 * 1024,
        "pss_bytes": 50 * 1024,
    }


def test_versions_come_without_importing_a_framework() -> None:
    """In a fresh interpreter: the snapshot names torch where it is installed and imports none."""
    ask = (
        "import sys; from gnn_core.measure import machine, records; v = machine.versions();"
        "heavy = {'torch', 'tensorflow', 'horovod', 'pandas', 'matplotlib'} & set(sys.modules);"
        "print(v['python'], v.get('torch'), sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(60),
        cwd=Path(machine.__file__).parents[2],
    )
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    assert done.stdout.split() == [platform.python_version(), str(torch), "[]"]


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", *name, *words]
    subprocess.run(command, cwd=folder, check=True, env=environment, timeout=patient(30))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "gnn_core").mkdir(parents=True)
    (folder / "gnn_core" / "a.py").write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@GIT
def test_the_commit_and_what_makes_it_dirty(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed or new source does; a record of the run before does not."""
    head, dirty = machine.commit(repository)
    assert head is not None and len(head) == 40 and dirty is False
    (repository / "results" / "runs").mkdir(parents=True)
    (repository / "results" / "runs" / "a.jsonl").write_text("{}\n")
    assert machine.commit(repository) == (head, False)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as inside a git hook
    assert machine.commit(repository) == (head, False)
    (repository / "gnn_core" / "new.py").write_text("2\n")
    assert machine.commit(repository) == (head, True)


@GIT
def test_outside_git_and_inside_a_foreign_tree_there_is_no_commit(
    repository: Path, tmp_path: Path
) -> None:
    """Installed into a virtual environment in somebody's repository, that commit is not ours."""
    assert machine.commit(tmp_path) == (None, None)
    installed = repository / "venv" / "site-packages"
    (installed / "gnn_core").mkdir(parents=True)
    (installed / "gnn_core" / "a.py").write_text("1\n")
    assert machine.commit(installed) == (None, None)


@pytest.mark.parametrize(
    ("revision", "reported"),
    [
        ("0123456789abcdef", ("0123456789abcdef", False)),
        ("0123456789abcdef-dirty", ("0123456789abcdef", True)),
        ("unknown", (None, None)),
        ("", (None, None)),
    ],
)
def test_outside_git_the_image_tells_the_commit(
    revision: str,
    reported: tuple[str | None, bool | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RINGSAGE_COMMIT", revision)
    assert machine.commit(tmp_path) == reported


@GIT
def test_git_knows_better_than_a_variable(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGSAGE_COMMIT", "0123456789abcdef-dirty")
    head, dirty = machine.commit(repository)
    assert head != "0123456789abcdef" and dirty is False


def test_no_git_and_a_git_that_hangs_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit(tmp_path) == (None, None)

    def hang(command: list[str], timeout: float, **more: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(machine.subprocess, "run", hang)
    assert machine.commit(tmp_path) == (None, None)


def test_the_host_goes_by_its_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.socket, "gethostname", lambda: "node7.cluster.example.org")
    assert machine.host_name() == "node7"


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_a_job_are_those_of_its_group_and_of_all_above(
    tmp_path: Path, version: int
) -> None:
    """As Slurm and systemd set them: the process is some levels below the limited group."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\n")
    inside = "/slurm/uid_7/job_12/step_0/task_0"
    if version == 2:
        (proc / "self" / "cgroup").write_text(f"0::{inside}\n")
        memory = cpu = cgroup / inside[1:]
        limits = {"memory.max": f"{3 << 30}", "cpu.max": "150000 100000"}
    else:
        (proc / "self" / "cgroup").write_text(f"4:memory:{inside}\n3:cpu,cpuacct:{inside}\n0::/\n")
        memory, cpu = cgroup / "memory" / inside[1:], cgroup / "cpu" / inside[1:]
        limits = {
            "memory.limit_in_bytes": f"{3 << 30}",
            "cpu.cfs_quota_us": "150000",
            "cpu.cfs_period_us": "100000",
        }
    for folder in (memory, cpu):
        folder.mkdir(parents=True, exist_ok=True)
    for name, value in limits.items():  # of the job, two levels up
        ((memory if name.startswith("memory") else cpu).parents[1] / name).write_text(value)
    facts = machine.hardware(proc, cgroup)
    assert facts["memory_bytes"] == 3 << 30
    assert facts["cores_available"] == min(2, len(os.sched_getaffinity(0)))
