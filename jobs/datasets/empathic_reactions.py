"""Empathic Reactions: essays written after reading news, with ratings of empathy and distress.

Reads `empathic_reactions_messages.csv` (columns message_id, response_id, article_id, empathy, distress,
empathy_bin, distress_bin, essay). A corpus of text: a clip is an essay. Ratings are means of several items,
1 to 7; `empathy_high` and `distress_high` are the halves of the authors.

Buechel et al. 2018, https://doi.org/10.18653/v1/D18-1507: ten-fold cross-validation, Pearson's r.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from cluster.errors import LabelTableError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Label, Preparation, Row, files_below, read_rows

TABLE = "empathic_reactions_messages.csv"
RATINGS = ("empathy", "distress")
HALVES = {"0": "no", "1": "yes"}

ABOUT = About(
    name="empathic_reactions",
    licence="CC-BY-4.0",
    citation="Buechel et al. 2018, Modeling Empathy and Distress in Reaction to News Stories, EMNLP, "
    "https://doi.org/10.18653/v1/D18-1507",
    download="https://github.com/wwbp/empathic_reactions (data/responses)",
    layout=("empathic_reactions/", f"  {TABLE}"),
    looked_for=TABLE,
    groups="the articles that were read, or the people who wrote (--grouping)",
    splits="none of its own; --folds 10 cuts by group",
    command="affuse prepare empathic_reactions --source empathic_reactions --root data/empathy --folds 10",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Empathic Reactions: 1,860 essays with ratings of empathy and distress."""

    source: Place
    """Folder or URI with empathic_reactions_messages.csv."""

    grouping: Literal["article", "person"] = "article"
    """What never straddles splits: essays about one article, or essays of one person."""

    def collect(self) -> Collected:
        """One clip an essay."""
        tables = [uri for uri in files_below(self.source) if PurePosixPath(uri).name == TABLE]
        if not tables:
            raise ABOUT.absent(self.source)
        rows: list[Row] = []
        faults: list[str] = []
        for number, cells in enumerate(read_rows(tables[0]), 1):
            try:
                rows.append(self._row(cells))
            except (KeyError, ValueError) as error:
                faults.append(f"{TABLE}, row {number}: {error!r}")
        if faults and not rows:
            raise LabelTableError(f"{tables[0]}: {faults[0]}")
        halves = {
            f"{name}_high": Task(kind="classification", classes=("no", "yes")) for name in RATINGS
        }
        ratings = {name: Task(kind="regression", range=(1.0, 7.0)) for name in RATINGS}
        return Collected(
            name="empathic_reactions",
            licence=ABOUT.licence,
            tasks={**ratings, **halves},
            rows=rows,
            faults=faults,
        )

    def _row(self, cells: Mapping[str, Any]) -> Row:
        person, article = f"person-{cells['response_id']}", f"article-{cells['article_id']}"
        labels: dict[str, Label] = {name: float(cells[name]) for name in RATINGS}
        labels |= {
            f"{name}_high": HALVES.get(cells[f"{name}_bin"], cells[f"{name}_bin"])
            for name in RATINGS
        }
        return Row(
            name=cells["message_id"],
            text=cells["essay"].strip() or None,
            speaker=person,
            group=article if self.grouping == "article" else person,
            labels=labels,
        )
