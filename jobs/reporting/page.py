"""The page of a report and what it is made of: plain HTML and a style sheet, nothing from elsewhere."""

from dataclasses import dataclass, field

import pyarrow as pa

from jobs.reporting.grid import Grid

STYLE_SHEET = """
:root {
  color-scheme: light dark;
  --ink: #222; --paper: #fff; --quiet: #5b6270; --line: #e4e4e7; --rule: #d4d4d8;
  color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6ea; --paper: #16171b; --quiet: #a3a8b4; --line: #2e3038; --rule: #3d404a; }
  img { background: #fff; border-radius: 6px; padding: .4rem; }
}
* { box-sizing: border-box; }
body { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
p { max-width: 44rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .92rem; }
dt { color: var(--quiet); } dd { margin: 0; }
img { display: block; max-width: min(100%, 46rem); height: auto; margin: 1rem 0 .3rem; }
figure { overflow-x: auto; margin: 1.4rem 0; }
small { display: block; color: var(--quiet); font-size: .78rem; font-weight: 400; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
figcaption { color: var(--quiet); font-size: .84rem; margin-bottom: .5rem; max-width: 46rem; }
th { text-align: right; font-weight: 600; padding: .35rem .7rem; border-bottom: 1.5px solid var(--ink); }
td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.strong td { font-weight: 650; }
@media (max-width: 40rem) {
  body { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
  th, td { padding-left: .45rem; padding-right: .45rem; }
}
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid-page; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
{body}
<section><h2>Responsible use</h2><p>{caution}</p></section>
</body>
</html>
"""


CAUTION = (
    "These are figures on which label annotators gave; what anybody feels is not in them. They hold for "
    "people, languages and recordings like those of the data. In the European Union such a model may not be "
    "used to infer emotions at work or in education, other than for medical or safety reasons (Regulation "
    "(EU) 2024/1689, Article 5(1)(f)); elsewhere people have to be told (Article 50(3)). No decision about a "
    "person should rest on it."
)
"""At the foot of every page."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a few sentences, pictures and tables."""

    title: str
    text: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name without its ending -> PNG."""

    tables: tuple[Grid, ...] = ()
    data: tuple[Grid, ...] = ()
    """What pictures show and no table does; written beside the page, as CSV."""

    basis: str = ""
    """On how many clips and people the pictures stand; by default on all judged rows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a reader may choose."""

    worst: int
    """How many of the worst errors are named."""

    limit: tuple[str, float] | None
    """A line in the results picture: its name and its height."""

    moments: pa.Table | None = None
    """SCORES of windows or sentences of films."""
