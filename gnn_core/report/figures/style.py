"""What all figures have in common: colours, widths, titles, names of runs, and files.

Colours are those of Okabe and Ito, which people with any colour vision tell apart.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display
from matplotlib.lines import Line2D

from gnn_core.files import path_argument
from gnn_core.markup import without_math
from gnn_core.report.table import differing_settings
from gnn_core.strategies import order_of
from gnn_core.usage import Parser, UsageError
from gnn_core.whole_file import write_whole

COLOURS = ("#000000", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#F0E442")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))
LEVEL: Mapping[str, Any] = {"color": "#777777", "linestyle": (0, (5, 3)), "linewidth": 1}
"""Of a line to compare with: what is ideal, or the fastest of one rank."""
WIDTH_INCHES = 4.8
"""Of a figure: a telephone shows it about 360 pixels wide, where letters of 10 points are read."""
_TITLE_SIGNS, _LABEL_SIGNS = 52, 24  # of a line of a title, and of the name of a bar


def strategy_colour(name: str) -> str:
    """Return the colour of a strategy, the same in every figure."""
    return COLOURS[order_of(name) % len(COLOURS)]


def file_word(name: str) -> str:
    """Return the name of a data set as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name)


def title_lines(title: str) -> str:
    """Return a title cut into lines that are no wider than a figure."""
    return "\n".join(textwrap.fill(line, _TITLE_SIGNS) for line in title.splitlines())


def bar_names(names: Sequence[str]) -> list[str]:
    """Return names cut into lines that leave a telephone room for the bars beside them."""
    return [textwrap.fill(name, _LABEL_SIGNS, break_long_words=False) for name in names]


def distinguishing_texts(
    settings: Sequence[Mapping[str, Any]], strategies: Sequence[str]
) -> list[str]:
    """Return for each the settings in which not all are alike, as words of a figure.

    The launcher's controller goes with the strategy, and is shown only where one strategy has two.
    """
    controllers: dict[str, set[object]] = {}
    for strategy, chosen in zip(strategies, settings, strict=True):
        controllers.setdefault(strategy, set()).add(chosen.get("controller"))
    shown = [
        {
            name: value
            for name, value in chosen.items()
            if name != "controller" or len(controllers[strategy]) > 1
        }
        for strategy, chosen in zip(strategies, settings, strict=True)
    ]
    return differing_settings(shown, [""] * len(shown))


def plain(axes: Any, grid: str = "both") -> None:
    """Draw pale lines behind the data, and no frame at the top and the right."""
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def add_title(figure: Figure, title: str) -> None:
    """Write the title, cut into lines, at the left."""
    figure.suptitle(title_lines(title), x=0.02, ha="left", fontsize="medium")


def add_key(figure: Figure, handles: Iterable[Any], columns: int = 1) -> None:
    """Write the key below the figure, each name once."""
    once = {str(one.get_label()): one for one in handles}
    look: dict[str, Any] = {"frameon": False, "fontsize": "small"}
    if once:
        figure.legend(handles=once.values(), loc="outside lower center", ncols=columns, **look)


def sign(label: str, **look: Any) -> Line2D:
    """Return an entry of a key."""
    return Line2D([], [], **{"color": "#777777", "linestyle": "", **look}, label=label)


def save_figures(drawn: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write each figure under its name, whose end is the format (png, svg); return the files.

    Raises UsageError when the folder cannot be written.
    """
    for name, figure in drawn.items():
        without_math(figure)
        content, kind = BytesIO(), name.rpartition(".")[2]
        # What changes from one drawing to the next of the same records is left out.
        volatile = {"svg": "Date", "png": "Software"}[kind]
        with rc_context({"svg.hashsalt": name}):
            figure.savefig(content, format=kind, dpi=200, metadata={volatile: None})
        write_whole(directory / name, content.getvalue())
    return [directory / name for name in drawn]


def draw_document(
    doc: str | None,
    program: str,
    source: tuple[str, str],
    figure_of: Callable[[Path], Figure],
    arguments: Sequence[str] | None,
) -> int:
    """Draw a figure of a document: the command `program SOURCE FILE`; its exit code.

    `source`: its name and help. Raises UsageError for a file of no format that a document shows.
    """
    parser = Parser.of(doc, prog=f"python -m gnn_core.report.{program}")
    parser.add_argument("source", type=path_argument, metavar=source[0], help=source[1])
    parser.add_argument("output", type=path_argument, help="file to write, .svg or .png")
    options = parser.parse_args(arguments)
    if options.output.suffix not in (".svg", ".png"):
        raise UsageError(f"expected a file named .svg or .png, got {options.output}")
    figure = figure_of(options.source)
    (file,) = save_figures({options.output.name: figure}, options.output.parent)
    print(f"drew {file}")
    return 0
