"""mpirun's ssh waits for a worker, with a bound and with a word that names it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS

SCRIPT = str(MANIFESTS / "ssh_when_ready.sh")
GIVEN = ["-o", "ConnectionAttempts=1", "-x", "-p", "1"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def run(host: str, port: int, seconds: int, waited: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the script as if it had waited for some seconds already: bash goes on from there."""
    env = {**os.environ, "RINGSAGE_WORKER_PORT": str(port), "RINGSAGE_WORKER_SECONDS": str(seconds)}
    env["SECONDS"] = str(waited)
    words = [SCRIPT, *GIVEN, host, "orted"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)


def test_a_worker_that_never_answers_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = run("j-worker-1.j.default.svc.invalid", port, 1)
    assert done.returncode == 255 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: expected worker j-worker-1 to answer within 1 s, got no answer")
    assert "kubectl delete pod j-worker-1" in line


def test_the_wait_itself_has_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = run("127.0.0.1", port, 12, waited=9).stderr.splitlines()
    assert said[0].startswith("waiting    for worker 127, 1") and " of 12 s: " in said[0]
    assert len(said) == 2


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")
def test_a_worker_that_answers_is_given_to_ssh() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # ssh is the real one: it goes to another port, where nobody is.
        done = run("127.0.0.1", server.getsockname()[1], 5)
    assert done.returncode == 255 and "ssh: connect to host 127.0.0.1" in done.stderr
    assert "waiting" not in done.stderr
