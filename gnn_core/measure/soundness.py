"""Checks of a record for values that cannot be true, as it is written and as it is read.

Each one stands for a way in which training code is known to have reported a wrong number: an
accuracy of another split than its name says, targets dropped or counted twice, percent taken for
fractions, seconds that count twice, NaN that turned into a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gnn_core.config import OPTIONS
from gnn_core.measure.metrics import HITS, SPLITS
from gnn_core.measure.run_record import EpochRecord, RunRecord
from gnn_core.measure.strict_json import plain
from gnn_core.measure.timing import NOT_TRAINING, OVERLAPPED

_MACHINE_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("cpu_model", "system"), (str,)),
    **dict.fromkeys(("cpu_flags", "gpus"), (list,)),
    **dict.fromkeys(
        ("cpu_mhz", "cores_available", "memory_bytes", "load_average", "others_running"),
        (float, int),
    ),
}
_FRACTIONS = (
    *("accuracy", "mrr", "auc", "pair_accuracy", "average_precision"),
    *(f"hits_{most}" for most in HITS),
)


def checked(record: RunRecord) -> tuple[dict[str, Any], list[str]]:
    """Return the record as plain JSON types, and one remark per measurement that cannot be true.

    With remarks, the returned record is a failed one whose `error` names them, so that a run is
    never lost for a bad number and a bad number is never used.
    """
    values, remarks = plain(record)
    remarks += problems_of(record)
    if remarks:
        said = [record.error] if record.status != "ok" and record.error else []
        values["status"] = "failed" if record.status == "ok" else record.status
        values["error"] = "; ".join([*said, *remarks])
    return values, remarks


def problems_of(record: RunRecord) -> list[str]:
    """Return one remark per measurement in the record that cannot be true; [] for a sound record.

    NaN and infinities are not looked for here (`strict_json.plain` names them).
    """
    remarks = list(_final_problems(record))
    previous = -1
    for epoch in record.epochs:
        name = f"epochs[epoch {epoch.epoch}]"
        if epoch.epoch <= previous:
            remarks.append(f"{name} follows epoch {previous}")
        previous = epoch.epoch
        remarks += [f"{name}.{remark}" for remark in _epoch_problems(epoch)]
        if record.status == "ok" and epoch.train_loss is None:
            remarks.append(f"{name}.train_loss is missing")
    remarks += _target_problems(record)
    losses = [] if record.step_losses is None else list(record.step_losses)
    if record.status == "ok" and None in losses:
        remarks.append(f"step_losses[{losses.index(None)}] is missing")
    return remarks


def odd_facts(record: RunRecord) -> list[str]:
    """Return one remark per setting or fact of the machine that is of another type than its own.

    Neither is a field of the record with a type, and tables count and sort by both.
    """
    remarks = []
    for name, value in record.config.items():
        option = OPTIONS.get(name)
        if value is not None and option is not None and option.kind != "str":
            if problem := option.problem(option.normalised(value)):
                remarks.append(f"config.{name}: {problem}")
        elif not _is_plain(value) or (option is not None and not isinstance(value, str | None)):
            remarks.append(f"config.{name}: expected text or a number")
    for name, value in record.machine.items():
        kinds = _MACHINE_KINDS.get(name)
        if kinds is None or value is None:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or not _is_plain(value):
            remarks.append(f"machine.{name}: expected {kinds[0].__name__}")
    return remarks


def _is_plain(value: object) -> bool:
    """Whether this is text, a number, nothing, or a list of those."""
    items = value if isinstance(value, list) else [value]
    return all(item is None or isinstance(item, str | int | float) for item in items)


def _epoch_problems(epoch: EpochRecord) -> Iterable[str]:
    for name in ("train_accuracy", "valid_accuracy", "valid_mrr"):
        value = getattr(epoch, name)
        if value is not None and not math.isnan(value) and not 0 <= value <= 1:
            yield f"{name} is {value}, expected a fraction of 0 to 1"
    for name, value in {"seconds": epoch.seconds, **epoch.sections}.items():
        if value < 0:
            yield f"{name} is {value} s"
    inside = sum(
        value
        for name, value in epoch.sections.items()
        if name not in NOT_TRAINING and not name.startswith(OVERLAPPED)
    )
    if inside > epoch.seconds * 1.01 + 1e-3:  # slack for clocks read a moment apart
        yield f"sections add up to {inside:.6g} s of {epoch.seconds:.6g} s: something counts twice"


def _final_problems(record: RunRecord) -> Iterable[str]:
    """Check that a result names a real split, is a fraction, and counted all it was to count."""
    for name, value in record.final.items():
        split, _, what = name.partition("_")
        if split not in SPLITS:
            if name.rpartition("_")[2] in (*_FRACTIONS, "loss", "count"):
                yield f"final.{name} names no split of {', '.join(SPLITS)}"
        elif value is None or math.isnan(value):
            continue
        elif what in _FRACTIONS and not 0 <= value <= 1:
            yield f"final.{name} is {value}, expected a fraction of 0 to 1"
        elif what == "count" and value != (has := _evaluated(record, split, value)):
            yield f"final.{name} is {value}, but the split has {has} targets"


def _evaluated(record: RunRecord, split: str, unless_known: float) -> float:
    """Targets of a split that the run was to evaluate."""
    has = record.dataset.splits.get(split, unless_known)
    return min(has, record.config.get("eval_nodes") or has)


def _target_problems(record: RunRecord) -> Iterable[str]:
    """Check that each epoch trained on every target once, but for one entered or left half-way."""
    expected = record.dataset.splits.get("train")
    if expected is None:
        return
    if record.config.get("task") == "link":
        expected = min(expected, record.config.get("edges_per_epoch") or expected)
    last = len(record.epochs) - 1
    for position, epoch in enumerate(record.epochs):
        entered_half_way = position == 0 and record.resumed_from
        left_half_way = position == last and record.status != "ok"
        cut = entered_half_way or left_half_way
        if epoch.num_targets > expected or (epoch.num_targets < expected and not cut):
            yield (
                f"epochs[epoch {epoch.epoch}].num_targets is {epoch.num_targets}, "
                f"but an epoch has {expected} targets"
            )
