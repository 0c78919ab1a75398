"""A real sshd on each of the hosts of `namespace_hosts`, and a client that knows them all."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.hosts.namespace_hosts import Hosts
from tests.patience import patient

SSHD = "/usr/sbin/sshd"


def obstacle() -> str | None:
    """Why there is no sshd to start; None where there is."""
    missing = [tool for tool in ("ssh", "ssh-keygen", SSHD) if shutil.which(tool) is None]
    return f"{', '.join(missing)} not found: install openssh-server" if missing else None


@contextlib.contextmanager
def sshd_on(
    hosts: Hosts, folder: Path, variables: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[dict[str, str]]:
    """`with sshd_on(hosts, tmp_path, {"h2": {"NAME": "value"}}) as env:` run commands with `env`.

    Args:
        hosts: each gets an sshd at port 22, and root may log in with a key made here.
        folder: for keys and settings.
        variables: by host, those that its sessions have.
    """
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a login
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    known = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text("".join(f"{name} {known}" for name in hosts.names))
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/user\nUserKnownHostsFile {folder}/known_hosts\n"
        "GlobalKnownHostsFile /dev/null\nIdentitiesOnly yes\n"
    )
    (folder / "bin").mkdir()
    client = folder / "bin" / "ssh"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    client.chmod(0o755)
    daemons = []
    try:
        for name in hosts.names:
            own = (variables or {}).get(name, {})
            daemons.append(_start(hosts, name, folder, own))
        yield {"PATH": f"{client.parent}:{os.environ['PATH']}"}
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()


def _start(
    hosts: Hosts, name: str, folder: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    config = folder / f"sshd_config.{name}"
    config.write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        + (
            f"SetEnv {' '.join(f'{key}={value}' for key, value in variables.items())}\n"
            if variables
            else ""
        )
    )
    log = folder / f"sshd.{name}.log"
    with log.open("wb") as into:
        words = [str(hosts.agent), name, f"exec {SSHD} -De -f {config}"]
        daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=into, stderr=into)
    deadline = time.monotonic() + patient(20)
    while "listening on" not in log.read_text():
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            raise RuntimeError(f"sshd of {name} does not listen: {log.read_text()}")
        time.sleep(0.05)
    return daemon
