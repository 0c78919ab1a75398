"""From the edges and seconds of a data benchmark to its rates, its record and its text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gnn_core.bench.frame import columns_text, was_busy
from gnn_core.measure import machine
from gnn_core.measure.timing import per_second

_MEANING = (
    "median over the rounds (least .. most); CPU time is that of all threads of the process, and "
    "tells what an idle core would do"
)
_COLUMNS = [
    "drawn by",
    "M edges/s of CPU time",
    "CPU range",
    "M edges/s elapsed",
    "elapsed range",
    "batches/s elapsed",
]
_HEADS = [
    ("", "M edges/s", "", "M edges/s", "", "batches/s"),
    ("drawn by", "CPU", "range", "elapsed", "range", "elapsed"),
]
_WIDTHS = (26, 9, 18, 11, 18, 12)


@dataclass(frozen=True)
class Round:
    """What one way of drawing drew in one round, and what that took."""

    edges: int
    input_nodes: int
    batches: int
    elapsed_seconds: float
    cpu_seconds: float  # of all threads of the process


def make_record(
    hardware: Mapping[str, Any],
    graph: Mapping[str, Any],
    settings: Mapping[str, Any],
    warm_up_seconds: float,
    rounds: Mapping[str, Sequence[Round]],
) -> dict[str, Any]:
    """Everything that was measured and what it was measured on, as JSON can hold it.

    Args:
        hardware: `machine.hardware()` from before the benchmark was a load of its own.
        graph: its name, nodes and edges.
        settings: what was asked for.
        warm_up_seconds: elapsed before the first round that counts.
        rounds: by way of drawing, in the order in which they are to be shown.
    """
    where = machine.origin(hardware)
    every = [one for way in rounds.values() for one in way]
    num_batches = sum(one.batches for one in every)
    return {
        "benchmark": "data",
        **where,
        "versions": {name: where["versions"][name] for name in ("python", "numpy", "numba")},
        "graph": dict(graph),
        "settings": dict(settings),
        "edges_per_batch": sum(one.edges for one in every) / num_batches,
        "input_nodes_per_batch": sum(one.input_nodes for one in every) / num_batches,
        "warm_up_seconds": warm_up_seconds,
        "rounds": {name: [asdict(one) for one in way] for name, way in rounds.items()},
        "columns": _COLUMNS,
        "rows": [_row(name, way) for name, way in rounds.items()],
        "notes": [_MEANING, *_warnings(hardware)],
    }


def text_of(record: Mapping[str, Any]) -> str:
    """A record as lines for a terminal."""
    cells = [[_cell(value) for value in row] for row in record["rows"]]
    table = columns_text([*_HEADS, *cells], _WIDTHS)
    return "\n".join([*_opening(record), "", table, "", *record["notes"]])


def _row(name: str, rounds: Sequence[Round]) -> list[Any]:
    cells: list[Any] = [name]
    for seconds in ("cpu_seconds", "elapsed_seconds"):
        rates = _rates([(one.edges / 1e6, getattr(one, seconds)) for one in rounds])
        cells += [
            statistics.median(rates) if rates else None,
            f"{min(rates):.1f} .. {max(rates):.1f}" if rates else None,
        ]
    batches = _rates([(one.batches, one.elapsed_seconds) for one in rounds])
    return [*cells, statistics.median(batches) if batches else None]


def _rates(rounds: Sequence[tuple[float, float]]) -> list[float]:
    """The rates of those rounds that took long enough for the clock to see it."""
    rates = [per_second(count, seconds) for count, seconds in rounds]
    return [rate for rate in rates if rate is not None]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _opening(record: Mapping[str, Any]) -> list[str]:
    hardware, graph, settings = record["machine"], record["graph"], record["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    fanouts = ",".join(map(str, settings["fanouts"]))
    return [
        f"machine   {hardware['cpu_model']}, cores for this job: {hardware['cores_available']}, "
        f"load {hardware['load_average']} before it began",
        f"software  {versions}",
        f"graph     {graph['name']}: {graph['nodes']:,} nodes, {graph['edges']:,} edges",
        f"a batch   {settings['global_batch_size']:,} targets, fan-outs {fanouts}: on average "
        f"{record['edges_per_batch']:,.0f} edges, {record['input_nodes_per_batch']:,.0f} nodes",
        f"a round   {settings['batches']} batches; {settings['rounds']} rounds each way, "
        f"seed {settings['seed']}",
        f"warm-up   {record['warm_up_seconds']:.1f} s before the first round: kernels compiled, "
        "pages fetched",
    ]


def _warnings(hardware: Mapping[str, Any]) -> list[str]:
    if not was_busy(hardware):
        return []
    return ["other programs were running: trust rates of CPU time more than elapsed ones"]
