"""Input and output types of fusion nets.

Axis vocabulary of the whole package: batch, time, feature, hidden, heads, outputs, member, row.
Masks are True where a step is real. A missing modality is a mask of zeros; padding and the neighbours in a
batch never change an output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Axis = Literal["clip", "dialogue"]


@dataclass(frozen=True)
class Steps:
    """One modality: steps of features and which of them are real."""

    values: Float[Tensor, "batch time feature"]
    mask: Bool[Tensor, "batch time"]

    def __post_init__(self) -> None:
        if self.values.shape[:2] != self.mask.shape:
            raise ValueError(
                f"values are {tuple(self.values.shape)}, mask is {tuple(self.mask.shape)}; "
                "expected the same batch and time"
            )

    @property
    def present(self) -> Bool[Tensor, " batch"]:
        """Whether a row has this modality at all."""
        return self.mask.any(1)

    def mean(self) -> Float[Tensor, "batch feature"]:
        """Mean over the real steps; zero where there are none."""
        weight = self.mask.unsqueeze(-1).to(self.values.dtype)
        return (self.values * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass(frozen=True)
class Mixing:
    """Rows that are mixed with others of their batch: share of their own, the rest of their partner's."""

    share: float
    partner: Int[Tensor, " batch"]

    def __call__(self, steps: Steps) -> Steps:
        """A step that only one of the two rows has keeps that row's share of it."""
        values = steps.values.masked_fill(~steps.mask.unsqueeze(-1), 0.0)
        mixed = self.share * values + (1 - self.share) * values[self.partner]
        return Steps(mixed, steps.mask | steps.mask[self.partner])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Aligned rows of one or more modalities.

    axis ``clip``: a row is a clip and `time` runs inside it; targets are [batch] or [batch label].
    axis ``dialogue``: a row is a dialogue and `time` runs over its utterances, the same for every
    modality; `steps` marks the real utterances, and targets are [batch time] or [batch time label].
    """

    inputs: Mapping[str, Steps]
    axis: Axis = "clip"
    clip_id: Tensor | None = None
    """[batch], or [batch time] for dialogues (-1 on padding)."""

    index: Int[Tensor, " batch"] | None = None
    """Row of the training set, for nets with a memory of labels."""

    steps: Bool[Tensor, "batch time"] | None = None
    """Real utterances of a dialogue, whether or not a modality is present in them."""

    speaker: Int[Tensor, "batch time"] | None = None
    """Code of who speaks, numbered within each dialogue; -1 on padding."""

    profile: Mapping[str, Tensor] = field(default_factory=dict)
    """Integer codes, 0 = unknown."""

    targets: Mapping[str, Tensor] = field(default_factory=dict)
    target_masks: Mapping[str, Tensor] = field(default_factory=dict)
    """True where a target is known; same shape as the target."""

    soft: Mapping[str, Tensor] = field(default_factory=dict)
    """Task -> distribution of raters' choices [batch class] or [batch time class]; zeros where nobody
    voted."""

    weights: Tensor | None = None
    """Weight of each row (or utterance) in the loss."""

    mixing: Mixing | None = None
    """For nets that own encoders, whose states are mixed in place of what they are given."""

    causal: bool = False
    """A dialogue net may not read later utterances."""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("a batch needs at least one modality")
        sizes = {name: len(sequence.values) for name, sequence in self.inputs.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"modalities have different batch sizes: {sizes}")
        if self.axis == "dialogue":
            lengths = {name: s.values.shape[1] for name, s in self.inputs.items()}
            if self.steps is None or len({*lengths.values(), self.steps.shape[1]}) > 1:
                raise ValueError(
                    f"a dialogue batch needs `steps` and one length; came {lengths}, steps "
                    f"{None if self.steps is None else tuple(self.steps.shape)}"
                )

    def __len__(self) -> int:
        return next(len(sequence.values) for sequence in self.inputs.values())

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in sorted order: the order of every concatenation."""
        return tuple(sorted(self.inputs))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, Steps):
                return Steps(move(value.values), move(value.mask))
            if isinstance(value, Mapping):
                return {name: move(item) for name, item in value.items()}
            return value

        return replace(self, **{name: move(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Output:
    """What a net returns."""

    logits: Mapping[str, Tensor]
    """Task -> [batch outputs] (clip) or [batch time outputs] (dialogue); never softmaxed."""

    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """Auxiliary losses of the paper, already weighted; empty in eval."""


def split_rows(batch: Batch, size: int) -> list[Batch]:
    """The rows of a batch, some at a time; every tensor in it has a row for each.

    Args:
        batch: what is split.
        size: rows at a time.
    """

    def rows(value: Any, some: slice) -> Any:
        if isinstance(value, Tensor):
            return value[some]
        if isinstance(value, Steps):
            return Steps(value.values[some], value.mask[some])
        if isinstance(value, Mapping):
            return {name: rows(item, some) for name, item in value.items()}
        return value

    if len(batch) <= size:
        return [batch]
    return [
        replace(
            batch,
            **{name: rows(value, slice(at, at + size)) for name, value in vars(batch).items()},
        )
        for at in range(0, len(batch), size)
    ]
