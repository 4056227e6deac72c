"""The sections of a report: each is a heading, a few sentences, pictures and tables, made of the evidence.

A section that has nothing to say about a kind of task, or finds nothing to draw, is None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fusion.late.members import probabilities
from fusion.metrics.classification import BINS, confusion, per_class
from fusion.metrics.classification import ece as ece_of
from fusion.statistics import Interval, ece_bound
from jobs import _plots
from jobs._evidence import Evidence
from jobs._results import FIGURES
from jobs._tables import Grid


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


def results(options: Options, evidence: Evidence) -> Section:
    """Every way to answer beside its baselines."""
    names = FIGURES[evidence.task.kind]
    header = ["", *(_title(name) for name in names), f"gain over {evidence.best_single.name}"]
    rows = [
        [
            line.name,
            *(_with_interval(line.figures[name]) for name in names),
            ""
            if line.gain is None
            else f"{_with_interval(line.gain)}, p = {line.gain.p_value:.3f}",
        ]
        for line in evidence.lines
    ]
    shown = [
        (line.name, line.role, *_three(line.figures[evidence.main])) for line in evidence.lines
    ]
    grid = Grid(
        name="results",
        caption=f"{evidence.dataset}, {evidence.task_name}: {evidence.protocol}, "
        f"{evidence.groups.count} groups. 95 % bootstrap intervals over groups in brackets; gain is paired "
        "(positive is better), p by exchanging the two within groups.",
        header=header,
        rows=rows,
        strong=frozenset(n for n, line in enumerate(evidence.lines) if line is evidence.focus),
    )
    picture = _plots.intervals(shown, _title(evidence.main), limit=options.limit)
    return Section(
        title="Results",
        text=" ".join(
            filter(None, [_claim(evidence), _hopeful(evidence), evidence.groups.caution])
        ),
        pictures={"results": picture},
        tables=(grid,),
    )


def _claim(evidence: Evidence) -> str:
    """What may be said about the ensemble, in one sentence."""
    focus, best = evidence.focus, evidence.best_single
    if focus.gain is None:
        return f"The best single member is {best.name} (in hindsight)."
    gain = focus.gain
    verb = "gains" if gain.shown else "shows no gain:"
    return (
        f"{focus.name} {verb} {gain.value:+.3f} {_title(evidence.main)} "
        f"[{gain.low:+.3f}, {gain.high:+.3f}] over {best.name}, the best single member in hindsight."
    )


def _hopeful(evidence: Evidence) -> str:
    """A word on runs that were chosen on the rows they are judged on."""
    if not evidence.searches:
        return ""
    names = ", ".join(evidence.searches)
    return f"Runs of the search ({names}) were chosen on these rows: their figures are a little hopeful."


def classes(_: Options, evidence: Evidence) -> Section | None:
    """Confusion matrix and precision, recall and F1 per class."""
    if evidence.task.kind != "classification":
        return None
    prediction, target, _known = _judged(evidence)
    names = evidence.task.classes
    counts = confusion(prediction, target, num_classes=len(names)).numpy()
    each = per_class(prediction, target, num_classes=len(names))
    rows = [
        [name, f"{each.precision[k]:.3f}", f"{each.recall[k]:.3f}", f"{each.f1[k]:.3f}",
         f"{each.support[k]:.0f}"]
        for k, name in enumerate(names)
    ]  # fmt: skip
    focus = evidence.focus.name
    per = Grid(
        name="per_class", caption=f"{focus}: {evidence.protocol}.", rows=rows,
        header=["class", "precision", "recall", "F1", "n"],
    )  # fmt: skip
    matrix = Grid(
        name="confusion", caption=f"{focus}, counts; a row is what the clip is.",
        header=["is \\ said", *names],
        rows=[[name, *(f"{count:.0f}" for count in counts[k])] for k, name in enumerate(names)],
    )  # fmt: skip
    picture = _plots.confusion(counts, names, focus)
    return Section(title="Classes", pictures={"confusion": picture}, tables=(per, matrix))


def labels(_: Options, evidence: Evidence) -> Section | None:
    """Precision, recall and F1 of each label of a multi-label task."""
    if evidence.task.kind != "multilabel":
        return None
    prediction, target, _known = _judged(evidence)
    rows = []
    for k, name in enumerate(evidence.task.classes):
        asked = ~target[:, k].isnan()
        said, is_so = prediction[asked, k] > 0.5, target[asked, k] > 0.5
        right = float((said & is_so).sum())
        precision = right / max(1.0, float(said.sum()))
        recall = right / max(1.0, float(is_so.sum()))
        f1 = 2 * right / max(1.0, float(said.sum() + is_so.sum()))
        rows.append([name, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", f"{int(is_so.sum())}"])
    grid = Grid(
        name="per_label", caption=f"{evidence.focus.name}, decided at 0.5: {evidence.protocol}.",
        header=["label", "precision", "recall", "F1", "n"], rows=rows,
    )  # fmt: skip
    return Section(title="Labels", tables=(grid,))


def values(_: Options, evidence: Evidence) -> Section | None:
    """Predicted over true values of a regression."""
    if evidence.task.kind != "regression":
        return None
    prediction, target, _known = _judged(evidence)
    picture = _plots.scatter(prediction[:, 0].numpy(), target.numpy(), evidence.focus.name)
    return Section(title="Values", pictures={"values": picture})


def calibration(_: Options, evidence: Evidence) -> Section | None:
    """Whether a confidence means what it says."""
    if evidence.task.kind != "classification":
        return None
    prediction, target, _known = _judged(evidence)
    confidence, said = prediction.max(1)
    bound = ece_bound(prediction)
    text = (
        f"Expected calibration error {ece_of(prediction, target):.3f} over {BINS} bins. A perfectly "
        f"calibrated model would show {bound.mean:.3f} on average on these {len(target)} clips, and up to "
        f"{bound.high:.3f} in 95 % of cases; below that nothing can be told from chance. "
        "Bars are 95 % intervals of a share."
    )
    picture = _plots.reliability(
        confidence.numpy(), (said == target).numpy(), bins=BINS, title=evidence.focus.name
    )
    return Section(title="Calibration", text=text, pictures={"reliability": picture})


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
    picture = _plots.bars(ordered, "weight of the member")
    return Section(
        title="Ensemble", text=text if rule else "", pictures={"weights": picture}, tables=(grid,)
    )


def memory(_: Options, evidence: Evidence) -> Section | None:
    """How much better each run is on what it has seen."""
    roles = {run: found for run, found in evidence.roles.items() if found}
    if not roles:
        return None
    main = _title(evidence.main)
    grid = Grid(
        name="roles", caption=f"{main}, mean over folds; seeds averaged.",
        header=["run", *_plots.ROLE_NAMES.values()],
        rows=[
            [run, *(f"{found[role]:.3f}" if role in found else "" for role in _plots.ROLE_NAMES)]
            for run, found in roles.items()
        ],
    )  # fmt: skip
    text = "A wide gap between the rows a net trained on and the held-out rows is what it learned by heart."
    return Section(
        title="Seen and unseen rows", text=text,
        pictures={"roles": _plots.role_dots(roles, main)}, tables=(grid,),
    )  # fmt: skip


def training(_: Options, evidence: Evidence) -> Section | None:
    """Learning curves of every run that kept its history."""
    kept = {
        run: [curve.records for curve in found] for run, found in evidence.curves.items() if found
    }
    if not kept:
        return None
    first = next(iter(kept.values()))[0][-1]
    metrics = [key for key in first if key.startswith("valid/") and key != "valid/loss"]
    wanted = [key for key in metrics if key.endswith(f"/{evidence.main}")] or metrics
    metric = wanted[0] if wanted else "valid/loss"
    text = "Thin lines are folds and seeds, thick lines their mean until the first of them stopped."
    pictures = {"learning_curves": _plots.learning_curves(kept, metric)}
    return Section(title="Learning curves", text=text, pictures=pictures)


def search(_: Options, evidence: Evidence) -> Section | None:
    """What a search tried, and which settings mattered."""
    pictures = {}
    for name, found in evidence.searches.items():
        if len(found.score) > 1 and found.columns:
            pictures[f"trials_{name}"] = _plots.parallel(found.columns, found.score, found.metric)
        if found.importance:
            ordered = dict(sorted(found.importance.items(), key=lambda item: -item[1]))
            pictures[f"importance_{name}"] = _plots.bars(ordered, "importance of the setting")
    text = (
        "A line is a trial that was finished; a setting that a trial does not have is at the foot."
    )
    return Section(title="Search", text=text, pictures=pictures) if pictures else None


def errors(options: Options, evidence: Evidence) -> Section | None:
    """The clips that were got wrong with the most conviction, by name."""
    if options.worst == 0 or evidence.task.kind == "multilabel":
        return None
    prediction, target, known = _judged(evidence)
    rows_of = np.flatnonzero(known.numpy())
    if evidence.task.kind == "regression":
        off = (prediction[:, 0] - target).abs()
        order = off.argsort(descending=True)[: options.worst].tolist()
        header = ["clip", "group", "is", "said", "off by"]
        rows = [
            [evidence.clips[rows_of[k]], evidence.group_of[rows_of[k]], f"{target[k]:.2f}",
             f"{prediction[k, 0]:.2f}", f"{off[k]:.2f}"]
            for k in order
        ]  # fmt: skip
    else:
        truth = prediction.gather(1, target[:, None])[:, 0]
        confidence, said = prediction.max(1)
        off = torch.where(said == target, -1.0, confidence - truth)
        order = [k for k in off.argsort(descending=True)[: options.worst].tolist() if off[k] >= 0]
        names = evidence.task.classes
        members = evidence.members if len(evidence.members) <= 6 else []
        header = ["clip", "group", "is", "said", "with", "truth had", *(m.name for m in members)]
        rows = [
            [evidence.clips[rows_of[k]], evidence.group_of[rows_of[k]], names[int(target[k])],
             names[int(said[k])], f"{confidence[k]:.2f}", f"{truth[k]:.2f}",
             *(_said(m.scores[rows_of[k]], names) for m in members)]
            for k in order
        ]  # fmt: skip
    grid = Grid(
        name="worst", caption=f"{evidence.focus.name}: wrong with the most conviction.",
        header=header, rows=rows,
    )  # fmt: skip
    return Section(title="Worst errors", tables=(grid,)) if rows else None


SECTIONS: tuple[Callable[[Options, Evidence], Section | None], ...] = (
    results, classes, labels, values, calibration, weights, memory, training, search, errors,
)  # fmt: skip
"""In the order of the page."""


def _judged(evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (or values) and targets of the focus, and which rows they are of."""
    known = ~evidence.focus.scores.isnan().any(1)
    prediction = probabilities(evidence.task.kind, evidence.focus.scores[known])
    return prediction, evidence.target[known], known


def _said(scores: torch.Tensor, names: Sequence[str]) -> str:
    return "" if bool(scores.isnan().any()) else names[int(scores.argmax())]


def _three(figure: Interval) -> tuple[float, float, float]:
    return figure.value, figure.low, figure.high


def _with_interval(figure: object) -> str:
    value, low, high = (getattr(figure, name) for name in ("value", "low", "high"))
    if np.isnan(value):
        return "-"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _title(name: str) -> str:
    """A metric's name as a heading."""
    known = {"brier": "Brier", "uar": "UAR", "nll": "NLL", "ece": "ECE", "mae": "MAE", "ccc": "CCC"}
    return known.get(name, name.replace("_", " ").replace("f1", "F1"))
