"""Predictions made elsewhere, as further members of an ensemble.

A file holds one row a clip: the clip (`name` or `clip_id`), its `fold`, its `role` (`oof` or `valid`; rows
of role train are never fitted on, rows of role test are refused) and its scores: one column a class named
like the class, holding probabilities, or the same with the prefix `logit_`; for a regression one column
`value`. Formats: Parquet, CSV, TSV, JSON lines, npz (one array a column). The member's name is the file's.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import torch

from cluster.errors import ConfigError, NotPreparedError, TestSplitError
from fusion.late.members import Members, probabilities
from fusion.metrics import metric
from fusion.tasks import Kind, Task
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import HeldOut, MemberRows, align
from jobs.interop.cells import composed
from jobs.interop.prediction_tables import read_frame, score_columns

SUSPICIOUS_GAP = 0.15
"""Share of right answers by which offered rows may exceed other rows before the member is refused."""

AGREEMENT: Mapping[Kind, str] = {
    "classification": "accuracy",
    "multilabel": "multilabel_micro_f1",
    "regression": "pearson",
}
"""Figures that are 1 where a member says nothing but the truth."""

PERFECT = 0.99
"""Figure above which an imported member is suspected of knowing the truth."""

FAR_BELOW = 0.1
"""By how much the best of the other members has to lie below it."""

FEWEST_ROWS = 20
"""Below this many rows on a side nothing is concluded."""


def add_members(
    root: str, held: HeldOut | None, files: Sequence[str], name: str, task: Task
) -> HeldOut:
    """Join the members of some files to those of the runs.

    Raises:
        TableError: a file lacks a column, or has cells that are not what they should be.
        ConfigError: it has rows twice.
        TestSplitError: a file offers rows of role test.
        NotPreparedError: a file has clips that the manifest does not know.
    """
    rows = {} if held is None else rows_of(held)
    for file in files:
        title = PurePosixPath(file).stem
        if title in rows:
            raise ConfigError(f"{file}: there is a member {title!r} already; rename the file")
        rows[title] = imported(root, file, name, task)
    return align(rows, task)


def warn_of_perfect(held: HeldOut, files: Sequence[str]) -> None:
    """Say of which imported members hardly an answer is wrong, where no other member comes near.

    That an answer is the truth cannot be proven: such a member is fused all the same.

    Args:
        held: all members.
        files: what was imported.
    """
    titles = [PurePosixPath(file).stem for file in files]
    figures = {name: agreement(held, name) for name in held.members.names}
    for title in titles:
        others = [figures[name] for name in figures if name != title]
        if figures[title] > PERFECT and max(others, default=0.0) < figures[title] - FAR_BELOW:
            best = f", the best other one {max(others):.3f}" if others else ""
            print(
                f"warning: imported member {title} has {AGREEMENT[held.members.kind]} {figures[title]:.3f}"
                f"{best}: if it knows the labels of these clips, all figures with it are worthless; look "
                "how it was made, or leave it out of --imported"
            )


def agreement(held: HeldOut, name: str) -> float:
    """The figure of one member on the rows that it answers; 0 if undefined, or of too few rows."""
    kind, place = held.members.kind, held.members.names.index(name)
    at = held.members.present[place]
    said = probabilities(kind, held.members.scores[place][at])
    if len(said) < FEWEST_ROWS:
        return 0.0
    return float(np.nan_to_num(metric(AGREEMENT[kind])(said, held.target[at])))


def rows_of(held: HeldOut) -> dict[str, MemberRows]:
    """The members of aligned rows, each with the rows it has something to say about."""
    target = held.target.double().reshape(len(held.clip_id), -1).numpy()
    found = {}
    for index, name in enumerate(held.members.names):
        at = held.members.present[index].numpy()
        found[name] = MemberRows(
            clip_id=held.clip_id[at],
            fold=held.fold[at],
            target=target[at],
            scores=held.members.scores[index].numpy()[at],
        )
    return found


def imported(root: str, file: str, name: str, task: Task) -> MemberRows:
    """One file of predictions as a member; targets come from the manifest, never from the file."""
    frame = read_frame(file, task)
    if (frame["role"] == "test").any():
        raise TestSplitError(f"{file}: rows of role test; an ensemble is never fitted on them")
    frame = with_targets(root, frame, file, name, task)
    scores = member_scores(frame, task)
    check_held_out(frame, scores, file, task)
    kept = frame["role"].isin(["oof", "valid"]).to_numpy()
    target = np.stack(frame["target"].to_numpy()[kept])
    order = np.argsort(frame["clip_id"].to_numpy()[kept])
    return MemberRows(
        clip_id=frame["clip_id"].to_numpy()[kept][order],
        fold=frame["fold"].to_numpy()[kept][order],
        target=target[order],
        scores=scores[kept][order],
    )


def with_targets(root: str, frame: pd.DataFrame, file: str, name: str, task: Task) -> pd.DataFrame:
    """Add `clip_id` and `target` from the manifest; rows without a target are left out.

    Raises:
        NotPreparedError: clips the manifest does not know.
        ConfigError: a clip stands twice among the rows that are offered for fitting.
    """
    manifest = read_manifest(root, columns=["clip_id", "name", name]).to_pandas()
    manifest = manifest.rename(columns={name: "_label"})
    manifest["name"] = manifest["name"].map(composed)
    key = "clip_id" if "clip_id" in frame else "name"
    kept = [column for column in frame.columns if column not in ("clip_id", "name")]
    joined = frame[[key, *kept]].merge(manifest, on=key, how="left", indicator=True)
    unknown = joined.loc[joined["_merge"] == "left_only", key]
    if len(unknown):
        raise NotPreparedError(
            f"{file}: {len(unknown)} clips are not in the manifest, the first is {unknown.iloc[0]!r}"
        )
    twice = joined.loc[joined["role"] != "train", key].duplicated()
    if twice.any():
        raise ConfigError(
            f"{file}: {int(twice.sum())} clips stand twice among rows not of role train"
        )
    joined = joined[joined["_label"].notna()].reset_index(drop=True)
    joined["target"] = [as_numbers(label, task) for label in joined["_label"]]
    return joined


def as_numbers(label: object, task: Task) -> list[float]:
    """A manifest's label in the form of PREDICTIONS, values in single precision as there."""
    if task.kind == "classification":
        return [float(task.classes.index(str(label)))]
    if task.kind == "regression":
        return [float(np.float32(label))]  # type: ignore[arg-type]
    return [float(value) for value in label]  # type: ignore[attr-defined]


def member_scores(frame: pd.DataFrame, task: Task) -> np.ndarray:
    """Scores as `Members` wants them [row outputs]."""
    columns = score_columns(frame.columns, task)
    if task.kind == "regression":
        return np.asarray(frame[columns].to_numpy(np.float64))
    raw = torch.tensor(frame[columns].to_numpy(np.float64))
    if columns != list(task.classes):
        return Members.from_logits(["member"], task.kind, raw[None]).scores[0].numpy()
    return Members.from_probabilities(["member"], task.kind, raw[None]).scores[0].numpy()


def check_held_out(frame: pd.DataFrame, scores: np.ndarray, file: str, task: Task) -> None:
    """Refuse a member whose offered rows differ too much from its others to be held out.

    Raises:
        ConfigError: it is far better on rows offered for fitting than on rows it says it trained on, or
            far better on one fold than on the rest.
    """
    if task.kind == "regression":
        return
    hits = row_quality(frame, scores, task)
    offered = frame["role"].to_numpy() != "train"
    parts = {"rows it trained on": (offered, ~offered)}
    for fold in np.unique(frame["fold"].to_numpy()[offered]):
        at = frame["fold"].to_numpy() == fold
        parts[f"its other folds than {fold}"] = (offered & at, offered & ~at)
    for where, (ours, rest) in parts.items():
        if min(ours.sum(), rest.sum()) < FEWEST_ROWS:
            continue
        gap = hits[ours].mean() - hits[rest].mean()
        noise = 3 * np.sqrt(hits[ours].var() / ours.sum() + hits[rest].var() / rest.sum())
        if gap > max(SUSPICIOUS_GAP, noise):
            raise ConfigError(
                f"{file}: {hits[ours].mean():.1%} right on rows offered for fitting, {hits[rest].mean():.1%} "
                f"on {where}; these rows are not out-of-fold: give predictions of nets that did not train "
                "on them, or mark them role train"
            )


def row_quality(frame: pd.DataFrame, scores: np.ndarray, task: Task) -> np.ndarray:
    """Share of right decisions of each row [row], 0 to 1."""
    target = np.stack(frame["target"].to_numpy())
    if task.kind == "classification":
        return np.asarray(scores.argmax(1) == target[:, 0], np.float64)
    return np.asarray(((scores > 0) == (target > 0.5)).mean(1))
