"""Figures: what is drawn is what was recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gnn_core.measure.records import write_record
from gnn_core.report.analysis import main
from tests.unit.made_records import epoch, run

figures = pytest.importorskip(
    "gnn_core.report.figures.runs", reason="needs matplotlib", exc_type=ImportError
)

bars = pytest.importorskip(
    "gnn_core.report.figures.bars", reason="needs matplotlib", exc_type=ImportError
)


def test_figures_are_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    write_record(run(), folder)
    write_record(run(status="failed", error="x", epochs=[]), folder)
    assert main([str(folder), "--figures", str(tmp_path / "figures")]) == 0
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [file.name for file in drawn] == ["loss-cora.png", "time-cora.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)


def test_the_parts_of_a_bar_add_up_to_the_epoch() -> None:
    """Sections of other threads and of evaluation are not in it; what nobody claims is."""
    parts = {"compute": 3.0, "wait": 1.0, "evaluate": 50.0, "overlapped_sample": 7.0, "other": 0.5}
    one = dataclasses.replace(epoch(1, 8.0), sections=parts)
    record = run(epochs=[epoch(0, 100.0), one])
    (axes,) = bars.time_bars([record]).axes
    widths = {part.get_label(): part[0].get_width() for part in axes.containers}
    assert widths == {"compute": 3.0, "wait": 1.0, "other": 4.0}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["single"]


def test_loss_curves_are_drawn_over_epochs_with_their_distance_to_single() -> None:
    """A batch of 70 makes two steps of 140 targets; equal losses have no place on a log axis."""
    small = {"global_batch_size": 70}
    base = run(config=small, step_losses=[4.0, 3.0, 2.0, 1.0])
    near = run("horovod", 2, config=small, step_losses=[4.0, 3.5, 2.0, 1.25])
    late = run(
        "ddp",
        2,
        config=small,
        step_losses=[1.5],
        epochs=[epoch(1, 8.0)],
        resumed_from={"epoch": 1},
        config_digest="other",
    )
    above, below = figures.loss_curves([near, late, base]).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in above.lines}
    assert drawn["single"] == [[0.25, 4.0], [0.75, 3.0], [1.25, 2.0], [1.75, 1.0]]
    assert drawn["ddp, 2 ranks"] == [[1.75, 1.5]]
    distances = [line.get_xydata().tolist() for line in below.lines]
    assert [[0.75, 0.5], [1.75, 0.25]] in distances
    assert sum(map(len, distances)) == 2
    assert above.get_ylabel() and below.get_xlabel() == "epoch"
    assert len(figures.loss_curves([near]).axes) == 1


def test_many_seeds_share_a_name() -> None:
    """Three are told apart; the names of thirteen would take the room of their curves."""
    for number, named in ((3, "single, seed 2"), (13, "single, 13 seeds")):
        runs = [run(config={"seed": seed}) for seed in range(number)]
        texts = [text.get_text() for text in figures.loss_curves(runs).legends[0].texts]
        assert named in texts and len(texts) == (number if number == 3 else 1)
