"""Sections of a report on what was got right and wrong: classes, labels, values, confidence, worst errors."""

from collections.abc import Sequence

import numpy as np
import torch

from fusion.ece_bound import ece_bound
from fusion.late.members import probabilities
from fusion.metrics.classification import BINS, confusion, per_class
from fusion.metrics.classification import ece as ece_of
from fusion.metrics.multilabel import per_label
from fusion.number_format import figure_text
from jobs.reporting import plots
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.page import Options, Section


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
        name="per_class", caption=_caption(evidence), rows=rows,
        header=["class", "precision", "recall", "F1", "n"],
    )  # fmt: skip
    matrix = Grid(
        name="confusion", caption=f"{focus}, counts; a row is what the clip is.",
        header=["is \\ said", *names],
        rows=[[name, *(f"{count:.0f}" for count in counts[k])] for k, name in enumerate(names)],
    )  # fmt: skip
    picture = plots.confusion(counts, names, focus)
    return Section(title="Classes", pictures={"confusion": picture}, tables=(per, matrix))


def labels(_: Options, evidence: Evidence) -> Section | None:
    """Precision, recall, F1 and weighted accuracy of each label of a multi-label task."""
    if evidence.task.kind != "multilabel":
        return None
    prediction, target, _known = _judged(evidence)
    each = per_label(prediction > 0.5, target)
    rows = [
        [name, f"{each.precision[k]:.3f}", f"{each.recall[k]:.3f}", f"{each.f1[k]:.3f}",
         f"{each.weighted_accuracy[k]:.3f}", f"{each.support[k]:.0f}"]
        for k, name in enumerate(evidence.task.classes)
    ]  # fmt: skip
    grid = Grid(
        name="per_label",
        caption=f"Decided at 0.5; weighted accuracy is (TP N / P + TN) / 2N. {_caption(evidence)}",
        header=["label", "precision", "recall", "F1", "weighted accuracy", "n"], rows=rows,
    )  # fmt: skip
    return Section(title="Labels", tables=(grid,))


def values(_: Options, evidence: Evidence) -> Section | None:
    """Predicted over true values of a regression."""
    if evidence.task.kind != "regression":
        return None
    prediction, target, known = _judged(evidence)
    picture = plots.scatter(prediction[:, 0].numpy(), target.numpy(), evidence.focus.name)
    rows = [
        [name, f"{float(true):.6g}", f"{float(said):.6g}"]
        for name, true, said in zip(
            np.array(evidence.clips)[known.numpy()], target, prediction[:, 0], strict=True
        )
    ]
    points = Grid(name="values", caption="", header=["clip", "true", "predicted"], rows=rows)
    return Section(title="Values", pictures={"values": picture}, data=(points,))


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
    picture = plots.reliability(
        confidence.numpy(), (said == target).numpy(), bins=BINS, title=evidence.focus.name
    )
    place = np.clip(np.ceil(confidence.numpy() * BINS).astype(int) - 1, 0, BINS - 1)
    right = (said == target).numpy()
    rows = [
        [f"{confidence.numpy()[place == each].mean():.4f}", f"{right[place == each].mean():.4f}",
         str(int((place == each).sum()))]
        for each in np.unique(place)
    ]  # fmt: skip
    points = Grid(
        name="reliability", caption="", header=["confidence", "share right", "clips"], rows=rows
    )
    pictures = {"reliability": picture}
    return Section(title="Calibration", text=text, pictures=pictures, data=(points,))


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
            [evidence.clips[rows_of[k]], evidence.group_of[rows_of[k]], figure_text(float(target[k])),
             figure_text(float(prediction[k, 0])), figure_text(float(off[k]))]
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


def _caption(evidence: Evidence) -> str:
    """Whose answers a table is of."""
    focus, clips = evidence.focus, len(evidence.clips)
    silent = (
        "" if focus.n == clips else f" The {focus.n} of {clips} clips that it answers of itself."
    )
    return f"{focus.name}: {evidence.protocol}.{silent}"


def _judged(evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (or values) and targets of the focus, and which rows they are of."""
    known = ~evidence.focus.scores.isnan().any(1)
    prediction = probabilities(evidence.task.kind, evidence.focus.scores[known])
    return prediction, evidence.target[known], known


def _said(scores: torch.Tensor, names: Sequence[str]) -> str:
    return "" if bool(scores.isnan().any()) else names[int(scores.argmax())]
