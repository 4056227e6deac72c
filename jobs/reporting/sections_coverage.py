"""The section of a report on what its answers may promise: how often sets and intervals hold the truth."""

import numpy as np
import torch

from fusion.late.conformal import Conformal
from fusion.late.presence import HeldRows, left_out
from fusion.number_format import figure_text
from jobs.evaluation.promises import USUAL
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.page import Options, Section

QUARTILES = (0, 25, 50, 75, 100)


def coverage(_: Options, evidence: Evidence) -> Section:
    """How often sets or intervals hold the truth: on average, by class or label, by person."""
    kind, scores = evidence.task.kind, evidence.focus.scores
    code = evidence.groups.code.numpy()
    fitted = Conformal.fit(kind, scores, evidence.target, code)
    known = evidence.met
    if (
        known is None or evidence.focus.role != "shipped"
    ):  # one net, or a bundle of an earlier version
        rows = HeldRows.alike(kind, scores, evidence.target, code)
        covered, size = (each.numpy() for each in left_out(rows, USUAL))
    else:
        covered, size = known
    if not fitted.measurable(USUAL):
        text = f"{fitted.groups} groups are too few to say what excludes answers at a coverage of {USUAL:g}."
        return Section(title="Coverage", text=text)
    text = (
        f"With `affuse score --coverage {USUAL:g}` {_unit(kind)} that hold the truth for {USUAL:.0%} of "
        "the clips of an average new person. Each group here was answered with thresholds that were fitted "
        f"on the others: {np.nanmean(covered):.1%} of the clips are covered."
    )
    tables = [_people(evidence, covered, size)]
    if kind != "regression":
        tables.insert(0, _classes(evidence, covered, size))
    return Section(title="Coverage", text=text, tables=tuple(tables))


def _unit(kind: str) -> str:
    return {
        "classification": "each clip gets a set of classes, as small as they can be,",
        "multilabel": "each label is there, not there, or left open, in answers",
        "regression": "each value gets an interval, in answers",
    }[kind]


def _classes(evidence: Evidence, covered: np.ndarray, size: np.ndarray) -> Grid:
    rows = []
    for place, name in enumerate(evidence.task.classes):
        if evidence.task.kind == "classification":
            hits, sizes = _of_class(evidence.target, place, covered[:, 0], size)
        else:
            hits, sizes = covered[:, place], size
        hits = hits[~np.isnan(hits)]
        share = f"{hits.mean():.3f}" if len(hits) else ""
        mean = f"{np.nanmean(sizes):.2f}" if len(hits) else ""
        cells = [mean] if evidence.task.kind == "classification" else []
        rows.append([name, str(len(hits)), share, *cells])
    one = evidence.task.kind == "classification"
    return Grid(
        name="coverage_by_class",
        caption=f"{evidence.focus.name}: asked {USUAL:g}; the promise is about people, not about each "
        + ("class." if one else "label."),
        header=["class" if one else "label", "n", "covered", *(["classes in the set"] * one)],
        rows=rows,
    )


def _of_class(
    target: torch.Tensor, place: int, covered: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    at = (target == place).numpy()
    return covered[at], size[at]


def _people(evidence: Evidence, covered: np.ndarray, size: np.ndarray) -> Grid:
    """The spread over people: the promise holds for the average one."""
    code = evidence.groups.code.numpy()
    answered = [
        rows for group in np.unique(code)
        if not np.isnan(covered[rows := np.flatnonzero(code == group)]).all()
    ]  # fmt: skip
    share = [np.nanmean(covered[rows]) for rows in answered]
    width = [np.nanmean(size[rows]) for rows in answered]
    what = {
        "classification": "classes in the set",
        "multilabel": "labels left open",
        "regression": "width of the interval",
    }[evidence.task.kind]
    return Grid(
        name="coverage_by_person",
        caption=f"{evidence.focus.name}: the {len(answered)} groups, from the least to the most.",
        header=["", "least", "quarter", "half", "three quarters", "most"],
        rows=[
            ["covered", *(f"{np.percentile(share, q):.3f}" for q in QUARTILES)],
            [what, *(figure_text(float(np.percentile(width, q))) for q in QUARTILES)],
        ],
    )
