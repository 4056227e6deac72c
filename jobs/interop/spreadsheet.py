"""Cells of CSV files that are safe in a spreadsheet: no text becomes a formula."""

import re

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, also in full width."""

FIGURE = re.compile(r"[-+]?([\d.]+(e[-+]?\d+)?|nan|inf)( \[[-+\d., einfa]+\])?")
"""A number, alone or with its interval."""


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: a text that looks like one gets a quote.

    >>> harmless("=HYPERLINK(1)"), harmless("-0.5 [-1.0, 0.1]")
    ("'=HYPERLINK(1)", '-0.5 [-1.0, 0.1]')
    """
    if not cell.startswith(FORMULA_STARTS) or FIGURE.fullmatch(cell):
        return cell
    return f"'{cell}"
