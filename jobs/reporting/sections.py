"""The sections of a report: each is a heading, a few sentences, pictures and tables, made of the evidence.

A section that has nothing to say about a kind of task, or finds nothing to draw, is None.
"""

from collections.abc import Callable

from fusion.metrics import FIGURES
from fusion.number_format import figure_text
from fusion.statistics import holm
from jobs.evaluation.results_table import SILENT, caption
from jobs.reporting import plots
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.judged_lines import BESIDE
from jobs.reporting.number_format import as_p, bounds, title
from jobs.reporting.page import Options, Section
from jobs.reporting.sections_coverage import coverage
from jobs.reporting.sections_errors import calibration, classes, errors, labels, values
from jobs.reporting.sections_explained import explained
from jobs.reporting.sections_moments import moments
from jobs.reporting.sections_outlook import elsewhere
from jobs.reporting.sections_over_time import dialogues
from jobs.reporting.sections_people import people
from jobs.reporting.sections_raters import raters
from jobs.reporting.sections_robustness import data, leaks, normalised

TRANSDUCTIVE = (
    "All runs here were normalised by their speaker: they read unlabelled clips of the people they are "
    "judged on, and are not comparable with runs that do not."
)


def results(options: Options, evidence: Evidence) -> Section:
    """Every way to answer beside its baselines."""
    names = FIGURES[evidence.task.kind]
    header = ["", "n", *(title(name) for name in names), f"gain over {evidence.best_single.name}"]
    p_values = holm({line.name: line.gain.p_value for line in evidence.lines if line.gain})
    rows = []
    for line in evidence.lines:
        cells = [str(line.figures[name]) for name in names]
        gain = str(line.gain or "")
        if line.name in p_values:
            gain += f", {as_p(p_values[line.name])}"
        rows.append([line.name, str(line.n), *cells, gain])
    shown = [
        (line.name, line.role, *bounds(line.figures[evidence.main])) for line in evidence.lines
    ]
    grid = Grid(
        name="results",
        caption=f"{evidence.dataset}, {evidence.task_name}: {evidence.protocol}, "
        f"{evidence.groups.count} groups. 95 % bootstrap intervals over groups in brackets; gain is paired "
        "(positive is better), p by exchanging the two within groups, Holm-corrected."
        f"{_same_rows(evidence)}{_told(evidence)}{_beside(evidence)}",
        header=header,
        rows=rows,
        strong=frozenset(n for n, line in enumerate(evidence.lines) if line is evidence.focus),
    )
    picture = plots.intervals(shown, title(evidence.main), limit=options.limit)
    return Section(
        title="Results",
        text=" ".join(
            filter(
                None,
                [
                    _claim(evidence),
                    _linear(evidence),
                    _hopeful(evidence),
                    _leaking(evidence),
                    TRANSDUCTIVE if evidence.judged.transductive else "",
                    evidence.groups.caution,
                ],
            )
        ),
        pictures={"results": picture},
        tables=(grid, *_runs(evidence)),
    )


def _runs(evidence: Evidence) -> list[Grid]:
    """What stands behind the names of the runs."""
    rows = [[run, made] for run, made in evidence.history.made.items()]
    grid = Grid(
        name="runs", caption="What the runs are.", header=["run", "net and inputs"], rows=rows
    )
    return [grid] if rows else []


def _same_rows(evidence: Evidence) -> str:
    """Who answers for lines that have nothing to say of some clips."""
    whole = all(line.n == len(evidence.clips) for line in evidence.lines)
    return "" if whole else f" Clips {len(evidence.clips)}: {SILENT}."


def _told(evidence: Evidence) -> str:
    """What the baseline without content knows."""
    if not evidence.judged.metadata:
        return ""
    return f" Metadata only: a linear model that sees {', '.join(evidence.judged.metadata)} and no content."


def _beside(evidence: Evidence) -> str:
    """What is said of runs that the bundle is not made of, and of members of it that are not shown."""
    judged, said = evidence.judged, ""
    beside = not all(line.fused for line in judged.lines)
    apart = evidence.bundle is not None and judged.normalised
    if beside:
        said = f" {BESIDE[1:-1].capitalize()}: shown beside it, and part of no fusion here."
    if judged.pooled and (beside or apart):
        said += f" The plain fusions are of its members: {', '.join(judged.pooled)}."
    if judged.unshown:
        said += f" Members that are not shown: {', '.join(judged.unshown)}"
        said += "." if judged.pooled else "; the plain fusions of all members are left out."
    return said


def _claim(evidence: Evidence) -> str:
    """What may be said about the ensemble and what ships."""
    best = evidence.best_single
    said = []
    for line in evidence.lines:
        if line.gain is not None and line.role in ("ensemble", "shipped"):
            gain = line.gain
            verb = "gains" if gain.shown else "shows no gain:"
            value, space, bounds = str(gain).partition(" ")
            named = "what ships" if line.role == "shipped" else line.name
            said.append(
                f"{named} {verb} {value} {title(evidence.main)}{space}{bounds} over {best.name}, "
                "the best single member in hindsight."
            )
    if evidence.gate is not None:
        said.append(f"{evidence.gate.said[0].upper()}{evidence.gate.said[1:]}.")
    return " ".join(said) or f"The best single member is {best.name} (in hindsight)."


def tested(_: Options, evidence: Evidence) -> Section | None:
    """The test split, where `evaluate` has opened it."""
    found = evidence.tested
    if found is None:
        return None
    names = FIGURES[found.kind]
    grid = Grid(
        name="test", header=["", "n", *(title(name) for name in names)],
        caption=f"{evidence.dataset}, {evidence.task_name}: test split, {caption(found)} "
        "(bootstrap over groups, in brackets).",
        rows=[[row.name, str(row.n), *(str(row.figures[n]) for n in names)] for row in found.rows],
        strong=frozenset(n for n, row in enumerate(found.rows) if row.role == "ensemble"),
    )  # fmt: skip
    shown = [(row.name, row.role, *bounds(row.figures[names[0]])) for row in found.rows]
    text = f"Looks at the test split so far: {evidence.looks}. {found.verdict[0].upper()}{found.verdict[1:]}."
    picture = plots.intervals(shown, title(names[0]))
    basis = f"{found.num_rows} test clips of {found.num_groups} groups"
    return Section(
        title="Test split", text=text, pictures={"test": picture}, tables=(grid,), basis=basis
    )


def _linear(evidence: Evidence) -> str:
    """Where the linear model of the same features is from, or how it is made."""
    said = evidence.judged.linear.said
    return said and f"{said[0].upper()}{said[1:]}."


def _hopeful(evidence: Evidence) -> str:
    """A word on runs that were chosen on the rows they are judged on."""
    if not evidence.history.searches:
        return ""
    names = ", ".join(evidence.history.searches)
    return f"Runs of the search ({names}) were chosen on these rows: their figures are a little hopeful."


def _leaking(evidence: Evidence) -> str:
    """A word on inputs that know the labels of train."""
    found = [
        name
        for reports in evidence.history.leaks.values()
        for name, report in reports.items()
        if report.leaks
    ]
    names = ", ".join(dict.fromkeys(found))
    return (
        f"LEAK: {names} know the labels of the training split (see the leak test)." if names else ""
    )


def weights(_: Options, evidence: Evidence) -> Section | None:
    """What each member adds to the ensemble."""
    shares = (evidence.bundle or {}).get("member_weights")
    if not shares:
        return None
    bundle = evidence.bundle or {}
    rule = next(iter(dict(bundle.get("chosen", {})).values()), "")
    text = f"The rule that ships, fitted on all held-out rows. Chosen for the first fold: {rule}."
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    grid = Grid(
        name="weights", caption="Share of each member in the ensemble.",
        header=["member", "weight"], rows=[[name, f"{w:.3f}"] for name, w in ordered.items()],
    )  # fmt: skip
    picture = plots.bars(ordered, "weight of the member")
    return Section(
        title="Ensemble", text=text if rule else "", pictures={"weights": picture}, tables=(grid,)
    )


def memory(_: Options, evidence: Evidence) -> Section | None:
    """How much better each run is on what it has seen."""
    roles = {run: found for run, found in evidence.history.roles.items() if found}
    if not roles:
        return None
    main = title(evidence.main)
    grid = Grid(
        name="roles", caption=f"{main}, mean over folds; seeds averaged.",
        header=["run", *plots.ROLE_NAMES.values()],
        rows=[
            [run, *(figure_text(found[role]) if role in found else "" for role in plots.ROLE_NAMES)]
            for run, found in roles.items()
        ],
    )  # fmt: skip
    text = "A wide gap between the rows a net trained on and the held-out rows is what it learned by heart."
    return Section(
        title="Seen and unseen rows", text=text,
        pictures={"roles": plots.role_dots(roles, main)}, tables=(grid,),
    )  # fmt: skip


def training(_: Options, evidence: Evidence) -> Section | None:
    """Learning curves of every run that kept its history; a net that was solved has none."""
    histories = {
        run: [curve.records for curve in found if len(curve.records) > 1]
        for run, found in evidence.history.curves.items()
    }
    kept = {run: curves for run, curves in histories.items() if curves}
    if not kept:
        return None
    first = next(iter(kept.values()))[0][-1]
    metrics = [key for key in first if key.startswith("valid/") and key != "valid/loss"]
    wanted = [key for key in metrics if key.endswith(f"/{evidence.main}")] or metrics
    metric = wanted[0] if wanted else "valid/loss"
    text = "Thin lines are folds and seeds, thick lines their mean until the first of them stopped."
    pictures = {"learning_curves": plots.learning_curves(kept, metric)}
    rows = [
        [run, str(number), str(record["epoch"]), f"{record[metric]:.6g}"]
        for run, curves in kept.items()
        for number, records in enumerate(curves)
        for record in records
        if metric in record
    ]
    points = Grid(
        name="learning_curves", caption="", header=["run", "curve", "epoch", metric], rows=rows
    )
    return Section(title="Learning curves", text=text, pictures=pictures, data=(points,))


def search(_: Options, evidence: Evidence) -> Section | None:
    """What a search tried, and which settings mattered."""
    pictures, points = {}, []
    for name, found in evidence.history.searches.items():
        if len(found.score) > 1 and found.columns:
            pictures[f"trials_{name}"] = plots.parallel(found.columns, found.score, found.metric)
            header = [*found.columns, found.metric]
            rows = zip(*found.columns.values(), found.score, strict=True)
            lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
            points.append(Grid(name=f"trials_{name}", caption="", header=header, rows=lines))
        if found.importance:
            ordered = dict(sorted(found.importance.items(), key=lambda item: -item[1]))
            pictures[f"importance_{name}"] = plots.bars(ordered, "importance of the setting")
            lines = [[setting, f"{share:.4f}"] for setting, share in ordered.items()]
            header = ["setting", "importance"]
            points.append(Grid(name=f"importance_{name}", caption="", header=header, rows=lines))
    lines_are = (
        "A line is a trial that was finished; a setting that a trial does not have is at the foot."
    )
    searches = evidence.history.searches.items()
    open_ones = ", ".join(name for name, found in searches if not found.ended)
    stopped = (
        f"Not ended: {open_ones}. The same affuse tune goes on; this report is of what was there."
    )
    text = " ".join([*([lines_are] if pictures else []), *([stopped] if open_ones else [])])
    data = tuple(points)
    return Section(title="Search", text=text, pictures=pictures, data=data) if text else None


SECTIONS: tuple[Callable[[Options, Evidence], Section | None], ...] = (
    results, normalised, tested, raters, leaks, classes, labels, values, dialogues, moments, people,
    calibration, coverage, elsewhere, weights, explained, memory, training, data, search, errors,
)  # fmt: skip
"""In the order of the page."""
