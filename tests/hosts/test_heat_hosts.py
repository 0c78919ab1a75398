"""The user data of a Heat stack really runs: machines that find each other train a graph."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.heat_template import MASTER, worker_address
from gnn_core.measure.records import read_records
from tests import heat_stacks
from tests.hosts import namespace_hosts, stack_hosts
from tests.hosts.stack_hosts import Machines
from tests.patience import patient

Run = Callable[..., subprocess.CompletedProcess[str]]
FLAGS = ["--dataset=synthetic:papers=2000", "--precision=fp64", "--epochs=2", "--progress=off"]
FOLDER = "results/it's $(touch made) `touch made` @KEY@ %index%"  # no shell obeys it
# Of a job: imports and compilation on each machine.
SECONDS = patient(130)
pytestmark = [pytest.mark.long, pytest.mark.needs_horovod, pytest.mark.timeout(patient(300))]


@pytest.fixture(autouse=True, scope="module")
def _machines_can_be_made() -> None:
    if problem := namespace_hosts.obstacle() or stack_hosts.obstacle():
        pytest.skip(problem)


@pytest.fixture
def stack(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Give `stack(launcher, wait, workers, *flags)`: the servers of a template."""

    def made(launcher: str, wait: str, workers: int, *flags: str) -> dict[str, Any]:
        changed = {"launcher": launcher, "wait_for": wait, "workers": str(workers)}
        program = "baselines/ddp.py" if launcher == "torchrun" else "horovod_gnn/train.py"
        changed |= {"requirements": ".", "entrypoint": program}
        assert main(heat_stacks.words("--make", "--", *flags, **changed)) == 0
        return heat_stacks.servers(yaml.safe_load(capsys.readouterr().out))

    return made


def machines(workers: int, folder: Path) -> Machines:
    addresses = {f"worker-{one}": worker_address(one) for one in range(workers)}
    return Machines({"master": MASTER, **addresses}, heat_stacks.GIVEN["repository"], folder)


def boot(there: Machines, servers: dict[str, Any], workers: int) -> str:
    """Start the machines as Heat does: workers once the master's key is there; the key."""
    there.start("master", heat_stacks.user_data(servers["master"], "", there.signals_at))
    key = ""
    if "key_state" in str(servers.get("worker")):
        there.until(lambda: there.signals("key_signal"), patient(30))
        key = there.signals("key_signal")[0]["data"]
    for one in range(workers):
        text = heat_stacks.user_data(servers["worker"], key, there.signals_at)
        there.start(f"worker-{one}", text)
    return key


def state(there: Machines, name: str) -> str:
    file = there.file(name, "var/lib/ringsage/state")
    return file.read_text("utf-8").strip() if file.exists() else ""


@pytest.mark.parametrize(
    ("launcher", "wait", "workers"),
    [("mpirun", "done", 2), ("horovodrun", "started", 1), ("torchrun", "none", 1)],
)
def test_the_machines_train_together(
    stack: Callable[..., dict[str, Any]],
    tmp_path: Path,
    run_cli: Run,
    launcher: str,
    wait: str,
    workers: int,
) -> None:
    servers = stack(launcher, wait, workers, *FLAGS, f"--records={FOLDER}")
    with machines(workers, tmp_path) as there:
        key = boot(there, servers, workers)
        there.until(lambda: state(there, "master") == "done", SECONDS)
        if wait == "none":
            assert there.signals("master_signal") == []
        else:
            assert [one["data"] for one in there.signals("master_signal")][-1].startswith("the job")
            ready = {one["id"]: one["data"] for one in there.signals("worker_signal")}
            assert ready.keys() == {f"worker-{one}" for one in range(workers)}
            assert len({*ready.values()}) == 1 and "installed" in ready["worker-0"]
            assert key.startswith("ssh-ed25519 ")
        checked_security(there, workers)
        records, problems = read_records(there.file("master", f"srv/ringsage/job/{FOLDER}"))
        assert not problems
        (record,) = records
        assert record.hosts == ["master", *(f"worker-{one}" for one in range(workers))]
        assert record.world_size == workers + 1
        losses = record.step_losses
    done = run_cli(
        ["python", "baselines/single.py", *FLAGS, f"--records={tmp_path}/here"], timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    ((here,), _) = read_records(tmp_path / "here")
    assert losses == pytest.approx(here.step_losses, rel=1e-12)


def checked_security(there: Machines, workers: int) -> None:
    """Nobody enters by password, and the private key is on the master alone."""
    for one in range(workers):
        there_is = there.file(f"worker-{one}", "srv/ringsage/.ssh")
        assert [file.name for file in there_is.iterdir()] == ["authorized_keys"]
    settings = there.ask("master", "sshd", "-T").splitlines()
    assert {"passwordauthentication no", "permitrootlogin no"} <= {*settings}
    private = there.file("master", "srv/ringsage/.ssh/id")
    assert private.stat().st_mode & 0o77 == 0 and private.read_text().count("PRIVATE KEY") == 2


def test_a_job_that_fails_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of a repository whose requirements pip installs."""
    hostile = "it's $(touch /srv/ringsage/made) `touch /srv/ringsage/made`"
    changed = {"launcher": "mpirun", "workers": "0", "entrypoint": "fails.py"}
    assert main(heat_stacks.words("--", hostile, requirements="parts", **changed)) == 0
    servers = heat_stacks.servers(yaml.safe_load(capsys.readouterr().out))
    with machines(0, tmp_path) as there:
        boot(there, servers, 0)
        with pytest.raises(AssertionError, match="FAILURE"):
            there.until(lambda: state(there, "master") == "done", SECONDS)
        (told,) = there.signals("master_signal")
        assert told["status"] == "FAILURE"
        assert f"cannot read {hostile}" in told["reason"] and "exit code 1" in told["reason"]
        assert state(there, "master") == "failed: the job ended with exit code 1"
        assert not there.file("master", "srv/ringsage/made").exists()
        said = there.file("master", "var/lib/ringsage/log").read_text()
        assert "Successfully installed launchers-1" in said
