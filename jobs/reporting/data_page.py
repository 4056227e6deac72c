"""What the checks of a dataset found, as a table of findings, a table of clips and a page."""

import html
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import storage
from jobs.catalog import layout
from jobs.catalog.manifest import Dataset
from jobs.reporting.grid import Grid
from jobs.reporting.page import CAUTION, PAGE, STYLE_SHEET
from jobs.verification.data_checks import Finding

MOST_SHOWN = 50
"""Clips of a finding that the page names; the table of clips has more."""


def files_of(
    dataset: Dataset, findings: Sequence[Finding], notes: Sequence[str]
) -> dict[str, bytes]:
    """File name -> content."""
    grid = _grid(findings)
    return {
        "findings.csv": grid.csv().encode(),
        "clips.parquet": _clips(findings),
        layout.REPORT: _page(dataset, grid, findings, notes).encode(),
    }


def _grid(findings: Sequence[Finding]) -> Grid:
    return Grid(
        name="findings",
        caption="What was found, and what it means.",
        header=["finding", "where", "clips", "meaning"],
        rows=[[each.check, each.where, f"{each.count}", each.meaning] for each in findings],
    )


def _clips(findings: Sequence[Finding]) -> bytes:
    """Every named clip with its finding; `other` is its twin, or why."""
    columns: dict[str, list[str | None]] = {"check": [], "where": [], "name": [], "other": []}
    for each in findings:
        columns["check"] += [each.check] * len(each.clips)
        columns["where"] += [each.where] * len(each.clips)
        columns["name"] += each.clips
        columns["other"] += each.others or [None] * len(each.clips)
    buffer = io.BytesIO()
    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    pq.write_table(table, buffer, **storage.parquet_options(table.schema))
    return buffer.getvalue()


def _page(dataset: Dataset, grid: Grid, findings: Sequence[Finding], notes: Sequence[str]) -> str:
    """The whole HTML file: no script, nothing from elsewhere."""
    facts = {
        "dataset": f"{dataset.name} ({dataset.licence or 'no licence given'})",
        "manifest": dataset.manifest_hash,
        "findings": f"{len(findings)}",
    }
    listed = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()
    )
    said = "".join(f"<p>{html.escape(line)}</p>" for line in notes)
    first = grid.html() if findings else "<p>Nothing was found.</p>"
    body = f"<section><h2>Findings</h2>{first}{said}</section>"
    return PAGE.format(
        title=html.escape(f"{dataset.name}: checks of the data"),
        style=STYLE_SHEET,
        facts=listed,
        body=body + "".join(map(_section, findings)),
        caution=html.escape(CAUTION),
    )


def _section(finding: Finding) -> str:
    others = finding.others or [""] * len(finding.clips)
    grid = Grid(
        name="clips",
        caption=f"{finding.count} clips; {min(len(finding.clips), MOST_SHOWN)} are named here.",
        header=["clip", "with"] if finding.others else ["clip"],
        rows=[
            [name, other] if finding.others else [name]
            for name, other in zip(finding.clips, others, strict=True)
        ][:MOST_SHOWN],
    )
    title = html.escape(f"{finding.check}: {finding.where}")
    return f"<section><h2>{title}</h2><p>{html.escape(finding.meaning)}</p>{grid.html()}</section>"
