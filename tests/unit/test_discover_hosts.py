"""A worker counts from its first answer on, and for a while after its last."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS
from tests.patience import patient

PORT = 2222
HERE, NOWHERE = "127.0.0.1", "127.0.0.2"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def looks() -> Iterator[list[str]]:
    """What stands for the sshd of one worker; the hosts that have asked it, one by one."""
    asked: list[str] = []
    try:
        server = socket.create_server((HERE, PORT))
    except OSError as problem:
        pytest.skip(f"port {PORT} of this machine is in use: {problem}")

    def serve() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:  # closed
                return
            connection.close()
            asked.append(address[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


class Discovery:
    """The script, and the operator's beside it."""

    def __init__(self, folder: Path):
        self._folder = folder

    def of(self, *listed: str, says: str = "") -> list[str]:
        operators = self._folder / "operators.sh"
        operators.write_text("#!/bin/sh\n" + "".join(f"echo {one}\n" for one in listed))
        operators.chmod(0o755)
        done = subprocess.run(
            [str(MANIFESTS / "discover_hosts.sh"), str(operators)],
            env={**os.environ, "TMPDIR": str(self._folder)},
            capture_output=True,
            text=True,
            timeout=patient(30),
        )
        assert done.returncode == 0
        assert says in done.stderr and (says or not done.stderr)
        return sorted(done.stdout.splitlines())

    def has_workers(self, *names: str) -> None:
        """What the operator's host file lists, gone or not."""
        lines = "".join(f"{name} slots=1\n" for name in names)
        (self._folder / "hostfile").write_text(lines)

    def seconds_pass(self, seconds: float) -> None:
        """Let the last answers lie so much further back."""
        for file in (self._folder / "ringsage-workers").iterdir():
            when = file.stat().st_mtime - seconds
            os.utime(file, (when, when))


@pytest.fixture
def discovery(tmp_path: Path) -> Discovery:
    return Discovery(tmp_path)


def test_a_worker_counts_once_it_answers(discovery: Discovery, looks: list[str]) -> None:
    assert discovery.of() == []
    assert discovery.of(HERE, NOWHERE) == [HERE]
    assert discovery.of(HERE, NOWHERE) == [HERE]
    assert len(looks) == 1, "it is not asked every second"
    discovery.seconds_pass(11)
    assert discovery.of(HERE) == [HERE]
    assert len(looks) == 2


def test_a_worker_that_is_lost_counts_for_a_while(discovery: Discovery, looks: list[str]) -> None:
    assert discovery.of(HERE) == [HERE]
    discovery.seconds_pass(30)
    assert discovery.of() == [HERE], "Horovod must not learn of it before the ranks"
    discovery.seconds_pass(11)
    assert discovery.of() == []
    assert len(looks) == 1


def test_a_worker_that_is_missing_is_named_once_a_minute(
    discovery: Discovery, looks: list[str]
) -> None:
    discovery.has_workers(HERE, "j-worker-1.j.default.svc")
    assert discovery.of(HERE) == [HERE]  # it may be starting
    discovery.seconds_pass(61)
    says = "missing    worker j-worker-1: if `kubectl get pod j-worker-1` tells another status"
    assert discovery.of(HERE, says=says) == [HERE]
    assert discovery.of(HERE) == [HERE]
