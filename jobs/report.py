"""Write one HTML file that shows what was learned, with its baselines, its doubts and its worst errors.

Reads:  <root>/runs/<run>/ and <root>/bundles/<name>/ (held-out rows only, never the test split)
Writes: <root>/reports/<name>/  report.html (self-contained), its pictures as PNG, its tables as CSV and LaTeX

Laptop:   affuse report --root data/ravdess --bundle ensemble
Runs:     affuse report --root data/ravdess --runs voice face both --out figures
Cluster:  affuse submit --address URL -- report --root s3://bucket/mosei --bundle ensemble
"""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import torch

from cluster import settings, storage
from cluster.errors import ConfigError
from fusion.late.members import probabilities
from fusion.metrics.classification import BINS, confusion, per_class
from fusion.metrics.classification import ece as ece_of
from fusion.statistics import Interval, ece_bound
from jobs import _plots
from jobs._evidence import Evidence, gather
from jobs._html import PAGE, STYLE_SHEET
from jobs._results import FIGURES
from jobs._tables import Grid


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is reported, and where to."""

    root: str
    """Folder or URI of the dataset."""

    runs: tuple[str, ...] = ()
    """Runs to compare; by default the members of the bundle."""

    bundle: str | None = None
    """Ensemble to show beside them."""

    task: str | None = None
    """Task to show; by default that of the bundle, or the dataset's first."""

    out: str | None = None
    """Folder of the report; by default reports/<bundle, or the runs> under the root."""

    title: str | None = None
    """Heading of the report."""

    worst: int = 15
    """How many of the worst errors are named."""

    resamples: int = 2000
    """Bootstrap resamples of the groups."""

    seed: int = 0
    """Of the bootstrap."""

    limit: tuple[str, float] | None = None
    """A line in the results picture such as the best possible figure: its name and its height."""

    def __post_init__(self) -> None:
        if not self.runs and self.bundle is None:
            raise ConfigError("nothing to report on: name --runs, a --bundle, or both")
        if self.resamples < 100 or self.worst < 0:
            raise ConfigError("--resamples is at least 100 and --worst at least 0")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a few sentences, pictures and tables."""

    title: str
    text: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name without its ending -> PNG."""

    tables: tuple[Grid, ...] = ()


def main(config: Config) -> str:
    """Gather, draw, write; returns where the HTML file is."""
    evidence = gather(
        config.root,
        runs=config.runs,
        bundle=config.bundle,
        task=config.task,
        resamples=config.resamples,
        seed=config.seed,
    )
    sections = [section for make in SECTIONS if (section := make(config, evidence)) is not None]
    where = publish(config, evidence, sections)
    print(f"wrote {where}: {sum(len(section.pictures) for section in sections)} pictures")
    return where


def results(config: Config, evidence: Evidence) -> Section:
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
    picture = _plots.intervals(shown, _title(evidence.main), limit=config.limit)
    return Section(
        title="Results",
        text=" ".join(filter(None, [_claim(evidence), evidence.groups.caution])),
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


def classes(_: Config, evidence: Evidence) -> Section | None:
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


def labels(_: Config, evidence: Evidence) -> Section | None:
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


def values(_: Config, evidence: Evidence) -> Section | None:
    """Predicted over true values of a regression."""
    if evidence.task.kind != "regression":
        return None
    prediction, target, _known = _judged(evidence)
    picture = _plots.scatter(prediction[:, 0].numpy(), target.numpy(), evidence.focus.name)
    return Section(title="Values", pictures={"values": picture})


def calibration(_: Config, evidence: Evidence) -> Section | None:
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


def weights(_: Config, evidence: Evidence) -> Section | None:
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


def memory(_: Config, evidence: Evidence) -> Section | None:
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


def training(_: Config, evidence: Evidence) -> Section | None:
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
    text = "Thin lines are folds and seeds, thick lines their mean over those still in training."
    pictures = {"learning_curves": _plots.learning_curves(kept, metric)}
    return Section(title="Learning curves", text=text, pictures=pictures)


def errors(config: Config, evidence: Evidence) -> Section | None:
    """The clips that were got wrong with the most conviction, by name."""
    if config.worst == 0 or evidence.task.kind == "multilabel":
        return None
    prediction, target, known = _judged(evidence)
    rows_of = np.flatnonzero(known.numpy())
    if evidence.task.kind == "regression":
        off = (prediction[:, 0] - target).abs()
        order = off.argsort(descending=True)[: config.worst].tolist()
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
        order = [k for k in off.argsort(descending=True)[: config.worst].tolist() if off[k] >= 0]
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


SECTIONS: tuple[Callable[[Config, Evidence], Section | None], ...] = (
    results, classes, labels, values, calibration, weights, memory, training, errors,
)  # fmt: skip
"""In the order of the page."""


def publish(config: Config, evidence: Evidence, sections: Sequence[Section]) -> str:
    """Pictures and tables first, the page last."""
    name = config.bundle or "-".join(config.runs)[:80]
    folder = storage.absolute(config.out or storage.join(config.root, "reports", name))
    for section in sections:
        for title, png in section.pictures.items():
            storage.publish_bytes(png, storage.join(folder, f"{title}.png"))
        for grid in section.tables:
            storage.publish_bytes(grid.csv().encode(), storage.join(folder, f"{grid.name}.csv"))
            storage.publish_bytes(grid.latex().encode(), storage.join(folder, f"{grid.name}.tex"))
    storage.publish_json(settings.to_mapping(config), storage.join(folder, "config.json"))
    where = storage.join(folder, "report.html")
    storage.publish_bytes(page(config, evidence, sections).encode(), where)
    return where


def page(config: Config, evidence: Evidence, sections: Sequence[Section]) -> str:
    """The whole HTML file: no script, nothing from elsewhere."""
    title = config.title or f"{evidence.dataset}: {config.bundle or ', '.join(config.runs)}"
    facts = {
        "dataset": f"{evidence.dataset} ({evidence.licence or 'no licence given'})",
        "root": PurePosixPath(config.root).name,
        "manifest": evidence.manifest[:12],
        "task": f"{evidence.task_name} ({evidence.task.kind})",
        "protocol": evidence.protocol,
        "groups": str(evidence.groups.count),
    }
    listed = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()
    )
    body = "\n".join(_section(section) for section in sections)
    return PAGE.format(title=html.escape(title), style=STYLE_SHEET, facts=listed, body=body)


def _section(section: Section) -> str:
    text = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    pictures = "".join(
        f'<img alt="{html.escape(name.replace("_", " "))}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in section.pictures.items()
    )
    tables = "".join(grid.html() for grid in section.tables)
    title = html.escape(section.title)
    return f"<section><h2>{title}</h2>{text}{pictures}{tables}</section>"


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
    known = {"uar": "UAR", "nll": "NLL", "ece": "ECE", "mae": "MAE", "ccc": "CCC"}
    return known.get(name, name.replace("_", " ").replace("f1", "F1"))
