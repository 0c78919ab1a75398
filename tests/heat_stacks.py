"""Templates of Heat for tests, and the user data of their servers as Heat would fill it in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

GIVEN = {
    "repository": "https://example.org/me/code.git",
    "workers": "2",
    "requirements": "parts/one",
    "entrypoint": "horovod_gnn/train.py",
    "launcher": "horovodrun",
    "image": "CC-Ubuntu24.04",
    "flavor": "m1.large",
    "key": "mine",
    "network": "public",
    "ssh-from": "203.0.113.0/24",
}


def words(*others: str, **changed: str | None) -> list[str]:
    """A command line; None leaves a flag out."""
    given = GIVEN | {name.replace("_", "-"): value for name, value in changed.items()}
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return ["heat", *flags, *others]


def servers(made: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of the master, and of the workers where there are any."""
    resources = made["resources"]
    found = {"master": resources["master"]["properties"]}
    if "workers" in resources:
        found["worker"] = resources["workers"]["properties"]["resource_def"]["properties"]
    return found


def signal_command(url: str) -> str:
    """What Heat gives to signal with (`curl_cli`)."""
    headers = ("X-Auth-Token: t0ken", "Content-Type: application/json", "Accept: application/json")
    return " ".join(["curl -i -X POST", *(f"-H '{one}'" for one in headers), url])


def user_data(server: Mapping[str, Any], key: str, signals: str = "http://heat") -> str:
    """The script of a server.

    Args:
        server: its properties.
        key: the master's public key.
        signals: URL in which the signals are received, each at RESOURCE/signal.
    """
    between, (first, body) = server["user_data"]["list_join"]
    replaced = {"template": first, "params": {}} if isinstance(first, str) else first["str_replace"]
    text = replaced["template"]
    for mark, value in replaced["params"].items():
        resource, attribute = value["get_attr"]
        filled = {
            "curl_cli": signal_command(f"{signals}/{resource}/signal"),
            "data": json.dumps({"master": key}),
        }
        text = text.replace(mark, filled[attribute])
    text = between.join([text, body])
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
    return str(text)
