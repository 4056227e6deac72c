"""People beside models, where it is known what each rater chose.

The human ceiling is the figure of single raters, each judged by what most of the others chose: nothing that
learns from such labels can be expected above it for long. A model's probabilities are also compared with the
raters' distribution, for a clip on which people differ has no single right answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cluster import console
from cluster.console import Table
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, SOFT, metric
from fusion.metrics.raters import Votes
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.catalog.votes import votes_on
from jobs.evaluation.results_table import member_lines


@dataclass(frozen=True, kw_only=True)
class Raters:
    """What raters say of some rows, and of the models that answered them."""

    num_rows: int
    """Rows that somebody voted on."""

    votes_per_row: float
    ceiling: Mapping[str, float]
    """Metric -> figure of single raters."""

    agreement: Mapping[str, Mapping[str, float]]
    """Model -> figure against the raters' distribution."""

    def facts(self) -> dict[str, object]:
        """As JSON; an undefined figure is null."""

        def plain(figures: Mapping[str, float]) -> dict[str, float | None]:
            return {name: x if math.isfinite(x) else None for name, x in figures.items()}

        return {
            "num_rows": self.num_rows,
            "votes_per_row": self.votes_per_row,
            "ceiling": plain(self.ceiling),
            "agreement": {name: plain(figures) for name, figures in self.agreement.items()},
        }

    def show(self) -> None:
        """Print the ceiling below the table of results, and a table of the agreement with raters."""
        said = ", ".join(f"{name} {x:.3f}" for name, x in self.ceiling.items() if math.isfinite(x))
        if said:
            console.show(f"human ceiling (a rater judged by the others): {said}")
        table = Table(
            title=f"against {self.votes_per_row:.1f} raters a clip, {self.num_rows} clips"
        )
        table.add_column("")
        for name in SOFT:
            table.add_column(name, justify="right")
        for model, figures in self.agreement.items():
            cells = [f"{x:.3f}" if math.isfinite(x) else "-" for x in figures.values()]
            table.add_row(model, *cells)
        console.show(table)


def judge_by_raters(votes: Votes, scores: Mapping[str, Tensor]) -> Raters:
    """The human ceiling on the rows of the votes, and how models agree with the raters.

    Args:
        votes: on the judged rows.
        scores: model -> log-probabilities [row class]; rows of NaN are left out.
    """
    asked = votes.total.sum(1) > 0
    figures = [name for name in FIGURES["classification"] if not metric(name).needs_probabilities]
    agreement = {}
    for model, each in scores.items():
        rows = asked & ~each.isnan().any(1)
        said = probabilities("classification", each.double())[rows]
        agreement[model] = {
            name: metric(name)(said, votes.distribution[rows]) if bool(rows.any()) else math.nan
            for name in SOFT
        }
    return Raters(
        num_rows=int(asked.sum()),
        votes_per_row=len(votes.row) / max(1, int(asked.sum())),
        ceiling={name: votes.human_ceiling(name) for name in figures},
        agreement=agreement,
    )


def raters_on(
    root: str, held: HeldOut, scores: Tensor | None, name: str, task: Task
) -> Raters | None:
    """What raters say of the judged rows, and of members and bundle on them; None without their votes.

    Args:
        root: of the dataset.
        held: members on the rows.
        scores: of the bundle, if there is one.
        name: of the task.
        task: its kind.
    """
    votes = votes_on(root, held.clip_id, name, task)
    if votes is None:
        return None
    lines = {line.name: line.scores for line in member_lines(held)}
    return judge_by_raters(votes, lines if scores is None else {**lines, "shipped": scores})
