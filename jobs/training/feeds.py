"""Clips and their features in memory, as batches by index.

The features of an input lie in one array, the steps of all clips behind one another; a batch is gathered
from it by index. A row of a feed is a clip (`time` runs inside it) or a dialogue (over its clips).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cluster.errors import ConfigError
from fusion.batch import Batch, Steps
from fusion.predictor import Pool
from jobs.catalog.groups import group_names
from jobs.training.mapped import StepArray


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips of a data set without their features, ordered by id."""

    clip_id: np.ndarray
    """int64, writable: tensors share its memory."""

    split: np.ndarray
    """object: train, valid or None (test where it was asked for)."""

    fold: np.ndarray
    """int64; 0 where there are no folds."""

    group: np.ndarray
    speaker: np.ndarray
    dialogue: np.ndarray
    turn: np.ndarray
    targets: Mapping[str, Tensor]
    """Task -> class index [clip], labels [clip label] or values [clip]."""

    known: Mapping[str, Tensor]
    """Task -> bool of the same shape."""

    soft: Mapping[str, Tensor] = field(default_factory=dict)
    """Task -> distribution of raters' choices [clip class], where votes are known; zeros without any."""

    def __len__(self) -> int:
        return len(self.clip_id)


@dataclass(frozen=True)
class Store:
    """The steps of all clips of one input, behind one another."""

    values: Tensor
    """[step feature], float16, float32 or uint8, in memory or memory-mapped."""

    valid: Tensor
    """bool [step]."""

    offsets: Tensor
    """int64 [clip + 1]: where a clip's steps begin."""

    steps: StepArray | None = None
    """The array of the values, where it keeps track of what is read."""

    @classmethod
    def of_steps(cls, steps: StepArray, valid: np.ndarray, offsets: np.ndarray) -> "Store":
        """A store over a filled array."""
        values, marks, at = (torch.from_numpy(item) for item in (steps.array, valid, offsets))
        return cls(values, marks, at, steps if steps.is_mapped else None)

    @property
    def dim(self) -> int:
        """Feature width."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> Tensor:
        """Steps of each clip."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def present(self) -> Tensor:
        """Whether each clip has a valid step: bool [clip]."""
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), self.valid.long().cumsum(0)])
        return ends[self.offsets[1:]] > ends[self.offsets[:-1]]

    def gather(self, clips: Tensor) -> Steps:
        """Padded steps of some clips, float32; -1 and a clip without steps give a mask of zeros."""
        there = clips.clamp(min=0)
        start = self.offsets[there]
        length = self.offsets[there + 1] - start
        length = torch.where(clips >= 0, length, 0)
        longest = max(1, int(length.max()))
        step = torch.arange(longest)
        mask = step < length.unsqueeze(1)
        if not len(self.values):
            return Steps(torch.zeros(len(clips), longest, self.dim), mask)
        at = torch.where(mask, start.unsqueeze(1) + step, 0)
        flat = at.reshape(-1)
        values = self.values[flat].float().reshape(len(clips), longest, self.dim)
        mask = mask & self.valid[at]
        if self.steps is not None:
            self.steps.touched(flat.numel() * self.dim * self.values.element_size(), len(clips))
        return Steps(values.masked_fill(~mask.unsqueeze(-1), 0), mask)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays they lie in Ray's shared memory once for all workers of a machine.
        return (_store_of, (self.values.numpy(), self.valid.numpy(), self.offsets.numpy()))


def gather_views(stores: Sequence[Store], clips: Tensor, views: Tensor) -> Steps:
    """Padded steps of some clips, each out of one of several stores of the same input.

    Args:
        stores: the original first, then its views; a view that has no steps of a clip gives way to it.
        clips: as `Store.gather` takes them.
        views: which store each clip is read from; beyond the last one it is the original.
    """
    chosen = torch.where(views < len(stores), views, 0)
    lengths = torch.stack([store.lengths[clips.clamp(min=0)] for store in stores])
    there = lengths.gather(0, chosen.unsqueeze(0)).squeeze(0) > 0
    chosen = torch.where(there, chosen, 0)
    parts = [
        store.gather(torch.where(chosen == number, clips, -1))
        for number, store in enumerate(stores)
    ]
    longest = max(part.mask.shape[1] for part in parts)
    values = torch.zeros(len(clips), longest, stores[0].dim)
    mask = torch.zeros(len(clips), longest, dtype=torch.bool)
    for number, part in enumerate(parts):
        rows, width = chosen == number, part.mask.shape[1]
        values[rows, :width], mask[rows, :width] = part.values[rows], part.mask[rows]
    return Steps(values, mask)


def _num_views(views: Mapping[str, tuple[Store, ...]]) -> int:
    return max(map(len, views.values()), default=0)


def _store_of(*arrays: np.ndarray) -> Store:
    """A store over arrays that may be read-only: nothing writes to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        values, valid, offsets = (torch.from_numpy(array) for array in arrays)
    return Store(values, valid, offsets)


@dataclass(frozen=True)
class ClipFeed:
    """A row is a clip, `time` runs inside it."""

    stores: Mapping[str, Store]
    clips: Clips
    views: Mapping[str, tuple[Store, ...]] = field(default_factory=dict)
    """Augmented views of the inputs that have them, for training rows."""

    @cached_property
    def lengths(self) -> Tensor:
        """Steps of each clip's longest input."""
        return torch.stack([store.lengths for store in self.stores.values()]).amax(0)

    @cached_property
    def sizes(self) -> Tensor:
        """Values of all inputs of each clip."""
        return torch.stack([each.lengths * each.dim for each in self.stores.values()]).sum(0)

    @property
    def num_views(self) -> int:
        """Views besides the original."""
        return _num_views(self.views)

    def batch(self, rows: Tensor) -> Batch:
        """Clips by index."""
        return self._of(rows, {name: store.gather(rows) for name, store in self.stores.items()})

    def batch_in_views(self, rows: Tensor, views: Tensor) -> Batch:
        """Clips by index, each in the view of that number."""
        inputs = {
            name: gather_views((store, *self.views.get(name, ())), rows, views)
            for name, store in self.stores.items()
        }
        return self._of(rows, inputs)

    def _of(self, rows: Tensor, inputs: Mapping[str, Steps]) -> Batch:
        targets, known = self.targets(rows)
        return Batch(
            inputs=inputs,
            clip_id=torch.from_numpy(self.clips.clip_id)[rows],
            index=rows,
            targets=targets,
            target_masks=known,
            soft={name: soft[rows] for name, soft in self.clips.soft.items()},
        )

    def targets(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Targets of clips, and which are known."""
        targets = {name: target[rows] for name, target in self.clips.targets.items()}
        return targets, {name: known[rows] for name, known in self.clips.known.items()}

    def rows_of(self, chosen: np.ndarray) -> Tensor:
        """Rows of the clips that are marked True."""
        return torch.from_numpy(np.flatnonzero(chosen))


@dataclass(frozen=True)
class DialogueFeed:
    """A row is a dialogue, `time` runs over its clips in order of their turns."""

    stores: Mapping[str, Store]
    """One step a clip."""

    clips: Clips
    causal: bool = False
    views: Mapping[str, tuple[Store, ...]] = field(default_factory=dict)
    """Augmented views of the inputs that have them, for training rows."""

    @cached_property
    def members(self) -> Tensor:
        """Clips of each dialogue, int64 [dialogue turn]; -1 behind its end."""
        turns = [(0 if turn is None else turn) for turn in self.clips.turn]
        order = sorted(range(len(turns)), key=lambda at: (turns[at], self.clips.clip_id[at]))
        names = group_names(self.clips.dialogue, self.clips.clip_id).tolist()
        members: dict[str, list[int]] = {}
        for at in order:
            members.setdefault(names[at], []).append(at)
        return _padded([members[name] for name in sorted(members)])

    @cached_property
    def speakers(self) -> Tensor:
        """Speakers by their first turn in the dialogue, int64 [dialogue turn]; -1 behind its end."""
        rows = []
        for row, length in zip(self.members.tolist(), self.lengths.tolist(), strict=True):
            codes: dict[Any, int] = {}
            rows.append(
                [codes.setdefault(self.clips.speaker[at], len(codes)) for at in row[:length]]
            )
        return _padded(rows)

    @cached_property
    def lengths(self) -> Tensor:
        """Clips of each dialogue."""
        return (self.members >= 0).sum(1)

    @property
    def num_views(self) -> int:
        """Views besides the original."""
        return _num_views(self.views)

    def batch(self, rows: Tensor) -> Batch:
        """Dialogues by index, cut to the longest of them."""
        clips = self._members(rows).reshape(-1)
        return self._of(rows, {name: store.gather(clips) for name, store in self.stores.items()})

    def batch_in_views(self, rows: Tensor, views: Tensor) -> Batch:
        """Dialogues by index, all utterances of each in the view of that number."""
        members = self._members(rows)
        clips, of_clip = members.reshape(-1), views.repeat_interleave(members.shape[1])
        inputs = {
            name: gather_views((store, *self.views.get(name, ())), clips, of_clip)
            for name, store in self.stores.items()
        }
        return self._of(rows, inputs)

    def _of(self, rows: Tensor, one_step: Mapping[str, Steps]) -> Batch:
        members = self._members(rows)
        steps = members >= 0
        clip_id = torch.from_numpy(self.clips.clip_id)[members.clamp(min=0)]
        targets, known = self.targets(rows)
        inputs = {}
        for name, one in one_step.items():
            values = one.values[:, 0].reshape(*members.shape, -1)
            inputs[name] = Steps(values, one.mask[:, 0].reshape(members.shape))
        return Batch(
            inputs=inputs,
            axis="dialogue",
            clip_id=torch.where(steps, clip_id, -1),
            index=rows,
            steps=steps,
            speaker=self.speakers[rows, : members.shape[1]],
            targets=targets,
            target_masks=known,
            soft={
                name: soft[members.clamp(min=0)] * steps.unsqueeze(-1)
                for name, soft in self.clips.soft.items()
            },
            causal=self.causal,
        )

    def targets(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Targets of dialogues [dialogue turn ...], and which are known."""
        members = self._members(rows)
        there = members.clamp(min=0)
        targets = {name: target[there] for name, target in self.clips.targets.items()}
        known = {}
        for name, flags in self.clips.known.items():
            steps = (members >= 0).reshape(*members.shape, *[1] * (flags.ndim - 1))
            known[name] = flags[there] & steps
        return targets, known

    def rows_of(self, chosen: np.ndarray) -> Tensor:
        """Rows of the dialogues whose clips are marked True.

        Raises:
            ConfigError: some clips of a dialogue are marked and some are not.
        """
        marked = torch.from_numpy(chosen)[self.members.clamp(min=0)] & (self.members >= 0)
        count = marked.sum(1)
        torn = (count > 0) & (count < self.lengths)
        if bool(torn.any()):
            name = self.clips.dialogue[int(self.members[int(torn.nonzero()[0])][0])]
            raise ConfigError(
                f"dialogue {name!r} lies on both sides of a split; a dialogue net needs splits and "
                "folds that keep dialogues whole"
            )
        return count.nonzero().squeeze(1)

    def _members(self, rows: Tensor) -> Tensor:
        return self.members[rows, : max(1, int(self.lengths[rows].max()))]


def pooled(values: np.ndarray, valid: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """The valid steps of one clip reduced to one step: (values [1 dim], valid [1])."""
    kept = values[valid].astype(np.float32)
    width = values.shape[1] * (2 if pool == "mean_std" else 1)
    if not len(kept):
        return np.zeros((1, width), np.float32), np.array([False])
    parts = [kept.mean(0)] if pool == "mean" else [kept.mean(0), kept.std(0)]
    return np.concatenate(parts)[None], np.array([True])


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """int64 [row item] with -1 behind the end of a row."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)
