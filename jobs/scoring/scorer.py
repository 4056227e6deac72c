"""From the features of some clips to their SCORES: the nets of a bundle, its fusion, its calibration.

A bundle names the encoders its nets were trained on by fingerprint; they are found again among the
registered ones, with the transcriber that the text encoders read. `face_expression` is a bundle that needs
no training: the mean of the expression net's own 7 probabilities over the frames with a face.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import tables
from fusion.late.calibration import Decision
from fusion.late.members import Members
from fusion.shift import Signals
from fusion.tasks import Task
from jobs.catalog.bundles import asked_members
from jobs.scoring.bundle import Bundle, modalities_of
from jobs.scoring.feature_range import Range, distances
from jobs.scoring.member_nets import (
    Facts,
    Fusion,
    MemberNets,
    TablesInHand,
    clips_without_labels,
    facts_table,
    load_bundled,
    predict_member,
    untrained_member,
)
from jobs.scoring.promised import promised
from jobs.scoring.score_columns import (
    Columns,
    lists_of,
    promised_columns,
    scores_table,
    state_columns,
    verdict_columns,
)
from jobs.scoring.told_scores import ToldScores
from jobs.training.net_input import feed_of_card


class Scorer:
    """The loaded nets of a bundle; on the CPU, also in an actor that holds a GPU.

    The plan gives a GPU's memory to the encoders. What is left for the nets is a unit's features.

    Args:
        bundle: what is loaded.
        root: of the dataset, which knows the modality of imported inputs; without it an input is its own.
    """

    def __init__(self, bundle: Bundle, root: str = "") -> None:
        self.bundle = bundle
        self.modality = modalities_of(bundle, root)
        self.members: list[MemberNets] = []
        self._names: tuple[str, ...] = ()
        self._told = {run: ToldScores(uri) for run, uri in bundle.told.items()}
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
                self.members.append(load_bundled(bundle.uri, members[run], bundle.store))

    def scores(self, facts: Facts, features: Mapping[str, pa.Table]) -> pa.Table:
        """SCORES of some clips, in the order of their ids.

        Args:
            facts: of each clip its clip_id, name, dialogue, turn and speaker; of a piece start_s and end_s.
            features: folder name of each encoder -> FEATURES of the same clips, in any order.
        """
        return self.scores_in_turn(facts_table(facts).sort_by("clip_id"), features)

    def scores_in_turn(
        self, facts: pa.Table, features: Mapping[str, pa.Table], parts: Sequence[int] = ()
    ) -> pa.Table:
        """SCORES of some clips, in the order of the facts.

        Args:
            facts: as of `scores`.
            features: as of `scores`.
            parts: clips that follow one another and are given to the nets apart from the others: how many
                each part has; by default all are one.
        """
        clips = facts_table(facts)
        if self.fusion is None:
            task, kind, fused = untrained_scores(features)
            fused = fused[np.argsort(by_id(clips))]
            decision, more = Decision.plain(kind.kind, kind.outputs), {}
            silent = fused.isnan().any(1).numpy()
        else:
            task, kind, decision = self.fusion.task, self.fusion.kind, self.fusion.decision
            members, unusual = self._members(clips, features, task, kind, parts)
            fused = self.fusion.combine(members).double()
            silent = fused.isnan().any(1).numpy()
            more = {
                **self._promises(self.fusion, fused, members.present, silent),
                **self._signs(self.fusion, fused, members, silent),
                **self._unusual(unusual, silent),
            }
        columns = {
            **self._about(clips, task),
            **verdict_columns(fused, kind, decision),
            **more,
            **state_columns(features, self.modality, silent, clips["clip_id"].to_numpy()),
        }
        table = scores_table(columns, clips.num_rows)
        return tables.SCORES.conform(table, footer={"bundle": self.bundle.name})

    def _about(self, clips: pa.Table, task: str) -> Columns:
        """What each row is about; a piece of a clip has a start and an end."""
        known = {name: clips[name] for name in ("clip_id", "name", "start_s", "end_s")}
        same = {"task": task, "bundle": self.bundle.name}
        return {
            **{name: column.combine_chunks() for name, column in known.items()},
            **{name: pa.repeat(value, clips.num_rows) for name, value in same.items()},
        }

    def fused(self, facts: Facts, features: Mapping[str, pa.Table]) -> Tensor:
        """Fused scores [clip output] of clips in their order; NaN where no member answers."""
        assert self.fusion is not None
        clips = facts_table(facts)
        members, _ = self._members(clips, features, self.fusion.task, self.fusion.kind)
        return self.fusion.combine(members)

    def _promises(
        self, fusion: Fusion, scores: Tensor, present: Tensor, silent: np.ndarray
    ) -> Columns:
        """What cannot be excluded of each clip, where a coverage was asked for."""
        coverage, conformal = self.bundle.coverage, fusion.conformal
        if coverage is None or conformal is None:
            return {}
        said = promised(conformal, coverage, scores, present, fusion.kind, fusion.decision)
        return promised_columns(said, fusion.kind, silent)

    def _members(
        self,
        facts: pa.Table,
        features: Mapping[str, pa.Table],
        name: str,
        task: Task,
        parts: Sequence[int] = (),
    ) -> tuple[Members, list[tuple[str, np.ndarray]]]:
        """Scores of all members; and inputs, with the clips whose lie outside the training range."""
        order = by_id(facts)
        back = np.argsort(order)
        clips = clips_without_labels(facts.take(pa.array(order)))
        of_part = np.repeat(np.arange(len(parts)), parts)[order] if parts else None
        apart = None if of_part is None else [of_part == part for part in range(len(parts))]
        tables_ = TablesInHand(clips, features)
        scores = torch.zeros(len(self.members), len(clips), task.outputs, dtype=torch.float64)
        present = torch.zeros(len(self.members), len(clips), dtype=torch.bool)
        unusual = []
        for index, member in enumerate(self.members):
            feed = feed_of_card(member.card, clips, tables_)
            said, known = predict_member(member, feed, name, task, apart)
            scores[index], present[index] = torch.from_numpy(said), torch.from_numpy(known)
            for place, source in member.card.inputs.items():
                found = self.ranges.get(source["features"])
                if found is not None and (found.run, found.input) == (member.name, place):
                    beyond = distances(member, place, feed.stores[place]) > found.limit
                    unusual.append((source["name"], beyond.numpy()[back]))
        names = tuple(member.name for member in self.members)
        members = Members(names=names, kind=task.kind, scores=scores, present=present)
        # Those that nobody asks here are absent; thresholds go by which members are there.
        members = members.aligned(self._names)
        for run, told in self._told.items():
            at = self._names.index(run)
            members.scores[at], members.present[at] = told.of(clips.clip_id, task.outputs)
        return members.rows(torch.from_numpy(back)), unusual

    def _signs(
        self, fusion: Fusion, scores: Tensor, members: Members, silent: np.ndarray
    ) -> Columns:
        """How probable it is that each answer is right, where the bundle knows."""
        if fusion.expectation is None:
            return {}
        expected = fusion.expectation.of(Signals.of(scores, members)).numpy()
        return {"expected": pa.array(expected, mask=silent)}

    def _unusual(self, found: Sequence[tuple[str, np.ndarray]], silent: np.ndarray) -> Columns:
        """The inputs of each clip that lie outside the training range, where the bundle knows it."""
        if not self.ranges:
            return {}
        inputs = sorted(found, key=lambda one: one[0])
        none = np.zeros((len(silent), 0), bool)
        beyond = np.column_stack([none, *(rows for _, rows in inputs)]).astype(bool)
        return {"unusual": lists_of(beyond, [name for name, _ in inputs], silent)}


def untrained_scores(features: Mapping[str, pa.Table]) -> tuple[str, Task, Tensor]:
    """The expression net's own classes, in the order of ids: the mean over the frames with a face."""
    (table,) = (each.sort_by("clip_id") for each in features.values())
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


def by_id(clips: pa.Table) -> np.ndarray:
    """Rows of clips in the order of their ids."""
    return np.argsort(clips["clip_id"].to_numpy(), kind="stable")
