"""The doctor: what it makes of what it is told, by made-up machines and by broken frameworks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gnn_core.env import framework_checks, machine_checks
from gnn_core.env import granted as machine
from gnn_core.env.findings import as_json, as_text, ok, problem, warning
from gnn_core.env.framework_checks import judge, judge_libmpi, judge_ranks
from gnn_core.env.probes import MARK, PROBES, ProbeResult, collect, probe
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
PREFIX = Path("/home/me/clone/.venv")
OWN = str(PREFIX / "lib" / "libmpi.so.40")
DEBIAN = "/usr/lib/x86_64-linux-gnu/openmpi/lib/libmpi.so.40"


# --- probes: real processes, badly behaved ------------------------------------------------------


def test_a_probe_hears_its_facts_through_all_the_noise() -> None:
    result = probe("print('banner'); report(a=1); print('{\"a\": 2}'); report(a=[3])", 30)
    assert result.facts == [{"a": 1}, {"a": [3]}]
    assert (result.error, result.absent) == ("", False)


@pytest.mark.parametrize(
    ("code", "error", "absent"),
    [
        ("os.kill(os.getpid(), 4)", "died of SIGILL", False),
        ("import no_such_framework", "No module named 'no_such_framework'", True),
        ("report(a=1); raise RuntimeError('half way')", "RuntimeError: half way", False),
        ("pass", "it said nothing", False),
        ("sys.exit(3)", "it said nothing", False),
    ],
)
def test_a_broken_framework_is_an_answer(code: str, error: str, absent: bool) -> None:
    result = probe(code, 30)
    assert error in result.error
    assert result.absent is absent


def test_a_framework_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    result = collect(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], 0.5, None)
    assert result.error == "no answer in 0 s"
    assert time.monotonic() - began < patient(20)
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    while not _has_ended(child):  # a process closes its files a moment before it is gone
        assert time.monotonic() - began < patient(20)


def _has_ended(process: Path) -> bool:
    try:
        return (process / "stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_missing_launcher_is_an_answer() -> None:
    result = probe("report(a=1)", 30, launcher=("/no/such/horovodrun", "-np", "2"))
    assert "/no/such/horovodrun does not start" in result.error


def test_output_tagged_by_a_launcher_is_understood() -> None:
    result = collect(["echo", f"[1,0]<stdout>:{MARK}" + json.dumps({"rank": 0})], 30, None)
    assert result.facts == [{"rank": 0}]


# --- what is made of the answers ----------------------------------------------------------------


def test_each_framework_has_a_probe_a_judge_and_a_use() -> None:
    assert set(PROBES) == set(framework_checks._JUDGES) == set(framework_checks._WITHOUT)
    for code in PROBES.values():
        compile(code, "probe", "exec")


@pytest.mark.parametrize(
    ("name", "result", "status", "words"),
    [
        ("torch", ProbeResult(error="x", absent=True), "problem", "not installed"),
        ("tensorflow", ProbeResult(error="x", absent=True), "warning", "Keras baseline"),
        ("tensorflow", ProbeResult(error="died of SIGILL"), "warning", "this processor lacks"),
        (
            "horovod",
            ProbeResult(error="OSError: libmpi.so.40: cannot open"),
            "problem",
            "libmpi.so.40",
        ),
    ],
)
def test_what_is_missing_weighs_as_much_as_it_is_needed(
    name: str, result: ProbeResult, status: str, words: str
) -> None:
    finding = judge(name, result)
    assert finding.status == status
    assert words in f"{finding.text} {finding.advice}"


def horovod(**changes: object) -> ProbeResult:
    facts = {"version": "0.28.1", "mpi": True, "gloo": True, "nccl": False, "cuda": False}
    return ProbeResult([{**facts, "wakes": True, "libmpi": [OWN], **changes}])


def test_a_horovod_without_mpi_is_a_problem() -> None:
    assert judge("horovod", horovod()).status == "ok"
    assert judge("horovod", horovod(mpi=False)).status == "problem"
    assert judge("horovod", horovod(gloo=False)).status == "warning"


def test_a_horovod_whose_collectives_wait_for_a_clock_is_reported() -> None:
    finding = judge("horovod", horovod(wakes=False))
    assert finding.status == "warning"
    assert "HOROVOD_CYCLE_TIME" in finding.text and "make install" in finding.advice


def test_sums_are_checked_and_not_only_imports() -> None:
    facts = {"version": "2.13", "threads": 2, "cuda": None, "capability": "AVX2", "gpus": 0}
    assert judge("torch", ProbeResult([{**facts, "bf16": False, "sum": 1000.0}])).status == "ok"
    assert judge("torch", ProbeResult([{**facts, "bf16": False, "sum": 999.0}])).status == "problem"
    jit = {"version": "0.68", "numpy": "2.4"}
    assert judge("numba", ProbeResult([{**jit, "total": 4950}])).status == "ok"
    assert judge("numba", ProbeResult([{**jit, "total": 4949}])).status == "problem"


@pytest.mark.parametrize(
    ("horovods", "mpi4pys", "status"),
    [
        ([OWN], [OWN], "ok"),
        ([OWN], [DEBIAN], "problem"),
        ([DEBIAN], [DEBIAN], "problem"),
        ([OWN, DEBIAN], [OWN], "problem"),
        ([], [OWN], "problem"),
    ],
)
def test_two_mpis_in_one_environment_are_found(
    horovods: list[str], mpi4pys: list[str], status: str
) -> None:
    result = {"horovod": horovod(libmpi=horovods), "mpi4py": ProbeResult([{"libmpi": mpi4pys}])}
    assert [finding.status for finding in judge_libmpi(result, PREFIX)] == [status]
    assert judge_libmpi({"horovod": ProbeResult(error="broken")}, PREFIX) == []


def ranks(*changes: dict[str, object]) -> ProbeResult:
    facts = {"size": 2, "low": 3.0, "high": 3.0, "milliseconds": 1.4, "prefix": str(PREFIX)}
    return ProbeResult(
        [{**facts, "rank": i, **change} for i, change in enumerate(changes)], seconds=5.0
    )


@pytest.mark.parametrize(
    ("result", "status", "words"),
    [
        (ranks({}, {}), "ok", "allreduce of 1 MB 1.4 ms"),
        (ranks({}, {"rank": 0, "size": 1}), "problem", "each process was alone"),
        (ranks({}, {"high": 4.0}), "problem", "sum of 1 and 2 is [3.0, 4.0]"),
        (ranks({}), "problem", "ranks 0 and 1, got [0]"),
        (ranks({}, {"prefix": "/opt/conda"}), "problem", "another environment's: /opt/conda"),
        (ProbeResult(error="no answer in 120 s"), "problem", "no answer in 120 s"),
    ],
)
def test_two_ranks_must_answer_and_add_up(result: ProbeResult, status: str, words: str) -> None:
    finding = judge_ranks("mpirun -np 2", result, PREFIX)
    assert finding.status == status
    assert words in finding.text


def test_a_broken_framework_does_not_take_the_others_down(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "torch": "os.kill(os.getpid(), 11)",
        "numba": "report(version='1', numpy='2', total=4950)",
    }
    monkeypatch.setattr(framework_checks, "PROBES", broken)
    found = {finding.name: finding for finding in framework_checks.framework_checks(30)}
    assert found["torch"].text == "does not work: died of SIGSEGV"
    assert found["numba"].status == "ok"


# --- the machine --------------------------------------------------------------------------------


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_limits_of_a_container_are_seen_v2(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/kube/pod1"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kube/pod1\n",
            "proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 16000000 kB\n",
            f"{group}/memory.max": "4000000000\n",
            f"{group}/memory.current": "3000000000\n",
            f"{group}/memory.stat": "anon 1\ninactive_file 500000000\n",
            f"{group}/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kube/cpu.max": "150000 100000\n",
        },
    )
    assert machine.memory_limit_bytes(root) == 4_000_000_000
    assert machine.available_memory_bytes(root) == 1_500_000_000
    assert machine.core_quota(root) == 1.5


def test_the_limits_of_a_container_are_seen_v1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
            "proc/meminfo": "MemAvailable: 1000 kB\n",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "2000000000\n",
            "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "10\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
        },
    )
    assert machine.memory_limit_bytes(root) == 2_000_000_000
    assert machine.available_memory_bytes(root) == 1_024_000
    assert machine.core_quota(root) == 0.5
    assert machine.available_cores(root) == 1


def test_a_machine_without_limits_has_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}
    )
    assert machine.memory_limit_bytes(root) is None
    assert machine.core_quota(root) is None
    assert machine.available_cores(root) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("free", "status"), [(64_000_000, "warning"), (8_000_000_000, "ok"), (None, "warning")]
)
def test_a_small_shared_memory_is_pointed_out(
    free: int | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "free_bytes", lambda path: free)
    assert machine_checks._shared_memory().status == status


def launcher(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{version}'\n")
    (folder / name).chmod(0o755)
    return folder


def test_only_the_environments_own_mpirun_will_do(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    own = launcher(venv / "bin", "mpirun", "orterun (OpenRTE) 4.1.8")
    other = launcher(tmp_path / "usr", "mpirun", "mpirun (Open MPI) 4.1.4")
    first = machine_checks._mpirun(venv, {"PATH": f"{own}:{other}"})
    assert (first.status, first.name) == ("ok", "mpirun")
    second = machine_checks._mpirun(venv, {"PATH": f"{other}:{own}"})
    assert second.status == "problem"
    assert "Open MPI) 4.1.4) comes before" in second.text
    assert machine_checks._mpirun(venv, {"PATH": str(tmp_path)}).advice == ". .venv/bin/activate"
    launcher(venv / "bin", "mpirun", "mpirun (Open MPI) 5.0.11")
    assert machine_checks._mpirun(venv, {"PATH": str(own)}).status == "problem"


def test_an_mpi_on_the_library_path_is_a_problem(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    own, other = venv / "lib", tmp_path / "mpi"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "libmpi.so.40").touch()

    def looked_at(path: str) -> list[str]:
        found = machine_checks._foreign_mpi(venv, {"LD_LIBRARY_PATH": path})
        return [finding.status for finding in found]

    assert looked_at(f"{tmp_path}::/nowhere") == []
    assert looked_at(f"/nowhere:{other}") == ["problem"]
    assert looked_at(f"{own}:{other}") == []


def test_a_linked_environment_is_the_one_it_leads_to(tmp_path: Path) -> None:
    """Two ranks tell the path that their python was found by, which may be another one."""
    venv = tmp_path / "clone" / ".venv"
    venv.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(venv)
    facts = {"size": 2, "low": 3.0, "high": 3.0, "milliseconds": 1.0, "prefix": str(venv)}
    result = ProbeResult([{"rank": rank, **facts} for rank in (0, 1)])
    assert judge_ranks("mpirun", result, link).status == "ok"
    assert judge_ranks("mpirun", result, tmp_path).status == "problem"


# --- how it is shown ----------------------------------------------------------------------------

FINDINGS = [
    ok("torch", "2.13"),
    warning("cores", "1", "more"),
    problem("mpirun", "none", "install"),
]


def test_people_see_status_name_and_advice() -> None:
    lines = as_text(FINDINGS).splitlines()
    assert lines[0].split() == ["ok", "torch", "2.13"]
    assert lines[2].strip() == "-> more"
    assert "\033" not in as_text(FINDINGS)
    assert "\033[31;1mproblem" in as_text(FINDINGS, colours=True)
    assert max(map(len, as_text([ok("x", "word " * 99)]).splitlines())) <= 100


def test_machines_see_the_same() -> None:
    result = json.loads(as_json(FINDINGS))
    assert result["counts"] == {"ok": 1, "warning": 1, "problem": 1}
    assert result["findings"][2] == {
        "status": "problem",
        "name": "mpirun",
        "text": "none",
        "advice": "install",
    }


def doctor(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gnn_core.env.doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=patient(60),
    )


def test_the_program_exits_1_when_there_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "libmpi.so.40").touch()
    done = doctor("--quick", "--json", LD_LIBRARY_PATH=str(tmp_path))
    result = json.loads(done.stdout)
    names = {finding["name"]: finding["status"] for finding in result["findings"]}
    assert names["LD_LIBRARY_PATH"] == "problem"
    assert done.returncode == 1


def test_the_program_explains_itself() -> None:
    done = doctor("--help")
    assert done.returncode == 0
    for word in ("/dev/shm", "libmpi", "--json", "make install"):
        assert word in done.stdout


def test_the_program_runs_by_its_path_on_a_bare_python(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "gnn_core" / "env" / "doctor.py"), "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    assert "problem" in done.stdout.splitlines()[-1]
    assert done.stderr == ""
