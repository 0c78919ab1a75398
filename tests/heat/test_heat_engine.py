"""Heat's own engine takes the templates, and creates what they describe, in order."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.heat_template import worker_address
from tests import heat_stacks
from tests.patience import patient

PYTHON = os.environ.get("RINGSAGE_HEAT_PYTHON", "")
ENGINE = Path(__file__).with_name("heat_engine.py")
HOSTILE = ["it's", "$(touch made)", "@STATE_SIGNAL@", "%index%", "{get_attr: [a, b]}", "- &a *a"]
Created = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PYTHON,
        reason="RINGSAGE_HEAT_PYTHON is not set: `make test-heat` makes such an environment",
    ),
]


@pytest.fixture
def create(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Created:
    """Give `create(*flags, parameters=(), **changed)`: the template, what the engine made of it."""

    def made(*flags: str, parameters: tuple[str, ...] = (), **changed: str) -> Any:
        assert main(heat_stacks.words(*flags, **changed)) == 0
        text = capsys.readouterr().out
        done = subprocess.run(
            [PYTHON, str(ENGINE), *parameters],
            input=text,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=patient(100),
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return yaml.safe_load(text), json.loads(done.stdout.splitlines()[-1])

    return made


@pytest.mark.parametrize("workers", [0, 1, 3, 254])
@pytest.mark.parametrize("wait", ["started", "none"])
def test_the_engine_creates_the_stack(create: Created, workers: int, wait: str) -> None:
    flags = [f"--wait-for={wait}", "--reservation=12ab-34", "--", *HOSTILE]
    template, stack = create(*flags, workers=str(workers))
    assert stack["state"] == ["CREATE", "COMPLETE"], stack["reason"]
    created = stack["created"]
    kinds = Counter(one["type"].rpartition("::")[2] for one in created)
    assert kinds["Server"] == workers + 1 and kinds["FloatingIP"] == 1
    machines = [one["properties"] for one in created if one["type"] == "OS::Nova::Server"]
    by_name = {one["name"]: one for one in machines}
    names = ["training-master", *(f"training-worker-{one}" for one in range(workers))]
    assert sorted(by_name) == sorted(names)
    if wait == "started":
        assert machines[0]["name"] == "training-master"  # workers need its key
    servers = heat_stacks.servers(template)
    for name in names:
        machine = by_name[name]
        role = "master" if name == names[0] else "worker"
        assert machine["user_data"] == heat_stacks.user_data(servers[role], stack["key"])
        assert machine["scheduler_hints"] == {"reservation": "12ab-34"}
    for number in range(workers):
        (network,) = by_name[f"training-worker-{number}"]["networks"]
        assert network["fixed_ip"] == worker_address(number)
    outputs = stack["outputs"]
    assert outputs["login"] == "ssh ubuntu@203.0.113.7"
    assert outputs["records"] == "scp -r ubuntu@203.0.113.7:/srv/ringsage/job/results ."
    if wait == "started":
        assert json.loads(outputs["told"]) == {"master": "done"}


def test_a_machine_that_fails_fails_the_stack_with_its_reason(create: Created) -> None:
    _, stack = create(parameters=("fail=no disk: line 7",))
    assert stack["state"] == ["CREATE", "FAILED"]
    assert "no disk: line 7" in stack["reason"]


@pytest.mark.parametrize("parameter", ["image=other", "flavor=other", "key=other", "network=other"])
def test_the_engine_refuses_what_the_cloud_does_not_have(create: Created, parameter: str) -> None:
    _, stack = create(parameters=(parameter,))
    assert stack["state"] == ["VALIDATE", "FAILED"]
    assert parameter.partition("=")[0] in stack["reason"]
