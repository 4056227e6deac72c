"""What the answers of a bundle rest on over a whole set: each modality shuffled, and each left out.

Measured on rows that no net trained on, each by the nets that were trained without its fold. The fusion is
that of the bundle, fitted on all held-out rows: what differs is what the nets are told.

shuffled    a modality's features change hands among the clips of a fold: the loss is what the answers rest on
left out    only some modalities are there, as if the clips had no others: what they can do by themselves
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster import storage
from cluster.errors import NotPreparedError
from fusion.metrics import FIGURES
from fusion.statistics import Difference, Groups, Interval, bootstrap, paired
from fusion.tasks import Kind, Task
from jobs.catalog import layout
from jobs.catalog.bundles import check_speaks_of_others
from jobs.catalog.features import FeatureReader
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import HeldOut, folds_and_seeds, held_out
from jobs.evaluation.results_table import without_nan
from jobs.explaining.clip_values import Explained, answer_of, empty_answer, explain
from jobs.scoring.bundle import Bundle
from jobs.scoring.member_nets import Fusion, load_member
from jobs.scoring.scorer import Scorer

REPEATS = 5
"""Times that a modality is shuffled; the loss is the mean."""

MOST_CLIPS = 5000
"""Held-out clips that are read, whole groups of them: their features are in memory."""


@dataclass(frozen=True, kw_only=True)
class RestsOn:
    """The figures of a set."""

    num_clips: int
    num_groups: int
    of_clips: int
    """All held-out clips; where there are more, whole groups were drawn."""

    metric: str
    whole: Mapping[str, Interval]
    """Figures of the bundle on these rows, by metric."""

    shuffled: Mapping[str, Difference]
    """Modality -> how much the metric loses where it is shuffled; positive: the answers rest on it."""

    alone: Mapping[str, Mapping[str, Interval]]
    """Modalities that are there, joined by " + " -> metric -> figure."""

    mean_values: Mapping[str, Mapping[str, float]]
    """modalities or members -> name -> mean over clips of what it adds to the probability of the answer that
    is given, or of how far it moves a value, up or down."""

    kind: Kind
    """Of the task."""

    def facts(self) -> dict[str, Any]:
        """As JSON; an undefined figure is null."""
        return dict(without_nan(asdict(self)))


def check_judged_here(root: str, bundle: Bundle) -> None:
    """Refuse a bundle of another dataset, before every clip is explained.

    Raises:
        NotPreparedError: no run of its members is there.
    """
    runs = bundle.facts["rule"]["members"]
    if set(runs).isdisjoint(layout.runs_there(root)):
        raise NotPreparedError(
            f"bundle {bundle.name!r}: what its answers rest on is measured on the rows that its runs "
            f"({', '.join(runs)}) held out, and none of them is under {root}; type --root of the dataset "
            "that it was made on, or, for single files, affuse explain FILES --bundle PATH"
        )


def rests_on(root: str, bundle: Bundle, *, resamples: int, seed: int) -> RestsOn:
    """Measure a bundle on the held-out rows of its runs.

    Raises:
        NotPreparedError: the runs of its members are no longer there.
        ConfigError: a member is of predictions alone, and has no nets of folds.
    """
    check_speaks_of_others(bundle.facts)
    fusion = Fusion.from_facts(bundle.facts)
    held = held_out(root, fusion.rule.names, fusion.task, fusion.kind)
    total, held = len(held.clip_id), some_groups(root, held, seed)
    scorer, draws = Scorer(bundle, root), np.random.default_rng(seed)
    read = sorted({*scorer.modality.values()})
    facts = facts_of(root, held.clip_id)
    parts: list[Explained] = []
    shuffled: dict[str, list[list[Tensor]]] = {name: [[] for _ in range(REPEATS)] for name in read}
    order = []
    for fold in np.unique(held.fold):
        at = np.flatnonzero(held.fold == fold)
        order.append(at)
        scorer.members = nets_of_fold(root, fusion, int(fold), bundle.store)
        some = [facts[place] for place in at]
        features = {
            folder: features_of(root, folder, held.clip_id[at]) for folder in bundle.folders
        }
        parts.append(explain(scorer, some, features, looks=False))
        for name in read:
            for repeat in shuffled[name]:
                swapped = swap(features, scorer.modality, name, draws)
                fused = scorer.fused(some, swapped)
                repeat.append(answer_of(fusion.kind, fused))
    place = torch.from_numpy(np.argsort(np.concatenate(order)))
    subsets = torch.cat([part.subsets for part in parts], 1)[:, place]
    empty = empty_answer(bundle.facts, fusion.kind)
    lost = {
        name: [_filled(torch.cat(each)[place], empty) for each in repeats]
        for name, repeats in shuffled.items()
    }
    judging = _Judging(
        task=fusion.kind, target=held.target, groups=Groups.of(groups_of(root, held.clip_id)),
        resamples=resamples, seed=seed,
    )  # fmt: skip
    return RestsOn(
        num_clips=len(held.clip_id),
        num_groups=judging.groups.count,
        of_clips=total,
        metric=judging.main,
        whole=judging.figures(subsets[-1]),
        shuffled={name: judging.loss(subsets[-1], many) for name, many in lost.items()},
        alone=alone(judging, parts[0].modalities, read, subsets),
        mean_values=mean_values(parts),
        kind=fusion.kind.kind,
    )


@dataclass(frozen=True, kw_only=True)
class _Judging:
    """Rows that answers are judged on."""

    task: Task
    target: Tensor
    groups: Groups
    resamples: int
    seed: int

    @property
    def main(self) -> str:
        """The figure that losses are stated in."""
        return FIGURES[self.task.kind][0]

    def figures(self, answers: Tensor) -> dict[str, Interval]:
        """Every figure of the kind of task."""
        return {
            name: bootstrap(
                name, answers, self.target, self.groups, resamples=self.resamples, seed=self.seed
            )
            for name in FIGURES[self.task.kind]
        }

    def loss(self, whole: Tensor, worse: Sequence[Tensor]) -> Difference:
        """How much better the whole answers are than the mean of others."""
        return paired(
            self.main, ((whole,), tuple(worse)), self.target, self.groups,
            resamples=self.resamples, seed=self.seed,
        )  # fmt: skip


def alone(
    judging: _Judging, modalities: Sequence[str], read: Sequence[str], subsets: Tensor
) -> dict[str, dict[str, Interval]]:
    """Figures with some of the modalities that nets read, from single ones to all."""
    found = {}
    for number in sorted(range(1, len(subsets)), key=lambda number: (number.bit_count(), number)):
        there = [name for bit, name in enumerate(modalities) if number >> bit & 1]
        if set(there) <= set(read):
            found[" + ".join(there)] = judging.figures(subsets[number])
    return found


def mean_values(parts: Sequence[Explained]) -> dict[str, dict[str, float]]:
    """What each modality and member adds to the output that is answered, the mean over all clips.

    Of values it is the mean size: what is added with its sign is near zero on average, whatever it does to a
    clip, since values are added to the mean of the training rows.
    """
    found = {}
    for kind in ("modalities", "members"):
        names = getattr(parts[0], kind)
        values = [
            _of_answer(part, part.by_modality if kind == "modalities" else part.by_member)
            for part in parts
        ]
        if parts[0].task.kind == "regression":
            values = [value.abs() for value in values]
        mean = torch.cat(values, 1).mean(1) if names else torch.zeros(0)
        found[kind] = dict(zip(names, mean.tolist(), strict=True))
    return found


def _of_answer(part: Explained, values: Tensor) -> Tensor:
    """[player clip]: for the most probable output, or the value."""
    best = part.subsets[-1].argmax(1)
    return values.gather(2, best.view(1, -1, 1).expand(len(values), -1, 1)).squeeze(2)


def some_groups(root: str, held: HeldOut, seed: int) -> HeldOut:
    """All rows, or those of as many groups, drawn at random, as hold no more than `MOST_CLIPS`."""
    if len(held.clip_id) <= MOST_CLIPS:
        return held
    groups = groups_of(root, held.clip_id)
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    counts = np.bincount(groups)[order].cumsum()
    chosen = order[: max(1, int(np.searchsorted(counts, MOST_CLIPS, side="right")))]
    return held.rows(np.isin(groups, chosen))


def nets_of_fold(root: str, fusion: Fusion, fold: int, store: str) -> list[Any]:
    """The members as they were trained without a fold.

    Raises:
        NotPreparedError: a net is gone.
    """
    members = []
    for run in fusion.rule.names:
        folders = {
            layout.seed_folder(seed): layout.part_uri(root, run, of_fold, seed)
            for of_fold, seed in folds_and_seeds(root, run)
            if of_fold == fold
        }
        gone = [
            uri for uri in folders.values() if not storage.exists(storage.join(uri, layout.WEIGHTS))
        ]
        if gone or not folders:
            raise NotPreparedError(
                f"run {run!r} has no net of fold {fold} under {root} any more; "
                f"type: affuse train --config {shlex.quote(layout.run_uri(root, run, layout.CONFIG))}"
            )
        members.append(load_member(run, folders, store))
    return members


def facts_of(root: str, clip_id: np.ndarray) -> list[dict[str, Any]]:
    """Manifest columns that nets read beside features, of clips in this order."""
    columns = ["clip_id", "name", "dialogue", "turn", "speaker"]
    table = read_manifest(root, columns)
    at = pc.index_in(pa.array(clip_id, pa.int64()), value_set=table["clip_id"])
    rows: list[dict[str, Any]] = table.take(at).to_pylist()
    return rows


def features_of(root: str, folder: str, clip_id: np.ndarray) -> pa.Table:
    """FEATURES of some clips, in the order of their ids."""
    reader = FeatureReader(root, folder)
    pieces = [
        piece.replace_schema_metadata(None) for piece in reader.pieces(clip_id, reader.schema.names)
    ]
    return pa.concat_tables(pieces).combine_chunks().sort_by("clip_id")


def swap(
    features: Mapping[str, pa.Table],
    modality: Mapping[str, str],
    name: str,
    draws: np.random.Generator,
) -> dict[str, pa.Table]:
    """The tables where clips have exchanged all that they have of one modality."""
    count = len(next(iter(features.values())))
    order = pa.array(draws.permutation(count))
    return {
        folder: table.take(order).set_column(0, "clip_id", table["clip_id"])
        if modality[folder] == name
        else table
        for folder, table in features.items()
    }


def _filled(answers: Tensor, empty: Tensor) -> Tensor:
    return torch.where(answers.isnan(), empty, answers)
