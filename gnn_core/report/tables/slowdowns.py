"""Why a run on several ranks gains little over one process, as a sentence with what to do about it.

The tables of speed-ups and the answers of the report print these sentences.
"""

from __future__ import annotations

from gnn_core.number_text import counted
from gnn_core.report.rows import Row

LEAST_EFFICIENCY = 0.5
"""Speed-up per rank below which a sentence explains a row: at 2 ranks, slower than one process."""
MUCH_COMMUNICATION = 0.25
"""Share of an epoch from which on communication is named as a cause."""
SHORT_STEP_SECONDS = 0.05
"""Below it, what a step costs whatever its size (the allreduce's latency, waiting) is a cause."""


def slowdown(row: Row, speedup: float | None, base: str, own_base: Row | None = None) -> str | None:
    """Return why `row` gains little, and what to change; None where it gains enough.

    Args:
        row: what ran, on one rank or several.
        speedup: seconds of an epoch of the base / those of the row; None when unknown.
        base: the name of what it is compared with.
        own_base: one process of the row's framework, with its speed-up over the same base; None
            when that is the base, or did not run.
    """
    if row.ranks < 2 or speedup is None or speedup / row.ranks >= LEAST_EFFICIENCY:
        return None
    gain = "do not pay" if speedup <= 1 else "pay little"
    causes = _slow_framework(row, speedup, base, own_base) or _causes(row)
    return (
        f"{row.ranks} ranks of `{row.strategy}` {gain}: {speedup:.2f} times as fast as `{base}`, "
        f"an efficiency of {100 * speedup / row.ranks:.0f} %. {causes}."
    )


def threads_of(row: Row) -> int:
    """Return the threads of each rank."""
    return int(row.settings.get("threads") or 1)


def larger_batch(row: Row) -> int | None:
    """Return twice the global batch; None where the training split has fewer targets than that."""
    batch = row.settings.get("global_batch_size")
    if not isinstance(batch, int) or 2 * batch > row.num_targets:
        return None
    return 2 * batch


def _slow_framework(row: Row, speedup: float, base: str, own_base: Row | None) -> str | None:
    """Return that the framework is what is slow, where its ranks do gain over its one process."""
    slower = own_base.speedup if own_base is not None else None
    if own_base is None or not slower or speedup / slower / row.ranks < LEAST_EFFICIENCY:
        return None
    return (
        f"Its framework is slower: one process of it, `{own_base.strategy}`, is {slower:.2f} times "
        f"as fast as `{base}`, and {row.ranks} ranks are {speedup / slower:.2f} times as fast as "
        f"`{own_base.strategy}`; train with `{base}` or another strategy of its framework"
    )


def _causes(row: Row) -> str:
    """Return the causes that the row's numbers show, and what to change."""
    if row.crowded:
        threads, cores = threads_of(row), row.cores or 1
        most = max(1, int(cores // threads))
        needed = f"{max(row.ranks_per_host)} ranks x {counted(threads, 'thread')}"
        return f"{needed} share {counted(cores, 'core')}; start {most} at most on such a host"
    found, changes = [], []
    share = row.communicate_share or 0.0
    if share >= MUCH_COMMUNICATION:
        found.append(f"{100 * share:.0f} % of an epoch is communication")
    if row.step_seconds is not None and row.step_seconds.middle < SHORT_STEP_SECONDS:
        found.append(
            f"a step of {1000 * row.step_seconds.middle:.3g} ms has too little work to divide: "
            "whatever its size, it has an allreduce and waits for the slowest rank"
        )
    if found:
        batch = larger_batch(row)
        larger = [f"`--global-batch-size {batch}`"] if batch else []
        ways = ", ".join([*larger, "a wider model", "a larger graph"])
        changes.append(f"give a step more work ({ways}) or train in one process")
    if row.others_running:
        found.append(f"processes of other programs were running as it began ({row.others_running})")
        changes.append("repeat it on a quiet machine")
    if not found:
        return "Neither communication, short steps nor other programs explain it; repeat the runs"
    sentence = ", and ".join(found)
    return f"{sentence[0].upper()}{sentence[1:]}; {', and '.join(changes)}"
