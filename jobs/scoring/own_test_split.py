"""What members say of the test rows of their own dataset; `evaluate` alone asks for it."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster.errors import NotPreparedError
from cluster.tables import PREDICTIONS
from fusion.late.members import prior
from fusion.tasks import Task
from jobs.catalog import bundles
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import HeldOut, MemberRows, align
from jobs.evaluation.linear_baseline import (
    LinearBaseline,
    found_as,
    linear_runs,
    on_rows,
    to_be_made,
)
from jobs.evaluation.sibling_runs import run_configs
from jobs.scoring.member_nets import MemberNets, load_member, predict_member
from jobs.training.loading import load_test
from jobs.training.parts import is_known
from jobs.training.targets import encode_targets


def test_rows(root: str, members: Sequence[MemberNets], name: str, task: Task) -> HeldOut:
    """Predictions of every member for the test rows with a known target."""
    return align(
        {member.name: rows_of_member(root, member, name, task) for member in members}, task
    )


def rows_of_member(root: str, member: MemberNets, name: str, task: Task) -> MemberRows:
    """Predictions of one member for the test rows with a known target that have one of its inputs."""
    feed = load_test(root, member.card, name).feed
    scores, present = predict_member(member, feed, name, task)
    known, target = feed.clips.known[name], feed.clips.targets[name].double()
    target = torch.where(known, target, torch.nan).reshape(len(scores), -1)
    kept = present & is_known(known)
    return MemberRows(
        clip_id=feed.clips.clip_id[kept],
        fold=np.zeros(int(kept.sum()), np.int64),
        target=target.numpy()[kept],
        scores=scores[kept],
    )


def linear_on_test(
    root: str, runs: Sequence[str], held: HeldOut, name: str, task: Task
) -> LinearBaseline:
    """The linear run that reads what the members read, on the test rows; the command where there is none."""
    configs = run_configs(root)
    found = linear_runs(root, configs, runs, name, task)
    for run in found if set(found).isdisjoint(runs) else []:
        with suppress(NotPreparedError):  # it has folds and no net of all rows
            member = load_member(run, bundles.nets_of_run(root, run))
            scores = on_rows(rows_of_member(root, member, name, task), held, task)
            if scores is not None:
                return found_as(f"run {run}", scores, root, configs, runs)
    return to_be_made(root, configs, runs, name)


def prior_of(root: str, name: str, task: Task) -> Tensor:
    """Scores [outputs] of the prior: class frequencies (or mean) of the labels outside the test split."""
    table = read_manifest(root, ["split", name])
    column = table.filter(pc.fill_null(pc.not_equal(table["split"], "test"), True))[name]
    target, known = encode_targets(column, task)
    if task.kind == "multilabel":
        return prior(task.kind, torch.where(known, target.double(), torch.nan), task.outputs)
    return prior(task.kind, target[known], task.outputs)


def test_predictions(name: str, task: str, held: HeldOut, scores: Tensor | None) -> pa.Table:
    """Rows of role test: of the bundle, or of the first run."""
    verdict = held.members.scores[0] if scores is None else scores
    known = ~verdict.isnan().any(1)
    if scores is None:
        known &= held.members.present[0]
    count = int(known.sum())
    target = held.target.double().reshape(len(held.clip_id), -1)
    return PREDICTIONS.conform(
        pa.table(
            {
                "clip_id": held.clip_id[known.numpy()],
                "run": [name] * count,
                "split": ["test"] * count,
                "fold": [0] * count,
                "seed": [0] * count,
                "task": [task] * count,
                "target": target[known].tolist(),
                "role": ["test"] * count,
                "scores": verdict[known].tolist(),
            }
        )
    )
