"""Text of records in the media that reports are made in: shown as it is, and never obeyed.

A record may come from anywhere, and its texts may hold `<script>`, `[a link](javascript:...)` or
`$math$`. Each medium has one function here (LaTeX: `gnn_core.report.table.latex_text`; a terminal:
`gnn_core.usage.printable`, which the others call too), used where output is put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnn_core.number_text import NOTHING
from gnn_core.usage import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": r"\[", "]": r"\]"})
_CELL = str.maketrans({"|": r"\|", "`": r"\`"})
_FORMULA = ("=", "+", "-", "@")


def markdown_cell(text: str) -> str:
    """Text as one cell of a Markdown table."""
    return printable(text).translate(_MARKUP).translate(_CELL)


def markdown_text(text: str) -> str:
    """Markdown of ours, with texts of records in it, without HTML and links.

    Lines, emphasis, lists, headings and `code` stay what they are.
    """
    return "\n".join(printable(line) for line in text.split("\n")).translate(_MARKUP)


def csv_cell(value: Any) -> Any:
    """A value as one cell of CSV: text that a spreadsheet would take for a formula has a ' before.

    Numbers stay, as values and as text.
    """
    if not isinstance(value, str) or not value.strip().startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return value if value == NOTHING else f"'{value}"
    return value


def without_math(figure: Figure) -> None:
    """Let a figure show `$` in its texts as it is; numbers at logarithmic axes stay powers."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    own: set[Any] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for which in ("major", "minor"):
                formatter = getattr(axis, f"get_{which}_formatter")()
                if not isinstance(formatter, FixedFormatter | FuncFormatter):
                    own.update(axis.get_ticklabels(minor=which == "minor"))
    for text in figure.findobj(Text):
        if text not in own:
            text.set_parse_math(False)
