"""Text of records in the media that reports are made in: shown as it is, and never obeyed.

A record may come from anywhere, and its texts may hold `<script>`, `[a link](javascript:...)` or
`$math$`. Each medium has one function here (LaTeX: `tables.latex.latex_text`; a terminal:
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
_TAGS = frozenset(
    "a blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr img li ol p pre s span "
    "strong sub summary sup table tbody td th thead tr ul".split()
)
_PLAIN_ATTRIBUTES = ("class", "id", "alt", "open", "start", "colspan", "rowspan")


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


def safe_html(body: str) -> str:
    """The HTML without scripts, handlers, styles that position, and links but to http and https.

    The second line of defence: what reaches it was Markdown that `markdown_text` has been over.
    """
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    def is_allowed(tag: str, name: str, value: str) -> bool:
        if (tag, name) == ("img", "src"):
            return value.startswith("data:image/")
        if (tag, name) == ("a", "href"):
            return value.startswith(("http://", "https://", "#"))
        return name in _PLAIN_ATTRIBUTES or name == "style"

    return str(
        bleach.clean(
            body,
            tags=_TAGS,
            attributes=is_allowed,
            protocols={"http", "https", "data"},
            css_sanitizer=CSSSanitizer(allowed_css_properties=["text-align"]),
        )
    )


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
