"""Scores that no training made as the predictions of a run: of rows that are held out, and of no others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cluster import storage
from cluster.tables import PREDICTIONS
from fusion.number_format import figure_text
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.predictions import read_predictions, with_priors, write_predictions
from jobs.training.feeds import Clips
from jobs.training.loading import Request, read_clips
from jobs.training.parts import Part, is_known, split_of
from jobs.training.summary import averaged, figures_of_role, rows_of_role

VALID_SHARE = 0.1
"""As `affuse train` has it where a dataset has no validation split."""

SEED = 0


@dataclass(frozen=True, kw_only=True)
class HeldOutClips:
    """The labelled clips that runs are judged on."""

    clips: Clips
    """These and others, none of the test split."""

    rows: np.ndarray
    """Which they are, as indices of clips."""

    role: Literal["oof", "valid"]

    @property
    def clip_id(self) -> np.ndarray:
        """Their ids."""
        return np.asarray(self.clips.clip_id[self.rows])


def judged_clips(root: str, name: str, task: Task, folds: str | None) -> HeldOutClips:
    """The clips that runs on these folds are judged on; no row of the test split is read.

    Args:
        root: of the dataset.
        name: of the task.
        task: the task.
        folds: their name; None: the validation split (or the groups that stand in for one).
    """
    clips = read_clips(Request(root=root, inputs=(), tasks=(name,), folds=folds), {name: task})
    known = is_known(clips.known[name])
    if folds is not None:
        return HeldOutClips(clips=clips, rows=np.flatnonzero(known), role="oof")
    part = Part(fold=0, seed=SEED)
    valid = split_of(clips, part, valid_share=VALID_SHARE, has_folds=False).valid
    return HeldOutClips(clips=clips, rows=np.flatnonzero(known & valid), role="valid")


def publish_predictions(
    root: str,
    run: str,
    name: str,
    task: Task,
    judged: HeldOutClips,
    scores: Mapping[int, Sequence[float]],
) -> None:
    """Write the predictions of every fold; a clip without scores is one that the run does not answer."""
    clips = judged.clips
    target, known = clips.targets[name].double(), clips.known[name]
    if task.kind == "multilabel":
        target = target.masked_fill(~known, float("nan"))
    target = target.reshape(len(clips), -1)
    for fold in np.unique(clips.fold[judged.rows]).tolist():
        rows = judged.rows[clips.fold[judged.rows] == fold]
        count = len(rows)
        columns = {
            "clip_id": clips.clip_id[rows],
            "run": pa.array([run] * count, pa.string()),
            "split": pa.array(clips.split[rows].tolist(), pa.string()),
            "fold": pa.array([fold] * count, pa.int64()),
            "seed": pa.array([SEED] * count, pa.int64()),
            "task": pa.array([name] * count, pa.string()),
            "target": pa.array(target[rows].tolist(), pa.list_(pa.float64())),
            "role": pa.array([judged.role] * count, pa.string()),
            "scores": pa.array(
                [scores.get(clip) for clip in clips.clip_id[rows].tolist()], pa.list_(pa.float64())
            ),
        }
        write_predictions(root, run, fold, SEED, PREDICTIONS.conform(pa.table(columns)))


def publish_summary(root: str, run: str, name: str, task: Task, facts: Mapping[str, Any]) -> None:
    """Figures of the run: it is complete."""
    said = read_predictions(root, run)
    table, tasks = with_priors(said, task), {name: task}
    role = str(said["role"][0])
    summary = {
        "run": run,
        "net": None,
        "inputs": {},
        "tasks": {name: task.to_json()},
        "judged": role,
        "rows": {role: rows_of_role(said, role, tasks)},
        "roles": {role: figures_of_role(table, role, tasks)},
        "averaged": averaged(table, role, tasks),
        **facts,
    }
    storage.publish_json(summary, layout.run_uri(root, run, layout.SUMMARY))
    clips, answered = summary["rows"][role][name]
    print(f"{run}: {answered} of {clips} held-out clips answered")
    for figure, value in summary["averaged"].items():
        print(f"  {figure} {figure_text(value)}")
