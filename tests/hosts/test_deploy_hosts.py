"""`deploy hosts` on hosts with a real sshd: what is right, what is wrong, the lines it prints."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gnn_core.measure.records import read_records
from tests.hosts import ssh_hosts
from tests.hosts.namespace_hosts import Hosts, Link, obstacle
from tests.hosts.ssh_hosts import sshd_on
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
DATASET = "synthetic:papers=2000"
FAST = """\
import time
_now = time.time
time.time = lambda: _now() + 5
"""


@pytest.fixture(autouse=True, scope="module")
def _hosts_can_be_made() -> None:
    if problem := obstacle() or ssh_hosts.obstacle():
        pytest.skip(problem)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the prepared graph, which all hosts see."""
    words = [sys.executable, "-m", "gnn_core.data.datasets", "prepare", DATASET]
    where = ["--cache-dir", str(tmp_path / "cache")]
    subprocess.run([*words, *where], cwd=ROOT, check=True, capture_output=True)
    return tmp_path / "cache"


def check(
    hosts: Hosts, env: dict[str, str], cache: Path, *flags: str
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "gnn_core.deploy", "hosts", "--dataset", DATASET]
    words += ["--cache-dir", str(cache), "--timeout", str(patient(60)), *flags]
    return hosts.run("h1", words, env, patient(120), ROOT)


def lines_of(text: str, first: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(first)]


def test_hosts_that_are_right_and_no_password(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "hosts.txt").write_text("# all of them\nh1 slots=1\nh2 slots=2\n")
    with Hosts(2, Link(100)) as hosts, sshd_on(hosts, tmp_path) as env:
        listed = ("--hostfile", str(tmp_path / "hosts.txt"))
        done = check(hosts, env, cache, *listed, "--quick", "--interface", "eth0")
        assert (done.returncode, lines_of(done.stdout, "problem")) == (0, []), done.stderr
        head, *rows = [line.split() for line in done.stdout.splitlines()[:3]]
        assert head[:4] == ["host", "ssh", "versions", "source"]
        assert [row[:3] for row in rows] == [["h1", "here", "ok"], ["h2", "ok", "ok"]]
        assert done.stdout.count("eth0 0.") + done.stdout.count("eth0 1.") == 2  # round trips in ms
        (line,) = lines_of(done.stdout, "horovodrun")
        assert "-np 3 -H h1:1,h2:2 --network-interfaces eth0 python" in line
        (tmp_path / "authorized_keys").write_text("")
        done = check(hosts, env, cache, "-H", "h1:1,h2:1", "--quick")
    assert done.returncode == 1 and "mpirun" not in done.stdout
    (line,) = lines_of(done.stdout, "problem")
    assert "Permission denied" in line and "ssh-copy-id h2" in line


def test_each_host_that_is_wrong_is_named_with_what_to_do(tmp_path: Path, cache: Path) -> None:
    shim = tmp_path / "shim"
    (shim / "numpy-9.9.dist-info").mkdir(parents=True)
    (shim / "numpy-9.9.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 9.9\n")
    (shim / "sitecustomize.py").write_text(FAST)
    other = {"PYTHONPATH": str(shim)}
    with Hosts(4, Link(100)) as hosts, sshd_on(hosts, tmp_path, {"h2": other}) as env:
        hosts.set_link("h3", up=False)
        # sshd alone answers there, as behind a firewall that lets no answers in either.
        closed = "pref 1 iif eth0 ipproto tcp dport 1024-65534 blackhole"
        for rule in (f"add {closed}", "add pref 2 lookup local", "del pref 0"):
            words = ["ip", "-n", hosts.namespace("h4"), "rule", *rule.split()]
            subprocess.run(words, check=True)
        done = check(hosts, env, cache, "-H", "h1:2,h2:1,h3:1,h4:1000", "--quick")
    assert done.returncode == 1, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:5]}
    assert rows["h3"] == ["problem", *["-"] * (len(rows["h3"]) - 1)]
    found = lines_of(done.stdout, "problem") + lines_of(done.stdout, "warning")
    expected = (
        ("h2", "numpy 9.9, here ", "make install"),
        ("h2", "+5.0", "NTP"),
        ("h3", "ssh", "ssh h3 true"),
        ("h4", "does not reach", "--interface"),
        ("h1", "h4 (port ", "TCP ports"),
        ("h4", "1000 of ", "slots"),
    )
    for host, text, advice in expected:
        matching = [line for line in found if f" {host}: " in line and text in line]
        assert matching and advice in matching[0], (host, text, done.stdout)
    assert "horovodrun" not in done.stdout


@pytest.mark.long
@pytest.mark.needs_horovod
def test_the_printed_lines_start_the_job(tmp_path: Path, cache: Path) -> None:
    more = ["--epochs=1", "--progress=off", "--precision=fp64"]
    # Shared memory would reach from host to host.
    apart = {"OMPI_MCA_btl": "tcp,self"}
    with Hosts(2, Link(100)) as hosts, sshd_on(hosts, tmp_path) as env:
        done = check(hosts, env, cache, "-H", "h1:1,h2:1")
        assert done.returncode == 0, done.stdout + done.stderr
        for launcher in ("mpirun", "horovodrun"):
            (line,) = lines_of(done.stdout, f"{launcher} ")
            own = [*more, f"--records={tmp_path / launcher}"]
            ran = hosts.run("h1", [*shlex.split(line), *own], env | apart, patient(150), ROOT)
            assert ran.returncode == 0, ran.stderr
        both = _both(hosts, lines_of(done.stdout, "env "), [*more, f"--records={tmp_path / 'ddp'}"])
        assert [code for code, _ in both] == [0, 0], both
    for name in ("mpirun", "horovodrun", "ddp"):
        (record,), problems = read_records(tmp_path / name)
        assert not problems and record.hosts == ["h1", "h2"], name


def _both(hosts: Hosts, lines: Sequence[str], flags: Sequence[str]) -> list[tuple[int, str]]:
    """Run the line of each host there, all at the same time; exit codes, and what went wrong."""
    started = []
    for line in lines:
        command, _, host = line.partition("    # on ")
        words = [str(hosts.agent), host, f"exec {command} {shlex.join(flags)}"]
        started.append(
            subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    try:
        said = [one.communicate(timeout=patient(150))[0] for one in started]
    finally:
        for one in started:
            one.kill()
    return [(one.returncode, text) for one, text in zip(started, said, strict=True)]
