"""Sections on what figures may owe to something else: leaks, the held-out people's own clips, the data."""

from fusion.metrics import FIGURES
from fusion.number_format import bounded_text, figure_text
from jobs.evaluation.results_table import SILENT
from jobs.reporting import plots
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.number_format import bounds, title
from jobs.reporting.page import Options, Section


def leaks(_: Options, evidence: Evidence) -> Section | None:
    """What the leak test of each input found."""
    rows: list[list[str]] = []
    strong: set[int] = set()
    for split, reports in evidence.history.leaks.items():
        for name, report in reports.items():
            if report.leaks:
                strong.add(len(rows))
            rows.append(
                [name, split, report.metric, figure_text(report.inside_train),
                 figure_text(report.inside_other),
                 bounded_text(report.gap, report.low, report.high, sign="+"),
                 "LEAK" if report.leaks else "no leak shown"]
            )  # fmt: skip
    if not rows:
        return None
    grid = Grid(
        name="leaks",
        caption=f"{evidence.dataset}, {evidence.task_name}: the same linear probe by 5 folds of groups "
        "inside the training split and inside the other one, on equally many rows; 99 % intervals over "
        "groups. A leak is a gap beyond its interval and 5 points.",
        header=["input", "other split", "figure", "inside train", "inside the other", "gap", ""],
        rows=rows,
        strong=frozenset(strong),
    )
    text = (
        "Features that were fitted to the training labels separate the training split far better than any "
        "other; what is chosen there is worthless. A net that fits well does not show up here."
    )
    return Section(title="Leak test", text=text, tables=(grid,))


def data(_: Options, evidence: Evidence) -> Section | None:
    """The figure over the share of people that nets were trained on."""
    if not evidence.history.shares:
        return None
    main = title(evidence.main)
    rows = []
    for family in evidence.history.shares.values():
        for point in family:
            spread = f"{figure_text(min(point.seeds))} to {figure_text(max(point.seeds))}"
            gain = "" if point.gain is None else str(point.gain)
            rows.append(
                [point.run, f"{point.share:g}", f"{point.groups:.1f}", str(point.figure),
                 spread if len(point.seeds) > 1 else "", gain]
            )  # fmt: skip
    grid = Grid(
        name="shares",
        caption=f"{evidence.dataset}, {evidence.task_name}: {evidence.protocol}. Runs that differ only "
        "in the share of training groups, judged on the same rows; groups are those a net was trained "
        "on, the mean over folds and seeds. 95 % bootstrap intervals over groups of the judged rows; "
        "gain is paired (positive is better).",
        header=["run", "share", "groups", main, "seeds", "gain over the share before"],
        rows=rows,
    )
    last = [family[-1] for family in evidence.history.shares.values()]
    better = [point.run for point in last if point.gain is not None and point.gain.shown]
    text = (
        f"The last step of data still gained something ({', '.join(better)}): more people would help."
        if better
        else "The last step of data shows no gain: more of the same data may help little."
    )
    drawn = {
        run: [(point.groups, *bounds(point.figure)) for point in family]
        for run, family in evidence.history.shares.items()
    }
    floor = evidence.lines[0].figures[evidence.main].value
    return Section(
        title="Learning curve over data", text=text,
        pictures={"shares": plots.over_groups(drawn, main, floor)}, tables=(grid,),
    )  # fmt: skip


def normalised(_: Options, evidence: Evidence) -> Section | None:
    """Runs that were normalised by their speaker, in a table of their own."""
    if not evidence.judged.normalised:
        return None
    names = FIGURES[evidence.task.kind]
    rows = []
    for one in evidence.judged.normalised:
        cells = [str(one.figures[name]) for name in names]
        raw = "" if one.raw_figure is None else f"{one.raw}: {one.raw_figure!s}"
        gain = "" if one.gain is None else str(one.gain)
        rows.append([one.name, one.how, str(one.n), *cells, raw, gain])
    main = title(evidence.main)
    grid = Grid(
        name="normalised",
        caption=f"{evidence.dataset}, {evidence.task_name}: {evidence.protocol}; features normalised by "
        "their speaker. speaker: statistics of all clips of a person; speaker:K: of K of them, which are "
        "judged too. 95 % bootstrap intervals over groups; the gain over the same run without is paired "
        f"(positive is better). Clips {len(evidence.clips)}; {SILENT}.",
        header=["", "statistics", "n", *map(title, names), f"{main} without", "gain over without"],
        rows=rows,
    )
    text = (
        "These runs read unlabelled clips of the people they are judged on (transductive), so they stand "
        "in a table of their own and are not ranked among the others. They hold only where new people are "
        "enrolled with as many clips."
    )
    return Section(title="Normalised by speaker", text=text, tables=(grid,))
