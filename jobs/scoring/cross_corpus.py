"""A model of one dataset judged on another: figures there, and how much is lost against its own dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster import storage
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, metric
from fusion.number_format import figure_text
from fusion.statistics import Groups, Interval
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.judged_files import judged_file
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import HeldOut, as_target, held_out_rows, seeds_averaged
from jobs.evaluation import results_table
from jobs.evaluation.judging import Judging
from jobs.evaluation.other_labels import JoinedLabels, OneCorpus, drop
from jobs.evaluation.results_table import Results, without_nan
from jobs.scoring.elsewhere import Elsewhere, narrowed


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A figure in the model's own dataset and in another, over the classes that both have."""

    of: str
    """Run or bundle."""

    role: str
    """Rows of its own dataset: test where they were looked at before, else oof or valid."""

    num_rows: int
    num_groups: int
    own: float
    elsewhere: float
    drop: Interval

    def said(self, metric: str) -> str:
        """In one line."""
        return (
            f"{self.of}: {metric} {figure_text(self.own)} in its own dataset ({self.role}, "
            f"{self.num_rows} clips, {self.num_groups} groups), {figure_text(self.elsewhere)} there; "
            f"lost {self.drop}"
        )


@dataclass(frozen=True, kw_only=True)
class JudgedElsewhere:
    """Everything that is known of a model on another dataset."""

    other: Elsewhere
    held: HeldOut
    """Over the common classes."""

    scores: Tensor | None
    task: Task
    """The model's task with the common classes alone."""

    left_out: Mapping[str, int]
    results: Results
    lost: tuple[Lost, ...]

    def notes(self) -> list[str]:
        """What was joined, and what was left out of the comparison."""
        labels, said = self.other.labels, []
        if labels is not None:
            said.append(f"classes in common: {', '.join(labels.classes)}")
            if labels.dropped_ours:
                said.append(
                    f"not in the other dataset: {', '.join(labels.dropped_ours)}; probabilities are "
                    "renormalised over the others"
                )
            if self.left_out:
                counts = ", ".join(f"{count} {label}" for label, count in self.left_out.items())
                said.append(f"clips left out, whose label is none of the model's: {counts}")
        main = FIGURES[self.task.kind][0]
        return [*said, *(each.said(main) for each in self.lost)]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        labels = self.other.labels
        dataset = read_dataset(self.other.root)
        return {
            "root": self.other.root,
            "dataset": dataset.name,
            "manifest": dataset.manifest_hash,
            "task": self.other.task,
            "rows": "test" if self.other.is_test else "all",
            "classes": None if labels is None else list(labels.classes),
            "dropped_classes": [] if labels is None else list(labels.dropped_ours),
            "left_out": dict(self.left_out),
            "lost": without_nan([
                {
                    "of": each.of, "role": each.role, "rows": each.num_rows, "groups": each.num_groups,
                    "own": each.own, "elsewhere": each.elsewhere, "drop": each.drop.value,
                    "low": each.drop.low, "high": each.drop.high,
                }
                for each in self.lost
            ]),
        }  # fmt: skip


def judge_elsewhere(
    held: HeldOut,
    left_out: Mapping[str, int],
    scores: Tensor | None,
    guess: Tensor,
    other: Elsewhere,
    judging: Judging,
) -> JudgedElsewhere:
    """Figures of the members and their fusion there, and what each judged line loses.

    Args:
        held: the members there, in all classes of the model.
        left_out: label of theirs -> clips left out for it.
        scores: of a bundle there; None: the runs are judged by themselves.
        guess: scores [outputs] of the model's prior.
        other: the dataset.
        judging: the model's task, and how intervals are drawn; its rows are those of `held`.
    """
    labels, task = other.labels, judging.task
    if labels is not None:
        held, guess = narrowed(held, labels), labels.narrowed(guess[None])[0]
        scores = None if scores is None else labels.narrowed(scores)
        task = replace(task, classes=labels.classes)
    common = replace(judging, task=task, target=held.target)
    results = results_table.judge_test(held, guess, scores, common)
    return JudgedElsewhere(
        other=other, held=held, scores=scores, task=task, left_out=left_out, results=results, lost=(),
    )  # fmt: skip


def with_losses(
    judged: JudgedElsewhere,
    root: str,
    bundle: str | None,
    name: str,
    task: Task,
    *,
    resamples: int,
    seed: int,
) -> JudgedElsewhere:
    """What a bundle, or each of the runs, loses against its own dataset.

    Args:
        judged: in the other dataset.
        root: of the model.
        bundle: the bundle; None: the members are runs.
        name: the model's task.
        task: with all its classes.
        resamples: of the groups.
        seed: of the draws.
    """
    held = judged.held
    said = {run: held.members.alone(k) for k, run in enumerate(held.members.names)}
    if bundle is not None and judged.scores is not None:
        said = {bundle: judged.scores}
    people = groups_of(judged.other.root, held.clip_id)
    lost = []
    for line, scores in said.items():
        own, role = own_side(
            root, line, name, task, is_bundle=bundle is not None, labels=judged.other.labels
        )
        answered = ~scores.isnan().any(1)
        there = OneCorpus(
            prediction=probabilities(task.kind, scores[answered]),
            target=held.target[answered],
            groups=people[answered.numpy()],
        )
        main = FIGURES[task.kind][0]
        figure = drop(main, own, there, resamples=resamples, seed=seed)
        lost.append(_lost(line, role, main, own, there, figure))
    return replace(judged, lost=tuple(lost))


def _lost(
    line: str, role: str, name: str, own: OneCorpus, there: OneCorpus, figure: Interval
) -> Lost:
    return Lost(
        of=line,
        role=role,
        num_rows=len(own.target),
        num_groups=Groups.of(own.groups).count,
        own=float(metric(name)(own.prediction, own.target)),
        elsewhere=float(metric(name)(there.prediction, there.target)),
        drop=figure,
    )


def own_side(
    root: str, line: str, name: str, task: Task, *, is_bundle: bool, labels: JoinedLabels | None
) -> tuple[OneCorpus, str]:
    """What a run or bundle said of its own rows that it did not train on, over the common classes.

    Its test split counts where `evaluate` has opened it before; it is not opened for this.
    """
    looked = layout.evaluation_uri(root, line, layout.PREDICTIONS)
    if storage.exists(looked):
        table = storage.read_table(looked)
    elif is_bundle:
        table = storage.read_table(judged_file(layout.bundle_uri(root, line), layout.PREDICTIONS))
    else:
        table = held_out_rows(root, line, name)
    role = str(table["role"][0])
    rows = seeds_averaged(table.filter(pc.equal(table["task"], name)), task)
    scores, target = torch.from_numpy(rows.scores), as_target(rows.target, task.kind)
    kept = ~scores.isnan().any(1)
    if labels is not None:
        target = labels.places(target)
        kept &= target >= 0
        scores = labels.narrowed(scores)
    people = groups_of(root, rows.clip_id[kept.numpy()])
    side = OneCorpus(
        prediction=probabilities(task.kind, scores[kept]),
        target=target[kept],
        groups=np.asarray(people),
    )
    return side, role
