"""A real Slurm on one machine: slurmctld, slurmdbd, and a slurmd in the namespace of each node.

The daemons are those of the distribution (Debian: slurm-wlm, slurmdbd, munge, mariadb-server), with
a configuration, a key, a database and logs in a folder of their own: what the machine has in
/etc/slurm is neither read nor changed. A node has a host name, an address and a `local` folder of
its own; cores and memory are those of the one machine.

Needs root and iproute2, as `tests.hosts.namespace_hosts`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.hosts import namespace_hosts
from tests.hosts.namespace_hosts import Hosts, Link
from tests.patience import patient

_DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
_ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacctmgr")
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")
_CONF = """\
ClusterName=ringsage
SlurmctldHost={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=30,socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0,default_queue_depth=2000
SlurmdParameters=config_overrides
MaxArraySize=5001
MaxJobCount=10000
SlurmdTimeout={node_timeout}
MessageTimeout=60
KillWait=30
{accounting}
NodeName={nodes} CPUs={cpus} RealMemory=100000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_CGROUP = "CgroupPlugin=cgroup/v1\n"  # named, since `ip netns exec` hides what is mounted; unused
_DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={controller}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def obstacle(accounting: bool = False) -> str | None:
    """Why there can be no Slurm here; None where there can."""
    wanted = (*_DAEMONS, *(_ACCOUNTING if accounting else ()))
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        packages = "slurm-wlm" + (" slurmdbd mariadb-server" if accounting else "")
        return f"{', '.join(missing)} not found: apt-get install {packages}"
    return namespace_hosts.obstacle()


class Cluster:
    """`with Cluster(2, folder) as slurm: job = slurm.submit(script); slurm.wait(job, 60)`.

    Args:
        num_nodes: `h1`, `h2`, ...; the controller is one host more.
        folder: for everything that the daemons write; of no other cluster.
        cpus: that Slurm gives away on each node.
        node_timeout: seconds after which a node that does not answer is down.
        accounting: whether there are slurmdbd and a database, which `sacct` asks.
    """

    def __init__(
        self,
        num_nodes: int,
        folder: Path,
        cpus: int = 2,
        node_timeout: int = 20,
        accounting: bool = False,
    ):
        self.hosts = Hosts(num_nodes + 1, Link(1000))
        *self.nodes, self.controller = self.hosts.names
        self.folder = folder
        self.local = folder / "local"  # another folder on each node
        self.accounting = accounting
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._settings = {
            "folder": folder,
            "controller": self.controller,
            "nodes": ",".join(self.nodes),
            "cpus": cpus,
            "node_timeout": node_timeout,
            "accounting": "AccountingStorageType=accounting_storage/none",
        }
        if accounting:
            self._settings["accounting"] = (
                "AccountingStorageType=accounting_storage/slurmdbd\n"
                f"AccountingStorageHost={self.controller}\n"
                f"AccountingStoragePass={folder}/munge.socket"
            )

    def __enter__(self) -> Cluster:
        self.hosts.__enter__()
        try:
            self._configure()
            self._start_all()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop()

    def run(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        """What a command says on the controller's host. Raises RuntimeError where it fails."""
        own = {"SLURM_CONF": str(self.folder / "slurm.conf"), **(env or {})}
        done = self.hosts.run(self.controller, command, own, patient(60), cwd or self.folder)
        if done.returncode:
            raise RuntimeError(f"`{shlex.join(command)}`: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def submit(self, script: Path, *options: str, env: Mapping[str, str] | None = None) -> str:
        """Submit a script; the number of the job."""
        return self.run(["sbatch", "--parsable", *options, str(script)], env).strip()

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` knows of a job."""
        text = self.run(["scontrol", "--oneliner", "show", "job", job])
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, job: str, seconds: float) -> dict[str, str]:
        """Wait for the end of a job; what Slurm knows of it. Raises RuntimeError with its log."""
        return self.wait_for(job, seconds, lambda one: one["JobState"] in _ENDED)

    def wait_for(self, job: str, seconds: float, is_true: object) -> dict[str, str]:
        """Wait until `is_true(what Slurm knows of the job)`; that. Raises RuntimeError."""
        assert callable(is_true)
        deadline = time.monotonic() + patient(seconds)
        while True:
            shown = self.show(job)
            if is_true(shown):
                return shown
            if time.monotonic() > deadline:
                output = Path(shown.get("StdOut", ""))
                said = output.read_text(errors="replace") if output.is_file() else ""
                raise RuntimeError(f"job {job} is {shown['JobState']} yet:\n{said[-4000:]}")
            time.sleep(0.5)

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "local", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        configurations = {"slurm.conf": _CONF, "cgroup.conf": _CGROUP, "slurmdbd.conf": _DATABASE}
        for name, text in configurations.items():
            path = self.folder / name
            path.write_text(text.format(**self._settings), encoding="utf-8")
            path.chmod(0o600)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

    def _start_all(self) -> None:
        folder = self.folder
        munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munged += [f"--{name}={folder}/munge.{name[:-5]}" for name in ("pid-file", "seed-file")]
        self._start(
            self.controller,
            [*munged, f"--log-file={folder}/munge.log", f"--socket={folder}/munge.socket"],
        )
        self._await("munged", lambda: (folder / "munge.socket").exists())
        if self.accounting:
            self._start_accounting()
        self._start(self.controller, ["slurmctld", "-D"])
        self._await("slurmctld", lambda: "UP" in self.run(["scontrol", "ping"]))
        for node in self.nodes:
            self.start_node(node)
        self.await_nodes()

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node, with an empty disk and shared memory of its own."""
        folders = [str(self.local), "/dev/shm"]
        mounts = " && ".join(f"mount -t tmpfs tmpfs {shlex.quote(one)}" for one in folders)
        self._start(node, ["sh", "-c", f"{mounts} && exec slurmd -D"])

    def await_nodes(self) -> None:
        """Wait until all nodes are there and idle. Raises RuntimeError."""
        self._await("all nodes", lambda: self._states() == {"idle"})

    def _states(self) -> set[str]:
        return set(self.run(["sinfo", "--noheader", "--Node", "--format=%t"]).split())

    def _start_accounting(self) -> None:
        data, socket = self.folder / "database", "/run/mysqld/mysqld.sock"
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}"]
        subprocess.run(install, check=True, capture_output=True, timeout=patient(60))
        # The socket is where slurmdbd looks for it, in a folder that only this process sees.
        mounts = "mkdir -p /run/mysqld && mount -t tmpfs tmpfs /run/mysqld"
        mariadbd = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}"]
        mariadbd += ["--skip-networking", f"--socket={socket}"]
        create = (
            "create database slurm; create user slurm@localhost identified by 'slurm'; "
            "grant all on slurm.* to slurm@localhost;"
        )
        wait = f"until [ -S {socket} ]; do sleep 0.2; done; mariadb --socket={socket} -e"
        script = f"{mounts} && {{ {shlex.join(mariadbd)} & }} && {wait} {shlex.quote(create)}"
        self._start(self.controller, ["sh", "-c", f"{script} && exec slurmdbd -D"])
        self._await("slurmdbd", lambda: "Cluster" in self.run(["sacctmgr", "list", "cluster"]))
        self.run(["sacctmgr", "--immediate", "add", "cluster", "ringsage"])

    def _start(self, host: str, command: Sequence[str]) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [str(self.hosts.agent), host, f"exec {shlex.join(command)}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env={**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")},
                    start_new_session=True,
                )
            )

    def _await(self, what: str, is_there: object) -> None:
        assert callable(is_there)
        deadline = time.monotonic() + patient(30)
        reason = ""
        while time.monotonic() < deadline:
            try:
                if is_there():
                    return
            except RuntimeError as error:
                reason = str(error)
            time.sleep(0.2)
        logs = "\n".join(
            f"== {one.name}\n{one.read_text(errors='replace')[-1500:]}"
            for one in sorted(self.folder.glob("*.log"))
        )
        raise RuntimeError(f"waited for {what} in vain: {reason}\n{logs}")

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        self.hosts.__exit__(None, None, None)
