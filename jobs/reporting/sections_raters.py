"""The section of a report on raters: what people reach, and whether the models are unsure where they are."""

import math

from fusion.metrics import SOFT
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.number_format import title
from jobs.reporting.page import Options, Section


def raters(_: Options, evidence: Evidence) -> Section | None:
    """The human ceiling beside what ships, and every line against the raters' distribution."""
    people = evidence.raters
    if people is None:
        return None
    focus = evidence.focus
    ceiling = Grid(
        name="human_ceiling",
        caption="A rater is judged by what most of the others chose; the model by the dataset's label.",
        header=["", *map(title, people.ceiling)],
        rows=[
            ["human ceiling", *map(_shown, people.ceiling.values())],
            [focus.name, *(_shown(focus.figures[name].value) for name in people.ceiling)],
        ],
    )
    agreement = Grid(
        name="agreement_with_raters",
        caption="Probabilities against the distribution of the raters' choices.",
        header=["", *map(title, SOFT)],
        rows=[[name, *map(_shown, figures.values())] for name, figures in people.agreement.items()],
    )
    text = f"{people.votes_per_row:.1f} raters a clip, {people.num_rows} clips."
    return Section(title="Raters", text=text, tables=(ceiling, agreement))


def _shown(figure: float) -> str:
    return f"{figure:.3f}" if math.isfinite(figure) else "-"
