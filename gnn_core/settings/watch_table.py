"""The settings of what watches a run from outside, a part of `table`."""

from __future__ import annotations

from dataclasses import dataclass

from gnn_core.settings.options import option

_OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """The fields of `gnn_core.settings.table.Settings` for monitoring systems."""

    metrics_port: int = option(
        0,
        _OUTPUT,
        "port where the first rank of a host serves metrics for Prometheus, the next rank at the "
        "next port, and so on; 0 serves none",
        low=0,
        high=65_535,
        newer=True,
    )
    metrics_textfile: str | None = option(
        None,
        _OUTPUT,
        "file of the same metrics for the textfile collector of node_exporter: NAME.prom becomes "
        "NAME.rank0.prom and so on (default: none is written)",
        metavar="NAME",
        newer=True,
    )
    trace: str | None = option(
        None,
        _OUTPUT,
        "file of what each rank did when, in Chrome's trace event format, which Perfetto shows: "
        "NAME.json becomes NAME.rank0.json and so on (default: none is written)",
        metavar="NAME",
        newer=True,
    )
    log_format: str = option(
        "text",
        _OUTPUT,
        "how lines are printed: as they are, or each as a JSON object with time, level, rank, host "
        "and run id",
        choices=("text", "json"),
        newer=True,
    )
