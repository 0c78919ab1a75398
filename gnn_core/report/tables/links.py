"""The table of link prediction: workers, epochs, minutes and how well references are ranked."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from gnn_core.measure.metrics import HITS
from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.measure.timing import per_second
from gnn_core.number_text import NOTHING, percent
from gnn_core.report.rows import Row, Spread, grouped, machine_kind, row_of, settings_of
from gnn_core.report.table import (
    CROWDED,
    Column,
    Table,
    left_out,
    middle,
    middle_text,
    settings_column,
)
from gnn_core.strategies import order_of

_SCORES = ("mrr", *(f"hits_{most}" for most in HITS), "auc")
_OF_PAIRS = ("pair_accuracy", "average_precision")  # older records lack them
_OF_PAIRS_MEANING = (
    "accuracy, AP (average precision): the test references against as many pairs without a "
    "citation, with the threshold chosen on validation"
)
_MEANING = (
    "minutes: training and evaluation together; evaluation: its share of them; citations/s: "
    "training alone, after the first epoch; medians over runs",
    "MRR, hits and AUC of the test references: mean over seeds, MRR ± standard deviation; AUC: "
    "share of its candidates that a reference beats",
)
Line = tuple[Row, dict[str, Any]]


def _score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.2f}"


def _rate(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.middle:,.0f}"


def link_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per data set, strategy, workers and epochs, over seeds and repeats."""
    good = [run for run in records if run.status == "ok" and run.config.get("task") == "link"]
    groups = sorted(grouped(good, _key), key=lambda runs: _key(runs[0]))
    lines = [(row_of(runs), _numbers(runs)) for runs in groups]
    of_pairs = any(numbers["pair_accuracy"] is not None for _, numbers in lines)

    def measure(
        heading: str | None, name: str, form: Callable[[Any], str] = _score
    ) -> Column[Line]:
        return Column(heading, name, lambda line: line[1][name], form)

    columns: list[Column[Line]] = [
        Column("dataset", "dataset", lambda line: line[0].dataset),
        Column("strategy", "strategy", lambda line: line[0].strategy),
        Column("workers", None, lambda line: f"{line[0].ranks}{'*' * line[0].crowded}"),
        Column(None, "ranks", lambda line: line[0].ranks),
        measure("epochs", "epochs", str),
        measure("minutes", "minutes", middle_text),
        measure("evaluation", "evaluation_share", lambda spread: percent(middle(spread))),
        measure("citations/s", "citations_per_second", _rate),
        Column("test MRR", None, _mrr),
        measure(None, "mrr"),
        *(measure(f"hits@{most}", f"hits_{most}") for most in HITS),
        measure("AUC", "auc"),
        measure("accuracy %" if of_pairs else None, "pair_accuracy", _percent),
        measure("AP" if of_pairs else None, "average_precision"),
        measure(None, "mrr_sd"),
        measure("seeds", "seeds", str),
        Column(None, "runs", lambda line: line[0].runs),
        Column(None, "crowded", lambda line: line[0].crowded),
        *settings_column(
            lines, lambda line: line[1]["settings"], lambda line: line[0].dataset, precision=True
        ),
    ]
    marks = [CROWDED] if any(row.crowded for row, _ in lines) else []
    machines = [f"machine: {kind}" for kind in dict.fromkeys(machine_kind(run) for run in good)]
    meaning = (*marks, *_MEANING, *([_OF_PAIRS_MEANING] if of_pairs else []))
    return Table.of(lines, columns, (*meaning, *machines, *left_out(records)))


def _settings(run: RunRecord) -> dict[str, Any]:
    """What tells rows apart, but for what has a column of its own or goes with the strategy."""
    apart = ("epochs", "controller")
    return {name: value for name, value in settings_of(run).items() if name not in apart}


def _key(run: RunRecord) -> tuple[Any, ...]:
    return (
        run.dataset.name,
        str(sorted(_settings(run).items(), key=str)),
        run.config.get("epochs"),
        order_of(run.strategy),
        run.world_size,
    )


def _numbers(runs: Sequence[RunRecord]) -> dict[str, Any]:
    seconds = [
        (run.training_seconds, run.evaluation_seconds)
        for run in runs
        if run.training_seconds is not None and run.evaluation_seconds is not None
    ]
    epochs = [epoch for run in runs for epoch in measured_epochs(run) or run.epochs]
    by_seed: dict[Any, RunRecord] = {run.config.get("seed"): run for run in runs}
    found = {
        name: [run.final.get(f"test_{name}") for run in by_seed.values()]
        for name in (*_SCORES, *_OF_PAIRS)
    }
    scores = {name: [float(v) for v in values if v is not None] for name, values in found.items()}
    return {
        "settings": _settings(runs[0]),
        "epochs": runs[0].config.get("epochs"),
        "minutes": Spread.of(sum(both) / 60 for both in seconds),
        "evaluation_share": Spread.of(late / max(early + late, 1e-9) for early, late in seconds),
        "citations_per_second": Spread.of(
            per_second(one.num_targets, one.seconds) for one in epochs
        ),
        **{name: statistics.fmean(values) if values else None for name, values in scores.items()},
        "mrr_sd": statistics.stdev(scores["mrr"]) if len(scores["mrr"]) > 1 else None,
        "seeds": len(by_seed),
    }


def _mrr(line: Line) -> str:
    deviation = line[1]["mrr_sd"]
    return _score(line[1]["mrr"]) + ("" if deviation is None else f" ± {deviation:.4f}")
