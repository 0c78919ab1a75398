"""Runs `hosts_probe` on all hosts at the same time, by ssh, and asks it; every wait is bounded."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gnn_core.deploy.manifest_files import REPOSITORY
from gnn_core.env.probes import MARK
from gnn_core.measure.machine import host_name
from gnn_core.network import addresses
from gnn_core.usage import one_line

NO_FOLDER, NO_PYTHON, NO_SSH = 101, 102, 255  # exit codes; the last is that of ssh itself
_SSH_SECONDS, _END_SECONDS = 10, 3.0
_QUESTIONS = 5  # of the clock: the answer that came back soonest counts
_MOST_LINE = 1 << 20
# A remote shell of any kind starts sh, whose words are quoted.
_SCRIPT = (
    f'cd "$1" || exit {NO_FOLDER}; test -x "$2" || exit {NO_PYTHON}; '
    'exec "$2" -m gnn_core.deploy.hosts_probe'
)


class Failed(Exception):
    """A host that gives no answer: its last words, and the exit code of ssh, or of the probe."""

    def __init__(self, code: int, words: str):
        super().__init__(words)
        self.code = code


@dataclass
class Answer:
    """What is known of a host."""

    facts: dict[str, Any] = field(default_factory=dict)  # see `hosts_probe.facts`; and `port`
    failure: Failed | None = None
    clock_seconds: float = 0.0  # ahead of this machine
    clock_error_seconds: float = math.inf  # at most
    reached: dict[str, float | str] = field(default_factory=dict)  # see `hosts_probe.reach`


def is_here(host: str) -> bool:
    """Whether a name or an address is that of this machine."""
    if host in ("localhost", "127.0.0.1") or host.partition(".")[0] == host_name():
        return True
    return host in [str(ipaddress.ip_interface(one).ip) for one in addresses()]


def command(host: str) -> list[str]:
    """The words that start the probe on a host."""
    own = ["sh", "-c", _SCRIPT, "sh", str(REPOSITORY), sys.executable]
    if is_here(host):
        return own
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_SSH_SECONDS}"]
    return ["ssh", *options, "--", host, shlex.join(own)]


def ask_all(requests: Mapping[str, Mapping[str, Any]], seconds: float) -> dict[str, Answer]:
    """Ask each host by its request, see `hosts_probe.facts`; an answer takes at most `seconds`."""
    answers = {host: Answer() for host in requests}
    sessions = {host: _Session(command(host), seconds) for host in requests}

    def each(work: Callable[[str], None]) -> None:
        """Do it for all hosts that answer, at the same time; who fails does not stop the others."""

        def noting(host: str) -> None:
            try:
                work(host)
            except Failed as failure:
                answers[host].failure = failure
            except KeyError:
                answers[host].failure = Failed(1, "it answers as another version of this command")

        list(pool.map(noting, [host for host in answers if answers[host].failure is None]))

    def facts(host: str) -> None:
        answers[host].facts = sessions[host].ask({**requests[host], "seconds": seconds})

    def clock(host: str) -> None:
        one = answers[host]
        for _ in range(_QUESTIONS):
            begun, by = time.time(), time.perf_counter()
            theirs = sessions[host].ask(None)["time"]
            if (half := (time.perf_counter() - by) / 2) < one.clock_error_seconds:
                one.clock_seconds, one.clock_error_seconds = theirs - (begun + half), half

    def reach(host: str) -> None:
        others = {name: at for name, at in where.items() if name != host}
        answers[host].reached = sessions[host].ask(others)["reached"]

    with ThreadPoolExecutor(len(requests)) as pool:
        try:
            each(facts)
            each(clock)
            where = {
                host: [one.facts["address"] or host, one.facts["port"]]
                for host, one in answers.items()
                if one.failure is None
            }
            each(reach)
        except BaseException:
            for session in sessions.values():
                session.kill()
            raise
        finally:
            list(pool.map(_Session.end, sessions.values()))
    return answers


class _Session:
    """A probe on a host, killed when it does not answer: whoever reads from it then goes on."""

    def __init__(self, words: Sequence[str], seconds: float):
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        self._seconds = seconds

    def ask(self, question: object) -> dict[str, Any]:
        """The answer; what the shells of a host say at their start is passed over. Failed."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        timer = threading.Timer(self._seconds, self.kill)
        timer.start()
        with contextlib.suppress(OSError):  # it has gone: there is no answer
            into.write(f"{json.dumps(question)}\n".encode())
            into.flush()
        while line := out.readline(_MOST_LINE).decode(errors="replace"):
            _, mark, rest = line.partition(MARK)
            with contextlib.suppress(ValueError):
                if mark and isinstance(found := json.loads(rest), dict):
                    timer.cancel()
                    return found
        code = self._process.wait()
        timer.cancel()
        if code == -signal.SIGKILL:
            raise Failed(code, f"no answer in {self._seconds:.0f} s")
        self._said.seek(0)
        words = self._said.read(_MOST_LINE).decode(errors="replace").strip().splitlines()
        raise Failed(code, one_line(words[-1])[:300] if words else f"exit code {code}")

    def end(self) -> None:
        """Let the probe end, which it does with its input; then not politely."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(_END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        with self._process, self._said:  # closes the pipes
            pass

    def kill(self) -> None:
        """End it at once, with what it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
