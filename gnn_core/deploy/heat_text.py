"""The scripts that cloud-init runs on the machines of a stack, as root, once.

What Heat fills in (the master's key, the commands that signal) stands in the head, as @NAME@. What
a user has typed stands behind it, quoted for the shell, where Heat replaces nothing. The rest is
`heat_machine.sh`, the same on all machines.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from gnn_core.deploy.heat import HeatSettings

HOME = "/srv/ringsage"
TOLD = "/var/lib/ringsage"
NETWORK = "10.8.0.0/16"
MASTER = "10.8.255.10"
_SCRIPT = Path(__file__).with_name("heat_machine.sh")
_SPARE_SECONDS = 120  # the master says what is missing before Heat gives up
_SIGNAL = "--fail --silent --show-error --max-time 30 --retry 5"


def worker_address(number: int | str) -> str:
    """The address of a worker, from 0."""
    return f"10.8.{number}.10"


def head(marks: Sequence[str]) -> str:
    """The beginning, in which Heat replaces each of `marks`: KEY, STATE_SIGNAL, KEY_SIGNAL."""
    lines = ["#!/bin/bash", "# cloud-init runs this once, as root."]
    if "STATE_SIGNAL" not in marks:
        lines.append("signal_state() { :; }")
    for mark in marks:
        name, _, is_signal = mark.lower().partition("_")
        if is_signal:
            lines.append(f'signal_{name}() {{ @{mark}@ {_SIGNAL} --data-binary "$1"; }}')
        else:
            lines.append(f"{name}='@{mark}@'")
    return "\n".join([*lines, ""])


def body(settings: HeatSettings, *, master: bool) -> str:
    """What follows the head. Of the job, only the master's has something in it."""
    hosts, program = [MASTER], [str(settings.entrypoint), *settings.flags]
    if master:
        hosts += map(worker_address, range(settings.workers or 0))
    values = {
        "role": "master" if master else "worker",
        "repository": settings.repository,
        "folder": settings.requirements,
        "make": "yes" if settings.make else "no",
        "wait_for": settings.wait_for,
        "seconds": max(60, 60 * settings.timeout - _SPARE_SECONDS),
        **({"launcher": settings.launcher, "slots": settings.ranks_per_machine} if master else {}),
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    lines.append(f"hosts=({' '.join(hosts)})")
    if master:
        lines.append(f"program=({shlex.join(program)})")
    return "\n".join([*lines, "", _SCRIPT.read_text("utf-8")])
