"""The page of a report and what it is made of: plain HTML and a style sheet, nothing from elsewhere."""

from dataclasses import dataclass, field

from jobs.reporting.grid import Grid

STYLE_SHEET = """
:root { color: #222; background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
body { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d4d4d8; }
p { max-width: 44rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .92rem; }
dt { color: #6b7280; } dd { margin: 0; overflow-wrap: anywhere; }
img { display: block; max-width: min(100%, 46rem); height: auto; margin: 1rem 0; }
figure { overflow-x: auto; margin: 1.4rem 0; }
small { display: block; color: #6b7280; font-size: .78rem; font-weight: 400; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
figcaption { color: #6b7280; font-size: .84rem; margin-bottom: .5rem; max-width: 46rem; }
th { text-align: right; font-weight: 600; padding: .35rem .7rem; border-bottom: 1.5px solid #222; }
td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #e4e4e7; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.strong td { font-weight: 650; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid-page; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
{body}
</body>
</html>
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a few sentences, pictures and tables."""

    title: str
    text: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name without its ending -> PNG."""

    tables: tuple[Grid, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a reader may choose."""

    worst: int
    """How many of the worst errors are named."""

    limit: tuple[str, float] | None
    """A line in the results picture: its name and its height."""
