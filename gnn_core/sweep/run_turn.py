"""One run of a sweep, from its start to its record, which is written for a run that died too."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from gnn_core.config import parse_config
from gnn_core.measure import machine
from gnn_core.measure.records import begin_run, read_records, record_files, write_record
from gnn_core.measure.run_record import DatasetInfo, RunRecord, utc_now
from gnn_core.sweep.child import reason, run_to_end
from gnn_core.sweep.launches import ROOT
from gnn_core.sweep.turns import Turn

LOG = "run.log"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    record: RunRecord
    error: str | None  # None when it ended well
    seconds: float  # from its start to its end, starting processes included


def take_turn(turn: Turn, records: Path) -> Outcome:
    """Run it in its own folder below `records`; raises KeyboardInterrupt when it was stopped.

    Its output is kept in LOG beside its record unless it ended well. A run that died before it
    could write a record gets one here. Records of earlier tries that were stopped are removed,
    since this run stands for them; those of earlier tries that failed stay.
    """
    folder = records / turn.place
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    known = set(record_files(folder))
    started_at, start = utc_now(), time.monotonic()
    code = run_to_end(turn.command(records), log)
    seconds = time.monotonic() - start
    left = [file for file in record_files(folder) if file not in known]
    found = read_records(*left)[0] if left else []
    if found:
        record = found[-1]
        error = record.error or (reason(log, code) if code else None)
    else:
        error = reason(log, code) if code else "it ended well but left no record that can be used"
        record = _record_without_run(turn, records, started_at, error)
        write_record(record, folder)
    if error is None:
        log.unlink()
    if record.status != "interrupted":
        _remove_interrupted(known)
    return Outcome(record, error, seconds)


def _record_without_run(turn: Turn, records: Path, started_at: str, error: str) -> RunRecord:
    """The record that the run would have begun with: of its graph only the name is known."""
    config = parse_config(turn.flags(records), turn.launch.strategy)
    begun = begin_run(
        strategy=turn.launch.strategy,
        config=config.to_dict(),
        config_digest=config.digest(),
        dataset=DatasetInfo(turn.dataset.name),
        rank_hosts=[machine.host_name()] * turn.launch.ranks,
    )
    typed = shlex.join(machine.presentable(turn.command(records), ROOT))
    return begun.finished("failed", error, started_at=started_at, launch_command=typed)


def _remove_interrupted(files: set[Path]) -> None:
    for file in files:
        found, problems = read_records(file)
        if found and not problems and all(record.status == "interrupted" for record in found):
            file.unlink()
