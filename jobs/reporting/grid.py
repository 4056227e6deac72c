"""A table for people, three times: HTML for the report, CSV for a spreadsheet, LaTeX for a paper.

Everything user-made (clip names, classes, runs) passes through here and is escaped for where it goes.
"""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.interop.spreadsheet import harmless

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells with a header; the first column names the row."""

    name: str
    """File name without its ending."""

    caption: str
    """Protocol, seeds and n: what a reader needs to trust the numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = field(default_factory=frozenset)
    """Rows that are set in bold."""

    def html(self) -> str:
        """A `<table>` with a caption; an interval stands small below its value."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        lines = []
        for number, row in enumerate(self.rows):
            cells = "".join(f"<td>{_html_cell(cell)}</td>" for cell in row)
            mark = ' class="strong"' if number in self.strong else ""
            lines.append(f"<tr{mark}>{cells}</tr>")
        return (
            f"<figure><figcaption>{html.escape(self.caption)}</figcaption><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></figure>"
        )

    def csv(self) -> str:
        """Comma-separated; a text that a spreadsheet would take for a formula gets a quote in front."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(harmless, self.header))
        writer.writerows([[harmless(cell) for cell in row] for row in self.rows])
        return text.getvalue()

    def latex(self) -> str:
        """A `table` in the style of the package booktabs."""
        columns = "l" + "r" * (len(self.header) - 1)
        lines = [
            r"\begin{table}", r"\centering", rf"\caption{{{latex(self.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
            " & ".join(latex(cell) for cell in self.header) + r" \\", r"\midrule",
        ]  # fmt: skip
        for number, row in enumerate(self.rows):
            cells = [latex(cell) for cell in row]
            if number in self.strong:
                cells = [rf"\textbf{{{cell}}}" for cell in cells]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _html_cell(cell: str) -> str:
    value, bracket, interval = cell.partition(" [")
    if not bracket or not value[-1:].isdigit():
        return html.escape(cell)
    return f"{html.escape(value)}<small>[{html.escape(interval)}</small>"


def latex(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(LATEX_SPECIAL.get(letter, letter) for letter in text)
