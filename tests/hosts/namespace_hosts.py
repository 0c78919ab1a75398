"""Several hosts on one machine: network namespaces joined by a switch, each link of limited speed.

Host `h<k>` has a namespace, an address (10.77.0.<k>), a host name and a list of hosts of its own,
so that MPI and Horovod take it for another machine. The switch is a bridge in one more namespace:
nothing of the machine's own network is touched, and all of it goes with the namespaces. A command
is started on a host as ssh would do it, by a script of a line, so that no sshd is needed.

Needs root and iproute2. Cores and memory are those of the one machine: what is limited is the
network alone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

NETWORK = "10.77.0"
INTERFACE = "eth0"
_MARK = "ringsage"  # namespaces are named <mark>-<pid of their maker>-<host>
_SECONDS_TO_END = 10.0
_AGENT = """\
#!/bin/sh
# Stands in for ssh: HOST COMMAND...
host=$1; shift
exec ip netns exec "{prefix}$host" unshare --uts sh -c '
hostname "$0" && mount --bind {folder}/hosts /etc/hosts && exec sh -c "$*"' "$host" "$@"
"""


@dataclass(frozen=True)
class Link:
    """The cable between a host and the switch, in both directions."""

    megabits_per_second: float
    delay_seconds: float = 0.0  # one way, host to host

    def __str__(self) -> str:
        delay = f" + {1000 * self.delay_seconds:g} ms" if self.delay_seconds else ""
        return f"{self.megabits_per_second:g} Mbit/s{delay}"


def obstacle() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2 and util-linux"
    name = f"{_MARK}-{os.getpid()}-trial"
    try:
        _do(f"ip netns add {name}")
        _do(f"ip -n {name} link add probe type veth peer name other")
        _do(f"tc -n {name} qdisc add dev probe root {_shaping(Link(100.0))}")
    except RuntimeError as problem:
        return str(problem)
    finally:
        _undo(name)
    return None


def can_delay() -> bool:
    """Whether this kernel has netem, which delays packets; asked as root."""
    name = f"{_MARK}-{os.getpid()}-trial"
    try:
        _do(f"ip netns add {name}")
        _do(f"tc -n {name} qdisc add dev lo root netem delay 1ms")
    except RuntimeError:
        return False
    finally:
        _undo(name)
    return True


class Hosts:
    """`with Hosts(4, Link(100)) as hosts: hosts.mpirun(4, [...])`; leaves nothing behind.

    Raises RuntimeError with the command that failed. What a killed maker left is cleared first.
    """

    def __init__(self, num_hosts: int, link: Link):
        self.names = [f"h{number}" for number in range(1, num_hosts + 1)]
        self.link = link
        self._prefix = f"{_MARK}-{os.getpid()}-"
        self._folder = _folder(self._prefix)
        self.agent = self._folder / "agent"

    def __enter__(self) -> Hosts:
        _clear_orphans()
        try:
            self._folder.mkdir(exist_ok=True)
            lines = [f"{NETWORK}.{number} {name}" for number, name in enumerate(self.names, 1)]
            text = "\n".join(["127.0.0.1 localhost", *lines, ""])
            (self._folder / "hosts").write_text(text, encoding="utf-8")
            script = _AGENT.format(prefix=self._prefix, folder=self._folder)
            self.agent.write_text(script, encoding="utf-8")
            self.agent.chmod(0o755)
            self._make_switch()
            for number, name in enumerate(self.names, 1):
                self._make_host(number, name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._remove()

    def run(
        self,
        host: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        timeout: float = 600,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, and end it with whatever stops this one; all that it said."""
        process = subprocess.Popen(
            [str(self.agent), host, f"exec {shlex.join(command)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()  # it has become the command; mpirun ends its ranks
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_SECONDS_TO_END)
            raise
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def mpirun(
        self,
        num_ranks: int,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        timeout: float = 600,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Start ranks on the hosts in turn, from the first one, as on a cluster; TCP alone."""
        slots = [
            num_ranks // len(self.names) + (place < num_ranks % len(self.names))
            for place in range(len(self.names))
        ]
        where = ",".join(
            f"{name}:{count}" for name, count in zip(self.names, slots, strict=True) if count
        )
        settings = {
            "plm_rsh_agent": str(self.agent),
            "plm_rsh_no_tree_spawn": "1",
            "btl": "tcp,self",  # shared memory would reach from host to host
            "btl_tcp_if_include": INTERFACE,
            "oob_tcp_if_include": INTERFACE,
        }
        flags = [word for name, value in settings.items() for word in ("--mca", name, value)]
        words = ["mpirun", "-np", str(num_ranks), "-H", where, *flags, *command]
        return self.run(self.names[0], words, env, timeout, cwd)

    def namespace(self, host: str) -> str:
        """The network namespace of a host, for `ip netns exec`."""
        return self._prefix + host

    def kill(self, host: str) -> None:
        """End all that runs on a host by SIGKILL, as a crash would; its link stays."""
        for pid in _do(f"ip netns pids {self.namespace(host)}").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def commands(self, host: str) -> list[str]:
        """The command line of each process that runs on a host."""
        lines = []
        for pid in _do(f"ip netns pids {self.namespace(host)}").split():
            with contextlib.suppress(OSError):
                words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
                lines.append(" ".join(word.decode(errors="replace") for word in words))
        return lines

    def set_link(self, host: str, up: bool) -> None:
        """Plug a host's cable in or out, at the switch: the host itself notices nothing."""
        _do(f"ip -n {self._prefix}switch link set {host} {'up' if up else 'down'}")

    def _make_switch(self) -> None:
        switch = f"{self._prefix}switch"
        _do(f"ip netns add {switch}")
        _do(f"ip -n {switch} link add bridge type bridge")
        _do(f"ip -n {switch} link set bridge up")

    def _make_host(self, number: int, name: str) -> None:
        host, switch = self._prefix + name, f"{self._prefix}switch"
        _do(f"ip netns add {host}")
        _do(f"ip -n {host} link add {INTERFACE} type veth peer name {name} netns {switch}")
        _do(f"ip -n {host} address add {NETWORK}.{number}/24 dev {INTERFACE}")
        _do(f"ip -n {switch} link set {name} master bridge up")
        # What leaves the host is held up on its side, what reaches it on the switch's.
        for namespace, device in ((host, INTERFACE), (switch, name)):
            # A packet of 64 kB, which stands for many, would pass the limit in one piece.
            _do(f"ip -n {namespace} link set {device} gso_max_segs 1")
            _do(f"tc -n {namespace} qdisc add dev {device} root {_shaping(self.link)}")
        _do(f"ip -n {host} link set lo up")
        _do(f"ip -n {host} link set {INTERFACE} up")
        # Of all algorithms every kernel has this one; it does not pace by itself.
        _do(f"ip netns exec {host} sysctl -qw net.ipv4.tcp_congestion_control=reno")

    def _remove(self) -> None:
        for name in [*self.names, "switch"]:
            _undo(self._prefix + name)
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder(prefix: str) -> Path:
    """Where a maker keeps the list of hosts and the script that reaches them."""
    return Path(tempfile.gettempdir(), f"{prefix}hosts")


def _shaping(link: Link) -> str:
    """The queueing discipline of one end of a link: half of its delay, all of its rate."""
    rate = f"rate {1e6 * link.megabits_per_second:.0f}bit"
    if link.delay_seconds:
        return f"netem {rate} delay {1e6 * link.delay_seconds / 2:.0f}us limit 100000"
    # What may pass at once: a few packets, or what the clock of the kernel lets through meanwhile.
    burst = max(6_000, round(1e6 * link.megabits_per_second / 8 * 100e-6))
    return f"tbf {rate} burst {burst} latency 200ms"


def _clear_orphans() -> None:
    """Remove the namespaces of makers that are no more."""
    for line in _do("ip netns list").splitlines():
        name = line.split()[0] if line.split() else ""
        mark, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if mark == _MARK and pid.isdigit() and not Path("/proc", pid).exists():
            _undo(name)
            shutil.rmtree(_folder(f"{_MARK}-{pid}-"), ignore_errors=True)


def _undo(namespace: str) -> None:
    """End what runs in a namespace, and remove it with all its interfaces."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(RuntimeError):
            pids = [int(pid) for pid in _do(f"ip netns pids {namespace}").split()]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            if pids:
                time.sleep(0.5)
    with contextlib.suppress(RuntimeError):
        _do(f"ip netns del {namespace}")


def _do(command: str) -> str:
    """Run a command of iproute2; what it says. Raises RuntimeError with its complaint."""
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`{command}`: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout
