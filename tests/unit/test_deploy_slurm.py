"""The batch scripts: what is asked for stands in them, shells can read them, slips are one line."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gnn_core.config import parse_config
from gnn_core.deploy.__main__ import main
from gnn_core.deploy.slurm import STRATEGIES_OF_SEVERAL_NODES, seconds_of
from gnn_core.strategies import STRATEGIES
from gnn_core.usage import UsageError

JOB = ["slurm", "--nodes", "2", "--ranks-per-node", "3", "--dataset", "synthetic:papers=2000"]
PLAN = "strategies: [single, horovod]\nranks: [1, 2, 4]\ndatasets: [cora, /mine]\nthreads: 2\n"
STUBS = {  # what a script finds in place of Slurm and of programs; each says what it was given
    "scontrol": '[ "$1" = show ] && echo one || echo scontrol "$@"',
    "srun": 'echo srun "$@"; wait_for_signal',
    "mpirun": 'echo mpirun "$@"; wait_for_signal',
    "python": '[ "$3" = prepare ] && echo "$shared/cache/graphs/x" || echo python "$@"',
}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    text = capsys.readouterr().out
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    return text


def options(text: str) -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([^=\s]+)=?(\S*)", text, re.M)
    assert len(dict(lines)) == len(lines)
    return dict(lines)


@pytest.mark.parametrize("strategy", STRATEGIES_OF_SEVERAL_NODES)
@pytest.mark.parametrize("dataset", ["cora", "/data/my graph"])
@pytest.mark.parametrize("local", ["/scratch", "none"])
@pytest.mark.parametrize("chain", [[], ["--chain"]])
def test_shells_can_read_the_script(
    capsys: pytest.CaptureFixture[str], strategy: str, dataset: str, local: str, chain: list[str]
) -> None:
    words = ["--strategy", strategy, "--dataset", dataset, "--local", local, *chain]
    text = printed(capsys, "slurm", "--nodes", "2", *words)
    if shutil.which("shellcheck"):
        checked = subprocess.run(
            ["shellcheck", "--exclude=SC2016", "-"], input=text, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout
    launch = {"ddp": "srun --kill-on-bad-exit=1 python", "param-server": "srun --overlap python"}
    assert f"\n{launch.get(strategy, 'mpirun -np')} " in text
    assert f" {STRATEGIES[strategy].program} " in text
    assert ("datasets prepare" in text) == (dataset == "cora")
    assert ("disk=" in text) == (dataset == "cora" and local != "none")


def test_the_script_asks_for_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--threads", "2", "--time", "1-12", "--save-before", "300", "--memory", "20G"]
    text = printed(capsys, *JOB, *words, "--", "--lr", "1e-3", "--records=/there")
    assert options(text) == {
        "job-name": "horovod-synthetic-papers-2000-2x3",
        "nodes": "2",
        "ntasks-per-node": "3",
        "cpus-per-task": "2",
        "mem": "20G",
        "time": "1-12",
        "signal": "B:USR1@300",
        "requeue": "",
        "open-mode": "append",
        "output": "%x-%j.log",
    }
    assert "--map-by ppr:3:node python horovod_gnn/train.py" in text
    assert text.index("--records=") < text.index("--lr 1e-3 --records=/there\n)")  # the last counts


def test_names_and_paths_are_quoted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is typed reaches the trainer as it is, through the shell."""
    evil = "/data/a b;$(touch made)'\"`touch made`"
    words = ["--shared", f"{tmp_path}/it's $HOME", "--local", evil, "--", "--records", evil]
    text = printed(capsys, "slurm", "--dataset", evil, *words)
    flags = re.search(r"^flags=\(\n.*?^\)$", text, re.M | re.S)
    shared = re.search(r"^shared=.*$", text, re.M)
    assert flags is not None and shared is not None
    show = f'{shared[0]}\n{flags[0]}\nprintf "%s\\0" "${{flags[@]}}"'
    done = subprocess.run(["bash", "-c", show], capture_output=True, text=True, cwd=tmp_path)
    given = done.stdout.split("\0")[:-1]
    assert given[0] == f"--dataset={evil}" and given[-1] == evil
    assert f"--cache-dir={tmp_path}/it's $HOME/cache" in given
    assert not (tmp_path / "made").exists()
    parse_config(given, "trainer")


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> object:
    """Run a script with stand-ins for Slurm's commands: `ran(restarts, code, signal)`."""
    for name, text in STUBS.items():
        file = tmp_path / name
        begin = 'wait_for_signal() { [ -z "$SIGNAL" ] || { kill -"$SIGNAL" "$PPID"; rest; }; }\n'
        begin += "rest() { sleep 5 >/dev/null 2>&1 & wait $!; }\n"  # which a signal ends
        file.write_text(f"#!/bin/bash\ntrap 'exit 138' USR1\n{begin}{text}\nexit $CODE\n")
        file.chmod(0o755)

    def run(restarts: int, code: int, signal: str = "") -> tuple[int, str]:
        folders = ["--local", "none", "--shared", str(tmp_path / "shared")]
        text = printed(capsys, *JOB, *folders, "--restarts", "3")
        path = f"{tmp_path}:/usr/bin:/bin"
        text = re.sub(r"^export PATH=.*$", f"export PATH={shlex.quote(path)}", text, flags=re.M)
        text = text.replace("datasets prepare", "datasets prepare >/dev/null; true", 1)
        variables = {"SLURM_RESTART_COUNT": str(restarts), "SLURM_JOB_ID": "7", "PATH": path}
        variables |= {"SLURM_JOB_NAME": "job", "SLURM_NTASKS": "6", "SLURM_NNODES": "2"}
        variables |= {"CODE": str(code), "SIGNAL": signal}
        done = subprocess.run(
            ["bash"], input=text, capture_output=True, text=True, env=variables, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    ("restarts", "code", "signal", "left_with", "queued"),
    [
        (0, 0, "", 0, False),
        (0, 2, "", 2, False),
        (0, 205, "", 205, True),
        (2, 1, "", 1, True),
        (3, 1, "", 1, False),
        (0, 0, "USR1", 138, True),
        (3, 0, "USR1", 138, False),
        (0, 0, "TERM", 138, False),
    ],
)
def test_a_job_is_queued_again_when_that_helps(
    ran: object, restarts: int, code: int, signal: str, left_with: int, queued: bool
) -> None:
    assert callable(ran)
    got, said = ran(restarts, code, signal)
    assert got == left_with, said
    assert ("scontrol requeue 7" in said) == queued
    assert ("not queued again" in said) == (restarts == 3)


def test_an_array_has_a_task_for_each_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = tmp_path / "my plan.yaml"
    plan.write_text(PLAN)
    text = printed(capsys, "slurm", "--array", str(plan))
    got = options(text)
    assert got["array"] == "1-24"  # two data sets, three repeats, of single and of three horovods
    assert (got["ntasks-per-node"], got["cpus-per-task"], got["nodes"]) == ("4", "2", "1")
    assert text.endswith(f'gnn_core.sweep {shlex.quote(str(plan))} --turn "$turn"\n')
    chain = printed(capsys, "slurm", "--array", str(plan), "--chain")
    assert "datasets prepare cora" in chain and "prepare /mine" not in chain
    assert text.rstrip("\n") in chain


def test_a_chain_waits_for_what_is_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With an sbatch that keeps what it gets and prints numbers."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        '#!/bin/bash\ncd "$(dirname "$0")" && echo x >> jobs && number=$(wc -l < jobs) || exit\n'
        'cat > "job$number"; echo "$@" > "options$number"; echo "$number"\n'
    )
    sbatch.chmod(0o755)
    text = printed(capsys, *JOB, "--chain", "--", "--records", "/there")
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh"], input=text, capture_output=True, text=True, env=path)
    assert done.stdout == "prepare 1, train 2, report 3\n", done.stderr
    given = [(tmp_path / f"options{number}").read_text() for number in (1, 2, 3)]
    assert "--dependency=afterok:1" in given[1] and "--dependency=afterany:2" in given[2]
    jobs = [(tmp_path / f"job{number}").read_text() for number in (1, 2, 3)]
    assert jobs[1] == printed(capsys, *JOB, "--", "--records", "/there")
    assert "records=/there\n" in jobs[2]
    for job in jobs:
        subprocess.run(["bash", "-n"], input=job, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--dataset: expected"),
        (["--dataset", "corra"], "unknown data set 'corra', did you mean cora?"),
        (["--dataset", "cora", "--nodes", "0"], "--nodes: expected a number from 1"),
        (["--dataset", "cora", "--name", "a b"], "--name: expected"),
        (["--dataset", "cora", "--memory", "8 GB"], "--memory: expected"),
        (["--dataset", "cora", "--local", "here"], "--local: expected an absolute path"),
        (["--dataset", "cora", "--local", "/a\nb"], "--local: expected a path without control"),
        (["--dataset", "cora", "--time", "soon"], "--time: expected minutes"),
        (["--dataset", "cora", "--time", "2"], "--time: expected a minute more than the 120"),
        (["--dataset", "cora", "--", "--epochz", "3"], "--epochz"),
        (["--dataset", "cora", "--", "--cache-dir", "/x"], "--shared and --local"),
        (["--dataset", "cora", "--", "--world-size", "3"], "3 ranks"),
        (["--dataset", "cora", "--strategy", "ddp", "--", "--servers", "2"], "--servers"),
        (["--array", "no.yaml"], "no.yaml"),
        (["--array", "no.yaml", "--nodes", "2"], "leave out --nodes"),
    ],
)
def test_a_slip_is_one_line(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        main(["slurm", *words])
    message = str(caught.value)
    assert complaint in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:30", 1830),
        ("1:30:00", 5400),
        ("2-12", 216_000),
        ("1-0:30", 88_200),
        ("1-00:00:01", 86_401),
        ("1:60", None),
        ("1h", None),
        ("-1", None),
        ("1:2:3:4", None),
    ],
)
def test_a_time_is_read_as_slurm_reads_it(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_a_turn_that_the_plan_does_not_have_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"strategies: [single]\nrepeats: 2\nrecords: {tmp_path}/records\n")
    command = [sys.executable, "-m", "gnn_core.sweep", str(plan), "--turn", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr == "error: --turn: expected a number from 1 to 2, which the plan has, got 3\n"
    )
