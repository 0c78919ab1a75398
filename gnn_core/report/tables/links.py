"""The table of link prediction: workers, epochs, minutes and how well references are ranked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from gnn_core.measure.metrics import HITS
from gnn_core.measure.run_record import RunRecord, measured_epochs
from gnn_core.measure.timing import per_second
from gnn_core.number_text import NOTHING, percent, three_digits
from gnn_core.report.rows.summary import grouped, machine_kind, row_of, settings_of
from gnn_core.report.tables.cells import Table, differing_settings, left_out
from gnn_core.report.tables.speed import CROWDED
from gnn_core.strategies import order_of

_SCORES = ("mrr", *(f"hits_{most}" for most in HITS), "auc")
# What older records lack; without any, there is no column either.
_OF_PAIRS = {"pair_accuracy": "accuracy %", "average_precision": "AP"}
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


def link_table(records: Sequence[RunRecord]) -> Table:
    """Return one line per data set, strategy, workers and epochs, over seeds and repeats."""
    good = [run for run in records if run.status == "ok" and run.config.get("task") == "link"]
    groups = grouped(good, _key)
    groups.sort(key=lambda runs: _key(runs[0]))
    differing = differing_settings(
        [_settings(runs[0]) for runs in groups],
        [runs[0].dataset.name for runs in groups],
        precision=True,
    )
    lines = [_numbers(runs) for runs in groups]
    of_pairs = any(line["pair_accuracy"] is not None for line in lines)
    cells = []
    for line, text in zip(lines, differing, strict=True):
        deviation = f" ± {line['mrr_sd']:.4f}" if line["mrr_sd"] is not None else ""
        crowded = "*" if line["crowded"] else ""
        cells.append(
            (
                line["dataset"],
                line["strategy"],
                f"{line['ranks']}{crowded}",
                str(line["epochs"]),
                three_digits(line["minutes"]),
                percent(line["evaluation_share"]),
                _text(line["citations_per_second"], ",.0f"),
                f"{_text(line['mrr'])}{deviation}",
                *(_text(line[name]) for name in _SCORES[1:]),
                *(_of_pairs(line) if of_pairs else []),
                str(line["seeds"]),
                *([text or NOTHING] if any(differing) else []),
            )
        )
    marks = [CROWDED] if any(line["crowded"] for line in lines) else []
    machines = dict.fromkeys(machine_kind(run) for run in good)
    return Table(
        headings=(
            *("dataset", "strategy", "workers", "epochs", "minutes", "evaluation", "citations/s"),
            *("test MRR", *(f"hits@{most}" for most in HITS), "AUC"),
            *(_OF_PAIRS.values() if of_pairs else []),
            "seeds",
            *(["settings"] if any(differing) else []),
        ),
        cells=tuple(cells),
        notes=(
            *(*marks, *_MEANING, *([_OF_PAIRS_MEANING] if of_pairs else [])),
            *(f"machine: {kind}" for kind in machines),
            *left_out(records),
        ),
        numbers=pd.DataFrame(lines),
    )


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
    first = runs[0]
    seconds = [
        (run.training_seconds, run.evaluation_seconds)
        for run in runs
        if run.training_seconds is not None and run.evaluation_seconds is not None
    ]
    rates = [
        per_second(epoch.num_targets, epoch.seconds)
        for run in runs
        for epoch in measured_epochs(run) or run.epochs
    ]
    by_seed: dict[Any, RunRecord] = {run.config.get("seed"): run for run in runs}
    scores = {
        name: [
            float(value)
            for run in by_seed.values()
            if (value := run.final.get(f"test_{name}")) is not None
        ]
        for name in (*_SCORES, *_OF_PAIRS)
    }
    return {
        "dataset": first.dataset.name,
        "strategy": first.strategy,
        "ranks": first.world_size,
        "epochs": first.config.get("epochs"),
        "minutes": _median([sum(both) / 60 for both in seconds]),
        "evaluation_share": _median(
            [evaluation / max(training + evaluation, 1e-9) for training, evaluation in seconds]
        ),
        "citations_per_second": _median([rate for rate in rates if rate is not None]),
        **{name: statistics.fmean(values) if values else None for name, values in scores.items()},
        "mrr_sd": statistics.stdev(scores["mrr"]) if len(scores["mrr"]) > 1 else None,
        "seeds": len(by_seed),
        "runs": len(runs),
        "crowded": row_of(runs).crowded,
    }


def _of_pairs(line: dict[str, Any]) -> list[str]:
    accuracy = line["pair_accuracy"]
    return [
        _text(None if accuracy is None else 100 * accuracy, ".2f"),
        _text(line["average_precision"]),
    ]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _text(value: float | None, form: str = ".4f") -> str:
    return NOTHING if value is None else format(value, form)
