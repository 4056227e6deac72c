"""What the nets of one root say of the clips of another: the same features, labels joined by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from cluster.errors import ConfigError, NotPreparedError
from encoders import ENCODERS
from fusion.late.members import Members, probabilities
from fusion.nets import net_axis
from fusion.predictor import Card, feeding_fields
from fusion.tasks import Task
from jobs.catalog.features import feature_folders, resolve_features
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.missing_rows import command_of
from jobs.catalog.names import joined_name
from jobs.catalog.predictions import HeldOut, MemberRows, align
from jobs.catalog.tasks import pick_task
from jobs.evaluation.other_labels import JoinedLabels, join_labels
from jobs.scoring.member_nets import MemberNets, predict_member
from jobs.training.loading import Data, Request, load


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Another dataset that a model is judged on."""

    root: str
    task: str
    """Its task."""

    is_test: bool
    """Whether only its test split is read: it has one."""

    labels: JoinedLabels | None
    """None: values, which need no joining."""

    theirs: Task


def open_elsewhere(
    root: str, ours: Task, name: str, task: str | None, aliases: Mapping[str, str]
) -> Elsewhere:
    """The other dataset, and how its labels are ours.

    Args:
        root: of the other dataset.
        ours: task of the model.
        name: its name.
        task: of the other dataset; None: the one of the same name, else the only one.
        aliases: class of theirs -> class of ours.

    Raises:
        ConfigError: tasks of different kinds, or too few classes in common.
    """
    dataset = read_dataset(root)
    their_name, theirs = pick_task(dataset, task or (name if name in dataset.tasks else None))
    if ours.kind != theirs.kind or ours.kind == "multilabel":
        raise ConfigError(
            f"--on {root}: task {their_name!r} is a {theirs.kind}, the model's {name!r} a {ours.kind}; "
            "classifications and regressions are joined with their like; type: --on-task"
        )
    splits = set(read_manifest(root, ["split"])["split"].to_pylist())
    return Elsewhere(
        root=root,
        task=their_name,
        is_test="test" in splits,
        labels=join_labels(ours, theirs, aliases) if ours.kind == "classification" else None,
        theirs=theirs,
    )


def name_elsewhere(model: str, root: str) -> str:
    """Name of the evaluation of a run or bundle on another dataset, at its present manifest."""
    there = read_dataset(root)
    name = f"{there.name.replace('/', '_')}-{there.manifest_hash[:6]}"
    return joined_name([model, "on", name], "-")


def said_elsewhere(
    members: Sequence[MemberNets], other: Elsewhere, name: str, ours: Task
) -> tuple[HeldOut, dict[str, int]]:
    """Scores of all our classes of the labelled clips of another dataset whose label is one of ours.

    Returns:
        The members on these clips, targets in our classes; and label of theirs -> clips left out for it.
    """
    rows: dict[str, MemberRows] = {}
    left_out: dict[str, int] = {}
    for member in members:
        data = load_elsewhere(other, member.card)
        scores, present = predict_member(member, data.feed, name, ours)
        clips = data.feed.clips
        known = clips.known[other.task].numpy().astype(bool).reshape(len(present))
        target = clips.targets[other.task].double().numpy().reshape(len(present), -1)
        if other.labels is not None:
            target, known, left_out = _in_our_classes(other.labels, other.theirs, target, known)
        kept = present & known
        rows[member.name] = MemberRows(
            clip_id=clips.clip_id[kept],
            fold=np.zeros(int(kept.sum()), np.int64),
            target=target[kept],
            scores=scores[kept],
        )
    if not any(len(each.clip_id) for each in rows.values()):
        raise ConfigError(
            f"--on {other.root}: no clip has a label of ours and an input of the nets"
        )
    return align(rows, ours), left_out


def _in_our_classes(
    labels: JoinedLabels, theirs: Task, target: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    place = np.full(theirs.outputs, -1)
    place[list(labels.of_theirs)] = list(labels.of_theirs.values())
    codes = np.where(known, target[:, 0], 0).astype(np.int64)
    lost = known & (place[codes] < 0)
    left_out = {theirs.classes[code]: int((codes[lost] == code).sum()) for code in set(codes[lost])}
    return place[codes][:, None].astype(np.float64), known & ~lost, left_out


def load_elsewhere(other: Elsewhere, card: Card) -> Data:
    """The clips of another root as the input of a net."""
    inputs = {
        key: {**facts, "features": folder_elsewhere(other.root, facts)}
        for key, facts in card.inputs.items()
    }
    request = Request(
        root=other.root,
        inputs=tuple(str(facts["features"]) for facts in inputs.values()),
        tasks=(other.task,),
        axis=net_axis(card.net),
        test=other.is_test,
        **feeding_fields(card),
    )
    data = load(request, inputs)
    wrong = {key: data.dims[key] for key in data.dims if data.dims[key] != card.dims[key]}
    if wrong:
        raise ConfigError(
            f"--on {other.root}: inputs are {wrong} wide, the net was trained on "
            f"{ {key: card.dims[key] for key in wrong} }"
        )
    return data


def folder_elsewhere(root: str, facts: Mapping[str, Any]) -> str:
    """The table of an input under another root: of the same fingerprint, or imported under the same name.

    Raises:
        NotPreparedError: it has not been encoded there, with what to type.
    """
    folder, name = str(facts["features"]), str(facts["name"])
    if folder in feature_folders(root):
        return folder
    if name not in ENCODERS:
        return resolve_features(root, name)
    there = ", ".join(sorted(feature_folders(root))) or "none"
    raise NotPreparedError(
        f"--on {root}: no features {folder} (there: {there}), which the net reads; type: "
        f"{command_of(root, facts)}"
    )


def narrowed(held: HeldOut, labels: JoinedLabels) -> HeldOut:
    """The members over the common classes, renormalised."""
    members = held.members
    scores = members.scores[:, :, list(labels.columns)].log_softmax(2)
    return replace(
        held,
        target=labels.places(held.target),
        members=Members(
            names=members.names, kind=members.kind, scores=scores, present=members.present
        ),
    )


def member_table(other: Elsewhere, ours: Task, clip_id: np.ndarray, scores: Tensor) -> pa.Table:
    """Predictions as `affuse ensemble --imported` reads them, in the classes of the other dataset.

    A class of ours that several of theirs mean is shared out equally among them; a class of theirs that means
    none of ours gets nothing.

    Args:
        other: the dataset.
        ours: the model's task.
        clip_id: [row].
        scores: of a member or a fusion, [row outputs].
    """
    said = probabilities(ours.kind, scores).numpy().reshape(len(clip_id), -1)
    names = read_manifest(other.root, ["clip_id", "name"])
    of_clip = dict(zip(names["clip_id"].to_pylist(), names["name"].to_pylist(), strict=True))
    columns: dict[str, Any] = {"name": [of_clip[clip] for clip in clip_id.tolist()]}
    columns |= {"fold": [0] * len(clip_id), "role": ["oof"] * len(clip_id)}
    if other.labels is None:
        return pa.table({**columns, "value": said[:, 0]})
    meant = list(other.labels.of_theirs.values())
    total = said[:, list(other.labels.columns)].sum(1)
    for index, label in enumerate(other.theirs.classes):
        place = other.labels.of_theirs.get(index)
        share = 0.0 * total if place is None else said[:, place] / meant.count(place) / total
        columns[label] = share
    return pa.table(columns)
