"""Writes and reads run records: one JSON line per run, one file per run.

A failed run writes a record too. A number that is not one (NaN, infinity) is stored as null and
makes the run a failed one; nothing that is read here ever turns it into 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gnn_core.config import UsageError
from gnn_core.files import file_stem, files_among, read_regular, reason, remedy
from gnn_core.measure import machine
from gnn_core.measure.run_record import SCHEMA_VERSION, DatasetInfo, RunRecord, count_ranks, utc_now
from gnn_core.measure.soundness import checked, odd_facts, problems_of
from gnn_core.measure.strict_json import WrongShape, build, one_line, parse
from gnn_core.usage import printable
from gnn_core.whole_file import replace_file

PUBLISHED = "reference"
"""Folder of the records that the project's own figures are made of."""
_MOST_LINE_BYTES = 64 << 20
_SUM = re.compile(r', "sha256": "[0-9a-f]{64}"\}$')
_MOST_BYTES = 1 << 30


def begin_run(
    *,
    strategy: str,
    config: dict[str, Any],
    config_digest: str,
    dataset: DatasetInfo,
    rank_hosts: Sequence[str],
    controller: str | None = None,
    **more: Any,
) -> RunRecord:
    """Return the record of a run that starts now, on rank 0; `finished` completes it.

    `rank_hosts`: for each rank in order, the name of the host it runs on (`machine.host_name()`).
    Takes the machine, versions, commit and launch command itself; call it before ranks are pinned.
    """
    hosts, ranks_per_host = count_ranks(rank_hosts)
    commit, dirty = machine.commit()
    return RunRecord(
        run_id=uuid.uuid4().hex,
        started_at=utc_now(),
        strategy=strategy,
        launch_command=machine.launch_line(),
        world_size=len(rank_hosts),
        hosts=hosts,
        ranks_per_host=ranks_per_host,
        config=config,
        config_digest=config_digest,
        dataset=dataset,
        machine=machine.hardware(),
        versions=machine.versions(),
        commit=commit,
        dirty=dirty,
        controller=controller,
        **more,
    )


def file_name(record: RunRecord) -> str:
    """Return `<started>-<strategy>-<dataset>-np<world>-<run_id[:8]>.jsonl`; sorts by start."""
    started = re.sub(r"[-:]|\.\d+", "", record.started_at).replace("+0000", "Z")
    dataset = file_stem(record.dataset.name)
    return f"{started}-{record.strategy}-{dataset}-np{record.world_size}-{record.run_id[:8]}.jsonl"


def require_writable(directory: str | Path, setting: str = "records") -> None:
    """Raise UsageError unless files can be written to `directory`; creates it.

    For the start of a run: hours later is too late to learn that its record has no place.
    `setting` names the one that says where.
    """
    folder = Path(directory)
    probe = folder / f".probe-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
    except OSError as problem:
        raise _unwritable(folder, problem, setting) from None
    finally:
        _remove_quietly(probe)


def write_record(record: RunRecord, directory: str | Path) -> Path:
    """Write the record as one line to its own file in `directory`; return the file's path.

    Appears whole or not at all. A record that cannot be true is written as a failed run that says
    why. Raises UsageError when the folder cannot be made or written, or the disk is full.
    """
    values, _ = checked(record)
    # A byte of a name that is no UTF-8 is half of a surrogate pair: JSON spells it \udc80.
    text = one_line(values).encode("utf-8", "backslashreplace").decode("utf-8")
    line = _with_sum(text) + "\n"
    folder = Path(directory)
    path = folder / file_name(record)
    try:
        replace_file(path, line)
    except OSError as problem:
        raise _unwritable(folder, problem) from None
    return path


def keep_record(record: RunRecord, directory: str | Path) -> Path:
    """Write the record to `directory`; the file.

    Whatever keeps it from being written there, a run that took hours is not lost to it: it is put
    elsewhere, or at last on stderr, and a UsageError says where.
    """
    try:
        return write_record(record, directory)
    except Exception as error:  # noqa: BLE001 - reported below
        problem = str(error)
    for place in (tempfile.gettempdir, Path.cwd, Path.home):
        with contextlib.suppress(Exception):
            path = write_record(record, place())
            break
    else:
        values = dataclasses.asdict(record)
        print(json.dumps(values, default=str), file=sys.stderr)
        raise UsageError(f"{problem}; the record of this run is the line before this one")
    raise UsageError(f"{problem}; the record of this run is in {path}")


def read_records(*paths: str | Path) -> tuple[list[RunRecord], list[str]]:
    """Return the records in files and folders (*.jsonl, *.jsonl.gz), oldest first.

    Folders are searched downwards.

    The second list names, a line each, what could not be used: a broken or cut line, another schema
    version, NaN, a measurement that cannot be true, a run that is there twice. The rest is used.
    Raises UsageError when a path does not exist or cannot be read.
    """
    records: dict[str, tuple[RunRecord, str]] = {}
    files, problems = _found(paths)
    for file in files:
        try:
            lines = _lines(file)
        except UsageError as problem:
            if len(files) == 1:
                raise
            problems.append(str(problem))
            continue
        for where, line in lines:
            try:
                record = _record_of(line)
            except WrongShape as problem:
                problems.append(printable(f"{where}: {problem}"))
                continue
            first = records.setdefault(record.run_id, (record, where))
            if first[1] != where:
                problems.append(f"{where}: run {record.run_id[:8]} is also in {first[1]}")
    good = [record for record, _ in records.values()]
    return sorted(good, key=lambda record: (record.started_at, record.run_id)), problems


def record_files(*paths: str | Path) -> list[Path]:
    """Return the files of records among and under `paths`, each once; raises UsageError.

    What lies below a folder `reference` is of other machines than the reader's, and is found only
    where that folder, or one in it, is among the paths.
    """
    return _found(paths)[0]


def _found(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The files of records, and what could not be looked at."""
    given = [Path(path) for path in paths]
    found, problems = files_among(given, (".jsonl", ".jsonl.gz"), "run records")
    return [file for file in found if _is_meant(file, given)], problems


def _is_meant(file: Path, given: Sequence[Path]) -> bool:
    above = [path for path in given if file.is_relative_to(path)]
    return any(PUBLISHED not in file.relative_to(path).parts for path in above)


def _lines(file: Path) -> list[tuple[str, str]]:
    """Return (`file:number`, line) for each line that is not blank. Raises UsageError."""
    pieces = read_regular(file, _MOST_BYTES).split(b"\n")  # a longer one is cut, and then no JSON
    lines = [piece[:_MOST_LINE_BYTES].decode("utf-8", errors="replace") for piece in pieces]
    return [(f"{file}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _with_sum(line: str) -> str:
    """Return the object in a line with a last entry: the SHA-256 of the line without it."""
    return f'{line[:-1]}, "sha256": "{hashlib.sha256(line.encode()).hexdigest()}"}}'


def _record_of(line: str) -> RunRecord:
    """Return the sound record in one line; raises WrongShape with the reason there is none."""
    value = parse(line)
    if not isinstance(value, dict):
        raise WrongShape("not a run record (expected a JSON object)")
    has_sum = value.pop("sha256", None) is not None  # older records have none
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        raise WrongShape(f"schema version {version!r}, this reads {SCHEMA_VERSION}")
    record = build(RunRecord, value)
    problems = odd_facts(record)
    problems += problems_of(record) if record.status == "ok" and not problems else []
    if problems:
        raise WrongShape("; ".join(problems))
    if has_sum and _with_sum(_SUM.sub("}", line)) != line:
        raise WrongShape("changed since it was written: if that is meant, remove its sha256")
    return record


def _unwritable(folder: Path, problem: OSError, setting: str = "records") -> UsageError:
    flag = "--" + setting.replace("_", "-")
    return UsageError(
        f"{flag}: expected a folder that files can be written to, but {folder}: "
        f"{reason(problem)}; {remedy(problem, f'{flag} DIR')}"
    )


def _remove_quietly(path: Path) -> None:
    """Remove a half-written file; the error that left it is the one to report."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
