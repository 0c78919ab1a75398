"""The table of communication: what workers sent for rows, and for neighbours drawn elsewhere."""

from __future__ import annotations

import pytest

from gnn_core.measure.run_record import ExchangeRecord, RunRecord
from gnn_core.report.tables.speed import communication_table
from tests.unit.made_records import run

MIB = 2**20


def exchange(**changes: object) -> ExchangeRecord:
    """Of two ranks, each of which took ten steps."""
    rank = {
        **{"parts": 2, "method": "refine", "transport": "MPI", "topology": "whole", "steps": 10},
        **{"input_rows": 1000, "remote_rows": 400, "needed_rows": 300, "cached_rows": 30},
        **{"rows_received": 270, "bytes_sent": 20 * MIB, "rounds": 2, "seconds": 1.0},
        **{"sampled_nodes": 0, "sampling_bytes": 0, "sampling_rounds": 0, "sampling_seconds": 0.0},
    }
    slower = {"seconds": 2.0, "sampling_seconds": 2.5 * bool(changes)}
    return ExchangeRecord.of([rank | changes, rank | changes | slower])  # type: ignore[list-item]


def on_parts(**changes: object) -> RunRecord:
    return run("horovod", 2, 10.0, exchange=exchange(**changes), training_seconds=100.0)


def test_sampling_stands_beside_rows_where_there_is_any() -> None:
    whole = communication_table([on_parts()])
    assert "MiB" in whole.headings and "sampling MiB" not in whole.headings
    sampled = {"topology": "parts", "sampled_nodes": 5, "sampling_rounds": 4}
    table = communication_table([on_parts(**sampled, sampling_bytes=5 * MIB)])
    (line,) = (dict(zip(table.headings, cells, strict=True)) for cells in table.cells)
    assert (line["MiB"], line["sampling MiB"]) == ("2.00", "0.5")
    assert [line[name].split()[0] for name in ("exchange", "sampling")] == ["2", "2"]
    (numbers,) = table.numbers.to_dict("records")
    assert numbers["sampling_bytes_per_step"] == MIB / 2
    assert numbers["sampling_rounds_per_step"] == pytest.approx(0.4)
    assert numbers["sampling_share"] == pytest.approx(0.025)
