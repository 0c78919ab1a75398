"""Several hosts on one machine: ranks meet over limited links, learn the same, leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gnn_core.measure.records import read_records
from tests.hosts.namespace_hosts import Hosts, Link, obstacle

ROOT = Path(__file__).resolve().parents[2]
LINK = Link(megabits_per_second=100)


@pytest.fixture(autouse=True, scope="module")
def _hosts_can_be_made() -> None:
    if problem := obstacle():
        pytest.skip(problem)


def namespaces(of: int) -> list[str]:
    """The namespaces that a process has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if f"-{of}-" in line]


def test_hosts_have_names_addresses_and_links_of_their_own() -> None:
    with Hosts(2, LINK) as hosts:
        done = hosts.run("h2", ["sh", "-c", "hostname; ip -o addr; tc qdisc show; cat /etc/hosts"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("h2\n") and "10.77.0.2/24" in done.stdout
        assert "rate 100Mbit" in done.stdout and "10.77.0.1 h1" in done.stdout
        assert namespaces(os.getpid())
    assert not namespaces(os.getpid())
    assert os.uname().nodename != "h2" and "10.77.0" not in Path("/etc/hosts").read_text()


def test_a_limited_link_lets_no_more_through() -> None:
    # Two million bytes at 100 Mbit/s take 168 ms; a little passes at once.
    send = (
        "import socket, time\n"
        "for _ in range(100):\n"
        "    try: connection = socket.create_connection(('10.77.0.2', 9000)); break\n"
        "    except OSError: time.sleep(0.1)\n"
        "connection.sendall(b'x' * 2**21)"
    )
    receive = (
        "import socket, time\n"
        "coming, _ = socket.create_server(('10.77.0.2', 9000)).accept()\n"
        "got, begun = len(coming.recv(1)), time.monotonic()\n"
        "while more := len(coming.recv(65536)): got += more\n"
        "print(got, time.monotonic() - begun)"
    )
    with Hosts(2, LINK) as hosts, ThreadPoolExecutor() as beside:
        received = beside.submit(hosts.run, "h2", [sys.executable, "-c", receive])
        sent = hosts.run("h1", [sys.executable, "-c", send])
        assert sent.returncode == 0, sent.stderr
        got, seconds = received.result().stdout.split()
    assert int(got) == 2**21 and float(seconds) > 0.14


def test_a_failed_command_and_a_killed_maker_leave_nothing() -> None:
    with pytest.raises(RuntimeError, match="no-such"), Hosts(1, LINK):
        raise RuntimeError("no-such")
    assert not namespaces(os.getpid())
    code = (
        "import os, signal, time; from tests.hosts.namespace_hosts import Hosts, Link\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job of a script ignores it
        "with Hosts(1, Link(100)):\n    print('made', flush=True); time.sleep(60)"
    )
    for sign in (signal.SIGINT, signal.SIGKILL):
        maker = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        assert maker.stdout is not None and maker.stdout.readline() == "made\n"
        maker.send_signal(sign)
        maker.wait(30)
        maker.stdout.close()
        # Nothing runs in a killed one's stead: the next maker clears up.
        assert bool(namespaces(maker.pid)) == (sign == signal.SIGKILL)
    with Hosts(1, LINK):
        assert not namespaces(maker.pid)


@pytest.mark.long
@pytest.mark.parametrize(
    "program", [["baselines/ddp.py"], ["tf_mirrored/train.py", "--strategy", "multiworker"]]
)
@pytest.mark.parametrize("task", ["node", "link"])
def test_other_strategies_meet_over_a_network_too(
    program: list[str], task: str, tmp_path: Path
) -> None:
    flags = ["--dataset", "synthetic:papers=2000", "--epochs", "1", "--progress", "off"]
    flags += ["--precision", "fp64", "--task", task, "--records", str(tmp_path)]
    with Hosts(2, LINK) as hosts:
        for count in (1, 2):
            done = hosts.mpirun(count, [sys.executable, *program, *flags], cwd=ROOT)
            assert done.returncode == 0, done.stderr
    (one, two), problems = read_records(tmp_path)
    assert not problems and (one.hosts, two.hosts) == (["h1"], ["h1", "h2"])
    assert one.step_losses == pytest.approx(two.step_losses, rel=1e-12)


@pytest.mark.long
@pytest.mark.needs_horovod
def test_ranks_on_two_hosts_learn_what_one_learns(tmp_path: Path) -> None:
    flags = ["--dataset", "synthetic:papers=2000", "--epochs", "1", "--progress", "off"]
    train = [sys.executable, "horovod_gnn/train.py", *flags, "--records", str(tmp_path)]
    probe = [sys.executable, "horovod_gnn/probe.py", "--bytes", "4", "65536", "--seconds", "0.1"]
    with Hosts(2, LINK) as hosts:
        for count in (1, 2):
            done = hosts.mpirun(count, train, cwd=ROOT)
            assert done.returncode == 0, done.stderr
        done = hosts.mpirun(2, [*probe, "--json", str(tmp_path / "probe.json")], cwd=ROOT)
        assert done.returncode == 0, done.stderr
    (one, two), problems = read_records(tmp_path)
    assert not problems and (one.hosts, two.hosts) == (["h1"], ["h1", "h2"])
    assert one.step_losses == pytest.approx(two.step_losses, rel=1e-4)
    found = json.loads((tmp_path / "probe.json").read_text())["probe"]
    assert found["hosts"] == ["h1", "h2"] and found["controller"] == "mpi"
    # 64 KiB at 100 Mbit/s: half of it there, half of it back, 5.2 ms in all.
    assert found["lower_quartile_seconds"][1] > 4e-3


@pytest.mark.long
@pytest.mark.needs_horovod
@pytest.mark.parametrize("program", ["horovod_gnn/train.py", "baselines/ddp.py"])
def test_a_cut_cable_ends_the_job(program: str, tmp_path: Path) -> None:
    """By mpirun's keepalive or by the ranks' own monitors, whichever comes first."""
    flags = ["--dataset", "synthetic:papers=2000", "--epochs", "1000000", "--progress", "off"]
    flags += ["--checkpoint-dir", str(tmp_path / "saved"), "--records", str(tmp_path)]
    with Hosts(2, LINK) as hosts, ThreadPoolExecutor() as beside:
        command = [sys.executable, program, *flags]
        job = beside.submit(hosts.mpirun, 2, command, cwd=ROOT, timeout=300)
        while not (tmp_path / "saved" / "best.safetensors").exists():
            assert not job.done(), job.result().stderr
            time.sleep(0.1)
        hosts.set_link("h2", up=False)
        begun = time.monotonic()
        done = job.result()
    seconds = time.monotonic() - begun
    print(f"{program}: {seconds:.0f} s")
    assert done.returncode != 0
    assert seconds < 75
