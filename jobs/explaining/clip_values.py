"""What each modality and member adds to the answer of a bundle for a clip: exact Shapley values.

The value of a set of modalities is the bundle's own answer where the others are taken away, as nets were
trained to answer clips that lack some; the value of a set of members is the fusion of these alone. Where
nothing is left to answer from, the answer is how frequent the classes were (the median of the values) when
the bundle was fitted; a bundle that does not say so is taken to hold all classes for equally likely.

An answer is the probability of each class or label, or the value. A transcript belongs to text, also where it
was recognised in the sound of the clip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from fusion.late.members import Members
from fusion.tasks import Task
from jobs.explaining.looks import looks_of
from jobs.explaining.shapley import shapley_values
from jobs.scoring.member_nets import TablesInHand, clips_without_labels, predict_member
from jobs.scoring.scorer import Scorer, untrained_scores
from jobs.training.net_input import feed_of_card

MODALITIES = ("audio", "text", "video")
"""Players that are always there; imported inputs of a bundle without its dataset are further ones."""

MOST_MEMBERS = 12
"""Above it the members are left out: their subsets double with each."""

SUBSETS_AT_ONCE = 1 << 16
"""Rows x subsets that are fused in one step: some 10 MB a member."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The answers of a bundle for some clips, and what they are made of."""

    names: Sequence[str]
    """Of the clips."""

    task_name: str
    task: Task
    empty: Tensor
    """Answer without any modality [output]."""

    subsets: Tensor
    """Answer of every subset of the modalities [subset clip output]; the last one is the bundle's."""

    modalities: tuple[str, ...]
    by_modality: Tensor
    """[modality clip output]."""

    members: tuple[str, ...]
    """Empty where there are more than `MOST_MEMBERS`, or none."""

    by_member: Tensor
    """[member clip output]."""

    looks: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Of each clip the gates and the attention of the nets that have them."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.task.classes if self.task.kind != "regression" else ("value",)

    def rows(self) -> list[dict[str, Any]]:
        """A mapping of plain values a clip.

        ``{"name", "task", "answer": {class: p}, "empty": {class: p}, "modalities": {modality: {class: v}},
        "members": {member: {class: v}}, "looks": {member: {"gates": {input: weight}, ...}}}``
        """
        return [
            {
                "name": name,
                "task": self.task_name,
                "answer": self._named(self.subsets[-1, at]),
                "empty": self._named(self.empty),
                "modalities": self._players(self.modalities, self.by_modality[:, at]),
                "members": self._players(self.members, self.by_member[:, at]),
                "looks": dict(self.looks[at]) if self.looks else {},
            }
            for at, name in enumerate(self.names)
        ]

    def _players(self, names: Sequence[str], values: Tensor) -> dict[str, dict[str, float]]:
        return {name: self._named(each) for name, each in zip(names, values, strict=True)}

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.outputs, values.tolist(), strict=True))


def explain(
    scorer: Scorer,
    facts: Sequence[Mapping[str, Any]],
    features: Mapping[str, pa.Table],
    *,
    looks: bool = True,
) -> Explained:
    """Explain the answers of a bundle for some clips.

    Args:
        scorer: the loaded bundle.
        facts: of each clip as `Scorer.scores` takes them.
        features: folder -> FEATURES of the same clips.
        looks: gates and attention too.
    """
    facts = sorted(facts, key=lambda fact: fact["clip_id"])
    tables = {name: table.sort_by("clip_id") for name, table in features.items()}
    modalities = tuple(sorted({*MODALITIES, *scorer.modality.values()}))
    task_name, task, subsets, whole = _answers(scorer, facts, tables, modalities)
    empty = empty_answer(scorer.bundle.facts, task)
    subsets = torch.where(subsets.isnan(), empty, subsets)
    names, by_member = _members_values(scorer, whole, empty, len(facts))
    return Explained(
        names=[fact["name"] for fact in facts],
        task_name=task_name,
        task=task,
        empty=empty,
        subsets=subsets,
        modalities=modalities,
        by_modality=shapley_values(subsets),
        members=names,
        by_member=by_member,
        looks=looks_of(scorer.members, facts, tables) if looks else [],
    )


def answer_of(task: Task, scores: Tensor) -> Tensor:
    """Fused scores as probabilities or values [row output]; NaN where nobody answers."""
    if task.kind == "classification":
        return torch.softmax(scores.double(), -1)
    return torch.sigmoid(scores.double()) if task.kind == "multilabel" else scores.double()


def empty_answer(facts: Mapping[str, Any], task: Task) -> Tensor:
    """The answer of a bundle that is told nothing [output]."""
    if (known := facts.get("prior")) is not None:
        return torch.tensor(known, dtype=torch.float64)
    if task.kind == "regression":
        return torch.tensor([sum(task.range) / 2 if task.range else 0.0], dtype=torch.float64)
    even = 1 / task.outputs if task.kind == "classification" else 0.5
    return torch.full((task.outputs,), even, dtype=torch.float64)


def _answers(
    scorer: Scorer,
    facts: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pa.Table],
    modalities: Sequence[str],
) -> tuple[str, Task, Tensor, Members | None]:
    """Task, the answers of all subsets of the modalities [subset clip output], the members on all of them."""
    numbers = range(1 << len(modalities))
    kept = [
        frozenset(name for bit, name in enumerate(modalities) if number >> bit & 1)
        for number in numbers
    ]
    if scorer.fusion is None:
        told = [untrained_scores(_only(tables, scorer.modality, some)) for some in kept]
        name, task = told[0][:2]
        return name, task, torch.stack([answer_of(task, scores) for *_, scores in told]), None
    fusion = scorer.fusion
    said = MembersWithout(scorer, facts, tables)
    members = [said.of(some) for some in kept]
    answers = [answer_of(fusion.kind, fusion.combine(each)) for each in members]
    return fusion.task, fusion.kind, torch.stack(answers), members[-1]


class MembersWithout:
    """What the members say of clips that lack some modalities; a net is asked once for what it reads."""

    def __init__(
        self,
        scorer: Scorer,
        facts: Sequence[Mapping[str, Any]],
        tables: Mapping[str, pa.Table],
    ) -> None:
        self._scorer, self._tables = scorer, tables
        self._clips = clips_without_labels(facts)
        self._in_hand: dict[frozenset[str], TablesInHand] = {}
        self._said: dict[tuple[int, frozenset[str]], tuple[Tensor, Tensor]] = {}

    def of(self, kept: frozenset[str]) -> Members:
        """The members where only some modalities are there."""
        fusion = self._scorer.fusion
        assert fusion is not None
        said = [self._member(index, kept) for index in range(len(self._scorer.members))]
        return Members(
            names=tuple(member.name for member in self._scorer.members),
            kind=fusion.kind.kind,
            scores=torch.stack([scores for scores, _ in said]),
            present=torch.stack([present for _, present in said]),
        )

    def _member(self, index: int, kept: frozenset[str]) -> tuple[Tensor, Tensor]:
        member, fusion = self._scorer.members[index], self._scorer.fusion
        assert fusion is not None
        read = {self._scorer.modality[each["features"]] for each in member.card.inputs.values()}
        kept = kept & read
        if (index, kept) not in self._said:
            if kept not in self._in_hand:
                left = _only(self._tables, self._scorer.modality, kept)
                self._in_hand[kept] = TablesInHand(self._clips, left)
            feed = feed_of_card(member.card, self._clips, self._in_hand[kept])
            scores, known = predict_member(member, feed, fusion.task, fusion.kind)
            self._said[index, kept] = torch.from_numpy(scores), torch.from_numpy(known)
        return self._said[index, kept]


def _members_values(
    scorer: Scorer, members: Members | None, empty: Tensor, num_clips: int
) -> tuple[tuple[str, ...], Tensor]:
    """The members and what each adds to the answer [member clip output]."""
    if members is None or len(members.names) > MOST_MEMBERS:
        return (), torch.zeros(0, num_clips, len(empty), dtype=torch.float64)
    fusion = scorer.fusion
    assert fusion is not None
    count = len(members.names)
    bits = torch.arange(1 << count).unsqueeze(0) >> torch.arange(count).unsqueeze(1) & 1
    parts = []
    for rows in torch.split(torch.arange(num_clips), max(1, SUBSETS_AT_ONCE >> count)):
        some = members.rows(rows)
        # Subset after subset, each over the same rows.
        many = Members(
            names=some.names,
            kind=some.kind,
            scores=some.scores.repeat(1, 1 << count, 1),
            present=(some.present.unsqueeze(1) & bits.bool().unsqueeze(2)).flatten(1),
        )
        answers = answer_of(fusion.kind, fusion.combine(many))
        answers = torch.where(answers.isnan(), empty, answers)
        parts.append(shapley_values(answers.reshape(1 << count, len(rows), -1)))
    return members.names, torch.cat(parts, 1)


def _only(
    tables: Mapping[str, pa.Table], modality: Mapping[str, str], kept: frozenset[str]
) -> dict[str, pa.Table]:
    """The tables where the modalities that are not kept are missing in every clip."""
    return {
        folder: table if modality[folder] in kept else _emptied(table)
        for folder, table in tables.items()
    }


def _emptied(table: pa.Table) -> pa.Table:
    """FEATURES of clips that have nothing."""
    columns = {
        name: column
        if name == "clip_id"
        else pa.array(["missing"] * len(table), pa.string())
        if name == "status"
        else pa.nulls(len(table), column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns, schema=table.schema)
