"""What keeps the ranks of an elastic MPIJob from going and joining is told before it is applied."""

from __future__ import annotations

from typing import Any

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS
from tests.unit.made_manifests import LAUNCHER, objects_of, reported, spoil

COMMAND = f"{LAUNCHER}.containers.0.command"
SCRIPT = "--host-discovery-script=/opt/ringsage/mpi-operator/discover_hosts.sh"


def elastic() -> list[dict[str, Any]]:
    return objects_of(MANIFESTS / "overlays" / "elastic")


def with_command(change: Any) -> list[str]:
    """What is told of the job when its command was changed."""
    objects = elastic()
    job = next(one for one in objects if one["kind"] == "MPIJob")
    words = job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    words["command"] = change(list(words["command"]))
    return reported(objects)


def replaced(old: str, new: str | None) -> Any:
    def change(words: list[str]) -> list[str]:
        assert old in words
        return [new if word == old else word for word in words if word != old or new is not None]

    return change


def test_the_overlay_is_in_order() -> None:
    assert reported(elastic()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SCRIPT, "--host-discovery-script=/etc/mpi/discover_hosts.sh", "not answer, got /etc"),
        (SCRIPT, None, "all ranks in the launcher's pod"),
        ("horovodrun", "mpirun", "mpirun: unknown option"),
        ("--slots-per-host=1", None, "--slots-per-host: expected 1, the job's slotsPerWorker, got"),
        ("--slots-per-host=1", "--slots-per-host=2", "slotsPerWorker, got 2"),
        ("--network-interfaces=eth0", None, "--network-interfaces: expected eth0, got none"),
        ("-np=1", None, "-np: expected 1 to 2, as many ranks as it takes to begin, got none"),
        ("-np=1", "-np=3", "-np: expected 1 to 2"),
        ("-np=1", "-np=0", "-np: expected 1 to 2"),
        ("--elastic-timeout=600", "--min-np=2", "--min-np: expected 1 to 1, the -np, got 2"),
        ("--elastic-timeout=600", "--max-np=0", "--max-np: expected 1, the -np, or more, got 0"),
        (
            "/opt/ringsage/horovod_gnn/train.py",
            "/opt/ringsage/baselines/ddp.py",
            "expected horovod_gnn/train.py, got baselines/ddp.py",
        ),
    ],
)
def test_a_slip_in_the_command_is_reported(old: str, new: str | None, message: str) -> None:
    found = with_command(replaced(old, new))
    assert [line for line in found if message in line], found


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--scale-lr", "learning rate would change"), ("--world-size=2", "--min-np and --max-np")],
)
def test_flags_that_bind_a_run_to_a_number_of_ranks_are_refused(flag: str, message: str) -> None:
    objects = elastic()
    spoil(objects, "MPIJob", f"{LAUNCHER}.containers.0.args.8", flag)
    (line,) = reported(objects)
    assert message in line


def test_slots_have_to_agree() -> None:
    objects = elastic()
    spoil(objects, "MPIJob", "spec.slotsPerWorker", 2)
    assert any("--slots-per-host: expected 2" in line for line in reported(objects))
