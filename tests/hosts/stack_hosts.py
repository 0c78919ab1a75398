"""Machines of a Heat stack on hosts of this machine, and what stands for Heat beside them.

Each machine is a host of `namespace_hosts` with an address of the stack's network, process
identifiers, files, users, /tmp and /dev/shm of its own, and a real sshd. Below its files lies this
machine's own file system, read-only. It runs its user data as root: by cloud-init where that is
installed, otherwise by bash.

Stand-ins: `systemctl` reloads that sshd; `apt-get` says what it was asked for, since what it would
install is there; git finds the repository's URL in a folder, which has this checkout's packages;
`make install` in it links this environment, and its `parts/requirements.txt` names a wheel whose
mpirun is that of this environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.hosts.namespace_hosts import INTERFACE, Hosts, Link

ROOT = Path(__file__).resolve().parents[2]
SSHD = "/usr/sbin/sshd"
HEAT = "10.8.255.1"
_PORT = 8004
_PACKAGES = ("baselines", "gnn_core", "horovod_gnn", "ringsage")
_SYSTEMCTL = "#!/bin/sh\nexec kill -HUP $(cat /run/sshd.pid)\n"
_APT_GET = '#!/bin/sh\necho "apt-get $*"\n'
_WHEEL = {
    "dist-info/METADATA": "Metadata-Version: 2.1\nName: launchers\nVersion: 1\n",
    "dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "dist-info/RECORD": "",
    "data/scripts/mpirun": f'#!/bin/sh\nexec {sys.prefix}/bin/mpirun "$@"\n',
}
_CLOUD = """\
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: []
cloud_config_modules: []
cloud_final_modules: [scripts-user]
"""
# $1: scratch folder, $2: name, $3: folder of what the machine is given.
_BOOT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" machine "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for own in /dev/shm /tmp; do mount -t tmpfs -o mode=1777 own "$root$own"; done
mount -t tmpfs -o mode=755 own "$root/run"
mkdir "$root/run/sshd"
hostname "$2"
printf '127.0.0.1 localhost %s\\n' "$2" > "$root/etc/hosts"
chmod o+x {parents}
cp -a "$3/bin/." "$root/usr/local/sbin"
cp -a "$3/repository" "$root/repository"
cp "$3/gitconfig" "$root/etc/gitconfig"
rm -rf "$root/var/lib/cloud" "$root/srv/ringsage" "$root/var/lib/ringsage"
mkdir -p "$root/var/lib/cloud/seed/nocloud" "$root/etc/cloud/cloud.cfg.d"
echo "instance-id: $2" > "$root/var/lib/cloud/seed/nocloud/meta-data"
cp "$3/$2" "$root/var/lib/cloud/seed/nocloud/user-data"
cp "$3/cloud.cfg" "$root/etc/cloud/cloud.cfg"
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    sh -c '
    ssh-keygen -q -A
    {sshd}
    {run}
    exec sleep infinity'
"""
_BY_CLOUD_INIT = "cloud-init init --local && cloud-init init && cloud-init modules --mode=final"
_BY_BASH = (
    "cp /var/lib/cloud/seed/nocloud/user-data /tmp/part-001; chmod 700 /tmp/part-001; /tmp/part-001"
)


def obstacle() -> str | None:
    """Why machines cannot be made on hosts of this machine; None where they can."""
    programs = (SSHD, "ssh-keygen", "chroot", "git", "curl", "runuser", "useradd", "make")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: install openssh-server, git, curl, make"
    if "overlay" not in Path("/proc/filesystems").read_text("utf-8"):
        return "this kernel has no overlay file system"
    prefix = Path(sys.prefix)
    if prefix.is_relative_to("/tmp") or prefix.stat().st_dev != Path("/").stat().st_dev:
        return f"{prefix}: a machine has a /tmp of its own, and the file system of the root"
    return None


class Machines:
    """The machines of one stack, and a server that receives what they signal.

    Args:
        addresses: name -> address.
        repository: URL that the machines clone; they get this checkout's packages.
        folder: for what the machines are given, and their logs.
    """

    def __init__(self, addresses: dict[str, str], repository: str, folder: Path):
        self._addresses, self._folder = addresses, folder
        self.signals_at = f"http://{HEAT}:{_PORT}"
        self._signals: list[tuple[str, dict[str, Any]]] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._hosts = Hosts(len(addresses) + 1, Link(megabits_per_second=1000))
        self._host_of = dict(zip([*addresses, "heat"], self._hosts.names, strict=True))
        self._server: ThreadingHTTPServer | None = None
        self._prepare(repository)

    def __enter__(self) -> Machines:
        self._hosts.__enter__()
        try:
            for name, address in {**self._addresses, "heat": HEAT}.items():
                within = ["ip", "-n", self._hosts.namespace(self._host_of[name]), "address"]
                subprocess.run([*within, "flush", "dev", INTERFACE], check=True)
                subprocess.run([*within, "add", f"{address}/16", "dev", INTERFACE], check=True)
            self._serve()
        except BaseException:
            self._hosts.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._hosts.__exit__(kind, error, at)
        for process in self._processes.values():
            process.wait(30)

    def start(self, name: str, user_data: str) -> None:
        """Boot a machine."""
        (self._folder / name).write_text(user_data, encoding="utf-8")
        scratch = self._folder / f"{name}-root"
        scratch.mkdir()
        paths = {*Path(sys.prefix).parents, *Path(sys.base_prefix).parents}
        boot = _BOOT.format(
            parents=" ".join(f'"$root{path}"' for path in paths),
            sshd=SSHD,
            run=_BY_CLOUD_INIT if shutil.which("cloud-init") else _BY_BASH,
        )
        own = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        within = ["ip", "netns", "exec", self._hosts.namespace(self._host_of[name]), *own]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*within, "sh", "-c", boot, "sh", str(scratch), name, str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signals(self, resource: str) -> list[dict[str, Any]]:
        """What a wait condition's handle has received so far."""
        return [content for name, content in self._signals if name == resource]

    def until(self, done: Callable[[], object], seconds: float) -> None:
        """Wait for something; fails with what the machines say when it does not come, or cannot."""
        deadline = time.monotonic() + seconds
        while not done():
            failed = [one for _, one in self._signals if one["status"] != "SUCCESS"]
            ended = [name for name, one in self._processes.items() if one.poll() is not None]
            if failed or ended or time.monotonic() > deadline:
                logs = [self.said(name) for name in self._processes]
                raise AssertionError("\n".join([f"{failed} {ended}", *logs]))
            time.sleep(0.2)

    def said(self, name: str) -> str:
        """The log of a machine, and what its boot said."""
        texts = [f"== {name}"]
        for file in (self._folder / f"{name}.log", self.file(name, "var/lib/ringsage/log")):
            with contextlib.suppress(OSError):
                texts.append(file.read_text("utf-8", errors="replace")[-4000:])
        return "\n".join(texts)

    def file(self, name: str, path: str) -> Path:
        """A file of a machine."""
        first = psutil.Process(self._processes[name].pid).children()
        return Path(f"/proc/{first[0].pid if first else 0}/root", path)

    def ask(self, name: str, *command: str) -> str:
        """What a command says on a machine."""
        pid = psutil.Process(self._processes[name].pid).children()[0].pid
        spaces = ["--mount", "--uts", "--net", "--pid", "--root", "--wd=/"]
        done = subprocess.run(
            ["nsenter", f"--target={pid}", *spaces, *command],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def _prepare(self, repository: str) -> None:
        place = self._folder / "repository"
        for name in _PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place / name, ignore=ignored)
        (place / "Makefile").write_text(f"install:\n\tln -s {sys.prefix} .venv\n")
        (place / "fails.py").write_text("import sys\nsys.exit(f'cannot read {sys.argv[1]}')\n")
        (place / "parts").mkdir()
        wanted = "--no-index\n--find-links /repository/parts\nlaunchers==1\n"
        (place / "parts/requirements.txt").write_text(wanted)
        with zipfile.ZipFile(place / "parts/launchers-1-py3-none-any.whl", "w") as wheel:
            for name, text in _WHEEL.items():
                entry = zipfile.ZipInfo(f"launchers-1.{name}")
                entry.external_attr = 0o100755 << 16
                wheel.writestr(entry, text)
        git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        for step in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Begin"]):
            subprocess.run([*git, *step], check=True)
        (self._folder / "gitconfig").write_text(
            f'[url "file:///repository"]\n\tinsteadOf = {repository}\n[safe]\n\tdirectory = *\n'
        )
        (self._folder / "cloud.cfg").write_text(_CLOUD)
        bin_folder = self._folder / "bin"
        bin_folder.mkdir()
        for name, text in (("systemctl", _SYSTEMCTL), ("apt-get", _APT_GET)):
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)

    def _serve(self) -> None:
        """Listen in the namespace of Heat: a socket stays in the one in which it was made."""
        received = self._signals

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                content = self.rfile.read(int(self.headers["Content-Length"]))
                authorized = self.headers["X-Auth-Token"] == "t0ken"
                self.send_response(200 if authorized else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if authorized:
                    received.append((self.path.split("/")[1], json.loads(content)))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        made: list[ThreadingHTTPServer] = []

        def listen() -> None:
            namespace = Path("/run/netns", self._hosts.namespace(self._host_of["heat"]))
            with namespace.open("rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(ThreadingHTTPServer((HEAT, _PORT), Handler))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        (self._server,) = made
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
