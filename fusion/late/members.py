"""What a late-fusion rule eats: the scores of several members on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fusion.batch import Kind


@dataclass(frozen=True, kw_only=True)
class Members:
    """Scores of the members, float64.

    classification: log-probabilities (normalised over outputs). multilabel: one logit a label.
    regression: one value, outputs = 1.
    """

    names: tuple[str, ...]
    kind: Kind
    scores: Float[Tensor, "member row outputs"]
    present: Bool[Tensor, "member row"]
    """False where a member has nothing to say; its scores there are ignored, whatever they hold."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.scores) or self.scores.shape[:2] != self.present.shape:
            raise ValueError(
                f"{len(self.names)} names, scores {tuple(self.scores.shape)}, "
                f"present {tuple(self.present.shape)}: expected one name a member, equal rows"
            )

    @classmethod
    def from_logits(
        cls, names: Sequence[str], kind: Kind, logits: Tensor, present: Tensor | None = None
    ) -> "Members":
        """Members from raw scores: classification logits are normalised here."""
        scores = logits.double()
        if kind == "classification":
            scores = torch.log_softmax(scores, -1)
        if present is None:
            present = torch.ones(scores.shape[:2], dtype=torch.bool)
        return cls(names=tuple(names), kind=kind, scores=scores, present=present)

    def rows(self, index: Tensor) -> "Members":
        """The same members on some of the rows (an index or a boolean mask)."""
        return Members(
            names=self.names,
            kind=self.kind,
            scores=self.scores[:, index],
            present=self.present[:, index],
        )

    def only(self, names: Sequence[str]) -> "Members":
        """Some of the members, in the given order."""
        index = torch.tensor([self.names.index(name) for name in names])
        return Members(
            names=tuple(names),
            kind=self.kind,
            scores=self.scores[index],
            present=self.present[index],
        )
