"""The settings of a parameter server, a part of `table`."""

from __future__ import annotations

from dataclasses import dataclass

from gnn_core.settings.options import STALENESS, option

_SERVER = "parameter server"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The fields of `gnn_core.settings.table.Settings` that baselines/param_server.py alone has."""

    workers: int = option(2, _SERVER, "processes that compute gradients", low=1, high=1024)
    servers: int = option(
        1, _SERVER, "processes that hold the parameters, a shard each", low=1, high=256
    )
    standby: bool = option(
        False, _SERVER, "a second process for each server, which takes its place when it is lost"
    )
    staleness: str = option(
        "0",
        _SERVER,
        "steps that a worker may be ahead of the slowest: 0 is synchronous, with the loss curve of "
        "one process; inf is asynchronous, without a bound",
        metavar=STALENESS,
        curve=True,
        newer=True,
    )
    compress: str = option(
        "none",
        _SERVER,
        "what a worker sends of its gradients: all (none), all as float16 (fp16), or the share R "
        "of the entries that are largest (topk:R, such as topk:0.01); what is left out is added to "
        "its next gradient",
        metavar="none|fp16|topk:R",
        curve=True,
        newer=True,
    )
    role: str = option(
        "all",
        _SERVER,
        "what this process is; all starts a coordinator, its servers and its workers on this host",
        choices=("all", "coordinator", "server", "worker"),
    )
    coordinator: str | None = option(
        None,
        _SERVER,
        "where the coordinator listens, and where servers and workers reach it (default with "
        "--role all: a free port of this host)",
        metavar="HOST:PORT",
    )
    secret_file: str | None = option(
        None,
        _SERVER,
        "file with the secret of the job, which all its processes need unless "
        "$RINGSAGE_JOB_SECRET has it",
        metavar="FILE",
    )

    journal: str | None = option(
        None,
        _SERVER,
        "file that gets the order of all updates, with which --replay makes the run once more",
        metavar="FILE",
    )
    replay: str | None = option(
        None,
        _SERVER,
        "journal of a run that is made once more, to the last bit, in this process alone",
        metavar="FILE",
    )
