"""Makes the template of a stack, with the scripts that cloud-init runs on its machines.

`heat_stack.yaml` is the template, `heat_machine.sh` the script. Heat replaces @NAME@ in the first
lines of the script alone; what a user has typed stands behind them, quoted for the shell.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from gnn_core.deploy.heat import HeatSettings
from gnn_core.deploy.yaml_text import write
from gnn_core.usage import UsageError

NETWORK = "10.8.0.0/16"
MASTER = "10.8.255.10"
_TEMPLATE = Path(__file__).with_name("heat_stack.yaml")
_SCRIPT = Path(__file__).with_name("heat_machine.sh")
_SPARE_SECONDS = 120  # the master says what is missing before Heat gives up
_NO_SIGNALS = "#!/bin/bash\nsignal_state() { :; }\n"


def worker_address(number: int) -> str:
    """The address of a worker, from 0."""
    return f"10.8.{number}.10"


def make_heat(settings: HeatSettings) -> str:
    """The template, as YAML. Raises UsageError with every problem of the settings."""
    if wrong := settings.problems():
        raise UsageError("; ".join(wrong))
    made = yaml.safe_load(_TEMPLATE.read_text("utf-8"))
    parameters, resources = made["parameters"], made["resources"]
    made["description"] = (
        f"{settings.entrypoint} by {settings.launcher} on a master and {settings.workers} workers."
    )
    for name, parameter in parameters.items():
        parameter["default"] = getattr(settings, name)
    master, workers = resources["master"]["properties"], resources["workers"]["properties"]
    for server in (master, workers["resource_def"]["properties"]):
        first = server["user_data"] if settings.signals else _NO_SIGNALS
        server["user_data"] = {"list_join": ["", [first, _script(settings, server is master)]]}
        if settings.reservation is None:
            del server["scheduler_hints"]
    workers["count"] = resources["worker_state"]["properties"]["count"] = settings.workers
    for name in ("key_state", "worker_state", "master_state"):
        resources[name]["properties"]["timeout"] = 60 * settings.timeout
    if settings.reservation is None:
        del parameters["reservation"]
    if not settings.signals:
        del made["outputs"]["told"]
    made["resources"] = {
        name: one
        for name, one in resources.items()
        if (settings.workers or not name.startswith("worker"))
        and (settings.signals or not name.endswith(("_signal", "_state")))
    }
    return write([made])


def _script(settings: HeatSettings, master: bool) -> str:
    """A machine's script, but for its first lines. Of the job, only the master's has anything."""
    values = {
        "role": "master" if master else "worker",
        "repository": settings.repository,
        "folder": settings.requirements,
        "make": "yes" if settings.make else "no",
        "wait_for": settings.wait_for,
        "seconds": max(60, 60 * settings.timeout - _SPARE_SECONDS),
    }
    hosts, lines = [MASTER], []
    if master:
        values |= {"launcher": settings.launcher, "slots": settings.ranks_per_machine}
        hosts += map(worker_address, range(settings.workers or 0))
        lines.append(f"program=({shlex.join([str(settings.entrypoint), *settings.flags])})")
    lines.append(f"hosts=({' '.join(hosts)})")
    lines += [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    return "\n".join([*lines, _SCRIPT.read_text("utf-8")])
