"""The section of a report on what the bundle can say of collections that nobody has labelled."""

from fusion.shift import Expectation
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.page import Options, Section


def elsewhere(_: Options, evidence: Evidence) -> Section | None:
    """How far off the accuracy is that `affuse score` expects, and where features lay in training."""
    facts = evidence.bundle or {}
    state, ranges = facts.get("expectation"), facts.get("ranges") or {}
    if state is None and not ranges:
        return None
    words = [
        "`affuse score` says of a new collection what share of its answers to expect right, and warns of "
        "features that lie outside the range of training."
    ]
    if state is not None:
        fitted = Expectation.from_state(state)
        reach = fitted.margin(fitted.groups, len(evidence.clips), fitted.accuracy)
        words.append(
            f"Here {fitted.accuracy:.1%} are right. Of people who were left out, the expected share was off "
            f"by {fitted.spread:.1%} (standard deviation over {fitted.groups} groups); of as many new people "
            f"as here it is known within {reach:.1%}, of one person within "
            f"{fitted.margin(1, len(evidence.clips) // fitted.groups, fitted.accuracy):.1%}."
        )
    grid = Grid(
        name="ranges",
        caption="A clip's distance is the mean size of its scaled features; 1 % of the training clips lie "
        "beyond the limit, and of nearly all people no more than the share named usual.",
        header=["features", "of", "limit", "usual"],
        rows=[
            [folder, one["run"], f"{one['limit']:.2f}", f"{one['usual']:.1%}"]
            for folder, one in sorted(ranges.items())
        ],
    )
    tables = (grid,) if ranges else ()
    return Section(title="Elsewhere", text=" ".join(words), tables=tables)
