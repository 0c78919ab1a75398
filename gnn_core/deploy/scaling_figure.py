"""The figure of a simulated job: cost and time of fixed numbers of workers and of policies."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display

from gnn_core.deploy.scaling_policy import Outcome
from gnn_core.whole_file import write_whole


def draw(fixed: Sequence[Outcome], by_policy: Sequence[Outcome], file: Path) -> None:
    """Write the figure; its name says in which format. Raises UsageError."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [one.seconds / 60 for one in fixed],
        [one.cost for one in fixed],
        "o-",
        color="#777777",
        label="fixed number of workers",
    )
    for one in fixed:
        axes.annotate(
            str(one.sizes[0]),
            (one.seconds / 60, one.cost),
            xytext=(5, 5),
            textcoords="offset points",
        )
    for one in by_policy:
        axes.plot(one.seconds / 60, one.cost, "D", markersize=8, label=one.name)
    axes.set_xlabel("minutes")
    axes.set_ylabel("cost")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    content = io.BytesIO()
    figure.savefig(
        content, format=file.suffix[1:], metadata={"Date": None} if file.suffix != ".png" else None
    )
    write_whole(file, content.getvalue())
