"""A table as plain LaTeX: one `tabular` that needs no package, its notes as a paragraph below."""

from __future__ import annotations

import re

from gnn_core.report.table import Table, is_number_column
from gnn_core.usage import printable

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # these three are other signs in LaTeX's default encoding
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",  # after the end of a line [ would be an argument, * a variant of the line's end
    "*": "{*}",
}


def latex_table(table: Table, notes: tuple[str, ...], caption: str = "") -> str:
    """Return the tabular, its caption above and the notes below it: text, never LaTeX."""
    sides = "".join("r" if one else "l" for one in is_number_column(table))
    lines = [" & ".join(map(latex_text, line)) + r" \\" for line in (table.headings, *table.cells)]
    return "\n".join(
        [
            *([rf"\par\noindent\textbf{{{latex_text(caption)}}}\par"] if caption else []),
            rf"\begin{{tabular}}{{{sides}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            "",
            r"\par\noindent\footnotesize",
            *(latex_text(note) + r"\par" for note in notes),
            r"\normalsize",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Return text with every sign that LaTeX reads otherwise escaped; `code` in typewriter."""
    escaped = "".join(_ESCAPES.get(sign, sign) for sign in printable(text))
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)
