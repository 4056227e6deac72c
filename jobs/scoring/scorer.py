"""From the features of some clips to their SCORES: the nets of a bundle, its fusion, its calibration.

A bundle names the encoders its nets were trained on by fingerprint; they are found again among the
registered ones, with the transcriber that the text encoders read. `face_expression` is a bundle that needs
no training: the mean of the expression net's own 7 probabilities over the frames with a face.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import storage, tables
from fusion.late.calibration import Decision
from fusion.late.members import Members
from fusion.predictor import Pool
from fusion.shift import Signals
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.bundles import asked_members, nets_of_member
from jobs.scoring.bundle import Bundle
from jobs.scoring.feature_range import Range, distances
from jobs.scoring.member_nets import (
    Fusion,
    MemberNets,
    load_member,
    predict_member,
    untrained_member,
)
from jobs.scoring.promised import NOTHING, promised_rows
from jobs.training.feeds import Clips, Store
from jobs.training.net_input import feed_of_card, make_store
from jobs.training.stores import HeldTable, steps_in

Columns = Mapping[str, pa.Array]

SILENT = "nothing in it that the bundle reads (no face, no speech)"
"""Error of a clip that no member says anything of, though nothing went wrong."""

UNKNOWN: dict[str, Any] = {"expected": None, "unusual": None}
"""Columns of SCORES of answers of which the bundle does not know how far they are to be trusted."""


class Scorer:
    """The loaded nets of a bundle; on the CPU, also in an actor that holds a GPU.

    The plan gives a GPU's memory to the encoders. What is left for the nets is a unit's features.

    Args:
        bundle: what is loaded.
        root: of the dataset, which knows the modality of imported inputs; without it an input is its own.
    """

    def __init__(self, bundle: Bundle, root: str = "") -> None:
        self.bundle = bundle
        self.modality = {item.folder: str(item.spec.modality) for item in bundle.encoders}
        for folder, name in bundle.imported.items():
            known = root and layout.features_uri(root, folder, layout.DESCRIPTOR)
            self.modality[folder] = storage.read_json(known)["modality"] if known else name
        self.members: list[MemberNets] = []
        self._names: tuple[str, ...] = ()
        self.fusion: Fusion | None = None
        ranges = bundle.facts.get("ranges", {})
        self.ranges = {folder: Range.from_state(state) for folder, state in ranges.items()}
        if bundle.facts:
            self.fusion = Fusion.from_facts(bundle.facts)
            self._names = tuple(self.fusion.rule.names)
            members = {member["run"]: member for member in bundle.facts["members"]}
            asked = asked_members(bundle.facts)
            for run in (name for name in self._names if name not in asked):
                if bundle.uri is None:
                    self.members.append(untrained_member(run, members[run]["card"]))
                    continue
                self.members.append(
                    load_member(run, nets_of_member(bundle.uri, members[run]), bundle.store)
                )

    def scores(
        self, facts: Sequence[Mapping[str, Any]], features: Mapping[str, pa.Table]
    ) -> pa.Table:
        """SCORES of some clips.

        Args:
            facts: of each clip its clip_id, name, dialogue, turn and speaker; of a piece start_s and end_s.
            features: folder name of each encoder -> FEATURES of the same clips, in any order.
        """
        facts = sorted(facts, key=lambda fact: fact["clip_id"])
        tables_ = {name: table.sort_by("clip_id") for name, table in features.items()}
        if self.fusion is None:
            task, kind, fused = untrained_scores(tables_)
            decision = Decision.plain(kind.kind, kind.outputs)
            promises, signs = [NOTHING] * len(facts), [UNKNOWN] * len(facts)
        else:
            task, kind, decision = self.fusion.task, self.fusion.kind, self.fusion.decision
            members, unusual = self._members(facts, tables_, task, kind)
            fused = self.fusion.combine(members).double()
            promises = self._promises(self.fusion, fused, members.present)
            signs = self._signs(self.fusion, fused, members, unusual)
        silent = fused.isnan().any(1).numpy()
        columns = {
            **self._about(facts, task),
            **verdict_columns(fused.double(), kind, decision),
            **_where_said(promises, silent, NOTHING),
            **_where_said(signs, silent, UNKNOWN),
            **state_columns(tables_, self.modality, silent),
        }
        table = scores_table(columns, len(facts))
        return tables.SCORES.conform(table, footer={"bundle": self.bundle.name})

    def _about(self, facts: Sequence[Mapping[str, Any]], task: str) -> Columns:
        """What each row is about; a piece of a clip has a start and an end."""
        named = {name: [fact.get(name) for fact in facts] for name in ("clip_id", "name")}
        cut = {name: [fact.get(name) for fact in facts] for name in ("start_s", "end_s")}
        same = {"task": [task] * len(facts), "bundle": [self.bundle.name] * len(facts)}
        return {name: pa.array(values) for name, values in {**named, **cut, **same}.items()}

    def fused(self, facts: Sequence[Mapping[str, Any]], features: Mapping[str, pa.Table]) -> Tensor:
        """Fused scores [clip output] of clips and tables in the order of ids; NaN where no member answers."""
        assert self.fusion is not None
        members, _ = self._members(facts, features, self.fusion.task, self.fusion.kind)
        return self.fusion.combine(members)

    def _promises(self, fusion: Fusion, scores: Tensor, present: Tensor) -> list[dict[str, Any]]:
        """What cannot be excluded of each clip, where a coverage was asked for."""
        coverage, conformal = self.bundle.coverage, fusion.conformal
        if coverage is None or conformal is None:
            return [NOTHING] * len(scores)
        return promised_rows(conformal, coverage, scores, present, fusion.kind, fusion.decision)

    def _members(
        self,
        facts: Sequence[Mapping[str, Any]],
        features: Mapping[str, pa.Table],
        name: str,
        task: Task,
    ) -> tuple[Members, list[list[str]]]:
        """Scores of all members, and of each clip the inputs that lie outside the training range."""
        clips = clips_without_labels(facts)
        tables_ = TablesInHand(clips, features)
        scores = torch.zeros(len(self.members), len(facts), task.outputs, dtype=torch.float64)
        present = torch.zeros(len(self.members), len(facts), dtype=torch.bool)
        unusual: list[list[str]] = [[] for _ in facts]
        for index, member in enumerate(self.members):
            feed = feed_of_card(member.card, clips, tables_)
            said, known = predict_member(member, feed, name, task)
            scores[index], present[index] = torch.from_numpy(said), torch.from_numpy(known)
            for place, source in member.card.inputs.items():
                found = self.ranges.get(source["features"])
                if found is not None and (found.run, found.input) == (member.name, place):
                    beyond = distances(member, place, feed.stores[place]) > found.limit
                    for row in beyond.nonzero()[:, 0].tolist():
                        unusual[row].append(source["name"])
        names = tuple(member.name for member in self.members)
        members = Members(names=names, kind=task.kind, scores=scores, present=present)
        # Those that nobody asks here are absent; thresholds go by which members are there.
        return members.aligned(self._names), unusual

    def _signs(
        self, fusion: Fusion, scores: Tensor, members: Members, unusual: Sequence[list[str]]
    ) -> list[dict[str, Any]]:
        """How far each answer is to be trusted, as the bundle knows it."""
        expected = [None] * members.num_rows
        if fusion.expectation is not None:
            expected = fusion.expectation.of(Signals.of(scores, members)).tolist()
        known = bool(self.ranges)
        return [
            {"expected": one, "unusual": sorted(names) if known else None}
            for one, names in zip(expected, unusual, strict=True)
        ]


def _where_said(
    rows: Sequence[Mapping[str, Any]], silent: np.ndarray, names: Mapping[str, None]
) -> Columns:
    """Columns of rows; null where no member says anything."""
    return {
        name: pa.array(
            [None if mute else row[name] for row, mute in zip(rows, silent, strict=True)],
            tables.SCORES.schema.field(name).type,
        )
        for name in names
        if any(row[name] is not None for row in rows)
    }


def untrained_scores(features: Mapping[str, pa.Table]) -> tuple[str, Task, Tensor]:
    """The expression net's own classes: its probabilities averaged over the frames with a face."""
    (table,) = features.values()
    name, task = untrained_task()
    rows = []
    columns = (table["expression"].to_pylist(), table["valid"].to_pylist())
    for steps, valid in zip(*columns, strict=True):
        seen = [step for step, ok in zip(steps or (), valid or (), strict=True) if ok]
        mean = np.mean(seen, axis=0) if seen else np.full(task.outputs, np.nan)
        rows.append(np.log(np.maximum(mean, 1e-9)))
    return name, task, torch.from_numpy(np.stack(rows))


def untrained_task() -> tuple[str, Task]:
    """What the bundle that needs no training predicts."""
    from encoders.video.face_expression import CLASSES

    return "expression", Task(kind="classification", classes=CLASSES)


class TablesInHand:
    """The features of some clips that were just made or read; each is made a net's input once."""

    def __init__(self, clips: Clips, features: Mapping[str, pa.Table]) -> None:
        self._clips, self._features = clips, features
        self._stores: dict[tuple[str, Pool, str, str], Store] = {}

    def store(self, folder: str, pool: Pool, normalise: str, column: str) -> Store:
        """One input of all clips."""
        key = (folder, pool, normalise, column)
        if key not in self._stores:
            table = HeldTable(folder, self._features[folder])
            self._stores[key] = make_store(table, self._clips, pool, normalise, column=column)
        return self._stores[key]


def clips_without_labels(facts: Sequence[Mapping[str, Any]]) -> Clips:
    """The clips of some facts, in their order: that of their ids."""

    def column(key: str) -> np.ndarray:
        return np.array([fact.get(key) for fact in facts], dtype=object)

    return Clips(
        clip_id=np.array([fact["clip_id"] for fact in facts], np.int64),
        split=np.array([None] * len(facts), dtype=object),
        fold=np.zeros(len(facts), np.int64),
        group=column("group"),
        speaker=column("speaker"),
        dialogue=column("dialogue"),
        turn=column("turn"),
        targets={},
        known={},
    )


# ---- columns of many clips at once


def verdict_columns(scores: Tensor, task: Task, decision: Decision) -> Columns:
    """Label, confidence, probabilities and value; null where no member was present.

    Args:
        scores: fused, float64 [clip outputs]; NaN where no member was present.
        task: of the bundle.
        decision: from scores to labels.
    """
    silent = scores.isnan().any(1).numpy()
    known = torch.where(torch.from_numpy(silent)[:, None], 0.0, scores)
    if task.kind == "regression":
        return {"value": pa.array(known[:, 0].numpy(), mask=silent)}
    decided = decision.decide(known)
    if task.kind == "classification":
        shares = torch.softmax(known, -1)
        chosen = torch.zeros(known.shape, dtype=torch.bool).scatter(1, decided.unsqueeze(1), True)
        confidence = shares.gather(1, decided.unsqueeze(1))[:, 0]
    else:
        shares, chosen = torch.sigmoid(known), decided.bool()
        confidence = torch.where(chosen, shares, 1 - shares).amin(1)
    return {
        "label": lists_of(chosen.numpy(), task.classes, silent),
        "confidence": pa.array(confidence.numpy(), mask=silent),
        "probabilities": _maps_of(shares.numpy(), task.classes, silent),
    }


def state_columns(
    features: Mapping[str, pa.Table], modality: Mapping[str, str], silent: np.ndarray
) -> Columns:
    """The modalities that were there, status and error.

    Args:
        features: folder name of each encoder -> FEATURES of the clips, in their order.
        modality: of each folder.
        silent: clips that no member says anything of, bool [clip].
    """
    names = sorted(set(modality.values()))
    used = np.zeros((len(silent), len(names)), bool)
    wrong: dict[int, list[str]] = {}
    for folder, table in features.items():
        name = modality[folder]
        there, damaged = steps_in(table)
        used[:, names.index(name)] |= there > 0
        status = np.array(table["status"].to_pylist(), object)
        broken = (status == "failed") | (status == "partial")
        for row in np.flatnonzero(broken | (damaged > 0)).tolist():
            steps = f"{damaged[row]} steps are not finite"
            reason = table["error"][row].as_py() if broken[row] else steps
            wrong.setdefault(row, []).append(f"{name}: {reason}")
    state = ["missing" if mute else "ok" for mute in silent.tolist()]
    error = [SILENT if mute else None for mute in silent.tolist()]
    for row, reasons in wrong.items():
        state[row] = "failed" if silent[row] else "partial"
        error[row] = "; ".join(dict.fromkeys(reasons))
    return {
        "modalities": lists_of(used & ~silent[:, None], names),
        "status": pa.array(state, pa.string()),
        "error": pa.array(error, pa.string()),
    }


def lists_of(
    chosen: np.ndarray, names: Sequence[str], missing: np.ndarray | None = None
) -> pa.Array:
    """Lists of the names that are chosen, bool [clip name]; null where `missing`, bool [clip]."""
    rows = chosen if missing is None else chosen & ~missing[:, None]
    ends = np.concatenate([[0], np.cumsum(rows.sum(1))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(np.nonzero(rows)[1]))
    mask = None if missing is None else pa.array(missing)
    return pa.ListArray.from_arrays(pa.array(ends), values, mask=mask)


def _maps_of(shares: np.ndarray, names: Sequence[str], missing: np.ndarray) -> pa.Array:
    """Maps from each name to its share [clip name]; null where `missing`."""
    rows = shares[~missing]
    ends = np.concatenate([[0], np.cumsum(np.where(missing, 0, len(names)))]).astype(np.int32)
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), len(rows))))
    # A null offset makes a null map; the last one only closes the row before it.
    offsets = pa.array(ends, mask=np.append(missing, False))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(rows.reshape(-1)))


def scores_table(columns: Columns, count: int) -> pa.Table:
    """Columns of SCORES in their order; those that nobody filled are null."""
    return pa.table(
        [
            columns[field.name].cast(field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in tables.SCORES.schema
        ],
        schema=tables.SCORES.schema,
    )
