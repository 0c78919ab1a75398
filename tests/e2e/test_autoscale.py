"""An elastic job that `autoscale` gives more workers, and then fewer; its curve stays.

Names of this machine stand for the hosts of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.measure.records import write_record
from tests.e2e.jobs import job
from tests.e2e.small import LAUNCHERS, TRAIN, Place, assert_same_curve
from tests.e2e.test_elastic import FIRST, FP64, SECOND, Hosts, until_said
from tests.unit.made_records import run

EPOCHS = 1000  # so that hosts are found while it trains
pytestmark = [pytest.mark.needs_horovod, pytest.mark.long]


def test_a_job_grows_and_shrinks_by_policy_and_keeps_its_curve(
    place: Place, run_cli: Callable, single: Callable
) -> None:
    hosts = Hosts(place.folder)
    hosts.are(FIRST)
    scaling = place.folder / "scaling"
    for workers, seconds in ((1, 4.0), (2, 2.5)):
        write_record(run("horovod", workers, seconds), scaling)

    def autoscale(policy: str, said: str) -> None:
        log = place.folder / "job.log"
        log.write_text(said)
        words = ["--policy", policy, "--resize-seconds", "0", "--log", log]
        words += ["--host-file", place.folder / "hosts", "--hosts", FIRST, SECOND]
        command = ["python", "-m", "gnn_core.deploy", "autoscale", scaling, *words]
        done = run_cli([str(word) for word in command])
        assert done.returncode == 0, done.stderr

    flags = place.saving(epochs=EPOCHS, eval_every=10, checkpoint_every_steps=3, progress="lines")
    launcher = [str(LAUNCHERS / "horovodrun"), "-np", "1", "--slots-per-host", "1"]
    launcher += ["--network-interfaces", "lo", "--host-discovery-script", str(hosts.script)]
    with job([*launcher, "python", TRAIN, *flags], place.folder) as started:
        until_said(started, f"epoch 3/{EPOCHS}")
        autoscale("efficiency:0.7", started.out)
        until_said(started, "goes on    on 2 ranks from epoch")
        until_said(started, "epoch ")
        autoscale("budget:1", started.out)
        until_said(started, "goes on    on 1 rank from epoch")
        assert started.end() == 0, started.err
    record = place.record()
    assert [sum(world.ranks_per_host) for world in record.worlds] == [1, 2, 1]
    whole = Place(place.folder / "whole", place.cache)
    assert single(whole.flags(epochs=EPOCHS, eval_every=10, progress="off")).code == 0
    assert_same_curve([record], whole.record(), FP64)
    assert Path(place.folder, "hosts").read_text() == f"{FIRST}\n"
