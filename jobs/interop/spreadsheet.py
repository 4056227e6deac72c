"""Cells of CSV files as a spreadsheet takes them: no text of other people becomes a formula."""

import re

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, also in full width."""

FIGURE = re.compile(r"[-+]?([\d.]+(e[-+]?\d+)?|nan|inf)( \[[-+\d., einfa]+\])?")
"""A number, alone or with its interval."""


def harmless(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: other people's text gets a quote.

    >>> harmless("=HYPERLINK(1)"), harmless("-0.5 [-1.0, 0.1]")
    ("'=HYPERLINK(1)", '-0.5 [-1.0, 0.1]')
    """
    if not cell.startswith(FORMULA_STARTS) or FIGURE.fullmatch(cell):
        return cell
    return f"'{cell}"
