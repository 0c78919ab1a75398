"""What a run held in memory: the graph once per host, and what each rank has to itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gnn_core.measure.run_record import DatasetInfo, RunRecord
from gnn_core.report.rows import settings_of
from gnn_core.report.table import Column, Table, gib_text, graph_mark, left_out, settings_column
from gnn_core.strategies import order_of

_TWO_BYTE_FEATURES = re.compile(r"feature_dtype=b?float16\b")
_MEANING = (
    "in GiB; graph: the arrays that training reads (offsets, neighbours, features, labels, "
    "splits), computed from their counts",
    "PSS, at the end of a run, divides shared pages among their users: its sum is what the ranks "
    "hold together, while RSS counts the graph in each of them",
    "own per rank: (sum of PSS - one graph per host) / ranks",
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one run; None where the record does not say."""

    graph: int | None  # on one host
    pss: int | None  # summed over ranks
    largest_peak_rss: int | None  # of any rank
    own_per_rank: float | None  # PSS without the graph; negative when parts were never read


def memory_table(records: Sequence[RunRecord]) -> Table:
    """Return the memory of each run that ended well, in GiB."""
    runs = sorted((run for run in records if run.status == "ok"), key=_order)
    lines = [(run, footprint(run)) for run in runs]
    notes = [*_MEANING]
    untold = [run for run in runs if run.dataset.feature_bytes is None]
    if any(graph_bytes(run.dataset) is not None for run in untold):
        notes.append(_feature_note(untold))
    if any((one.own_per_rank or 0) < 0 for _, one in lines):
        notes.append("below 0: parts of the graph were not in memory at the end of the run")

    def gib(heading: str, name: str) -> Column[tuple[RunRecord, Footprint]]:
        return Column(heading, name, lambda line: getattr(line[1], name), gib_text)

    columns = [
        Column("dataset", None, lambda line: line[0].dataset.name),
        Column("strategy", None, lambda line: line[0].strategy),
        Column("ranks", None, lambda line: _ranks(line[0])),
        gib("graph", "graph"),
        gib("sum of PSS", "pss"),
        gib("largest peak RSS", "largest_peak_rss"),
        gib("own per rank", "own_per_rank"),
        *settings_column(
            lines,
            lambda line: settings_of(line[0]) | {"graph": graph_mark(line[0].dataset.fingerprint)},
            lambda line: line[0].dataset.name,
            precision=True,
        ),
    ]
    return Table.of(lines, columns, (*notes, *left_out(records)))


def footprint(run: RunRecord) -> Footprint:
    """Return what a run held; a sum is known only when every rank reported its part."""
    graph = graph_bytes(run.dataset, run.config.get("table_dtype", "stored"))
    peaks = [rank.peak_rss_bytes for rank in run.memory if rank.peak_rss_bytes is not None]
    parts = [rank.pss_bytes for rank in run.memory if rank.pss_bytes is not None]
    pss = sum(parts) if len(parts) == run.world_size else None
    own = None
    if pss is not None and graph is not None:
        own = (pss - graph * len(run.hosts)) / run.world_size
    return Footprint(graph, pss, max(peaks, default=None), own)


def graph_bytes(dataset: DatasetInfo, table_dtype: str = "stored") -> int | None:
    """Return the size of the arrays that training reads, from their counts; None when unknown."""
    nodes, edges, features = dataset.num_nodes, dataset.num_edges, dataset.num_features
    if nodes is None or edges is None or features is None:
        return None
    wide = 8 if nodes >= 2**31 else 4
    label_and_split = 4 + 1
    feature_bytes = dataset.feature_bytes if table_dtype == "stored" else None
    if feature_bytes is None:
        feature_bytes = _feature_bytes(dataset, table_dtype) * features * nodes
    return 8 * (nodes + 1) + wide * edges + feature_bytes + label_and_split * nodes


def _feature_bytes(dataset: DatasetInfo, table_dtype: str) -> int:
    two = table_dtype != "stored" or _TWO_BYTE_FEATURES.search(dataset.name)
    return 2 if two else 4


def _feature_note(runs: Sequence[RunRecord]) -> str:
    sizes = sorted(
        {_feature_bytes(run.dataset, run.config.get("table_dtype", "stored")) for run in runs}
    )
    counted = " or ".join(str(size) for size in sizes)
    named = ", by the data set's name and --table-dtype," if 2 in sizes else ""
    return (
        f"an older record does not tell the size of the features: counted{named} with {counted} "
        "bytes per number"
    )


def _order(run: RunRecord) -> tuple[str, int, int, str]:
    return run.dataset.name, order_of(run.strategy), run.world_size, run.started_at


def _ranks(run: RunRecord) -> str:
    hosts = f" ({'+'.join(map(str, run.ranks_per_host))})" if len(run.hosts) > 1 else ""
    return f"{run.world_size}{hosts}"
