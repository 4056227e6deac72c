"""Vote: every member names one class.

hard: most votes, the lowest class index on a tie. weighted: votes count by the log-odds of being right
that each member showed on the fitting rows (best for independent voters: Nitzan and Paroush, 1982,
https://doi.org/10.2307/2526438), or by given weights. unanimous: a class other than `fallback` needs
every present member's vote.

Scores are logs of the shares of votes, with `smoothing` votes added to each class, so that a calibration has
something finite to work on. Multi-label: each label by itself. Values cannot vote.

`verdict_words` puts the number of positive votes on a four-word scale.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fusion.late._rule import LateRule, Part
from fusion.late.mean import given_weights
from fusion.late.members import Members, shares

WORDS = ("Strong Negative", "Negative", "Slight Negative", "Positive")


class Rule(LateRule):
    """The weight of each member's vote."""

    kinds = ("classification", "multilabel")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How votes are counted."""

        mode: Literal["hard", "weighted", "unanimous"] = "hard"
        weights: tuple[float, ...] = ()
        """For `weighted`: one a member; empty to take them from the fitting rows."""

        fallback: int = 0
        """For `unanimous`: the class of every row without unanimity."""

        smoothing: float = 0.5
        """Votes added to each class before the logarithm [> 0]."""

        def __post_init__(self) -> None:
            if self.smoothing <= 0 or any(weight < 0 for weight in self.weights):
                raise ValueError("vote: smoothing is above 0, and weights are 0 or more")

    @classmethod
    def fit_part(
        cls, config: Any, members: Members, target: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The weights [member], summing to 1."""
        if config.fallback >= members.outputs:
            raise ValueError(
                f"vote: fallback is class {config.fallback} of {members.outputs} classes"
            )
        if config.mode != "weighted" or config.weights:
            return {"weights": given_weights(cls.name(), config.weights, members)}
        right = (members.scores.argmax(2) == target) & members.present
        # One row right and one wrong are added: a faultless member keeps a finite weight.
        seen = (members.present * weights).sum(1) + 2
        accuracy = ((right * weights).sum(1) + 1) / seen
        odds = (accuracy / (1 - accuracy) * (members.outputs - 1)).log().clamp(min=0)
        return {"weights": odds / odds.sum() if odds.sum() > 0 else torch.ones_like(odds)}

    def combine_part(self, part: Part, members: Members) -> Tensor:
        """[row class]: logs of smoothed shares of votes."""
        votes = torch.nn.functional.one_hot(members.scores.argmax(2), members.outputs).double()
        share = shares(part["weights"], members.present).unsqueeze(2)
        counted = (share * votes).sum(0)
        if self.config.mode == "unanimous":
            agreed = ((counted > 0).sum(1) == 1).unsqueeze(1)
            fallback = torch.zeros_like(counted)
            fallback[:, self.config.fallback] = 1
            counted = torch.where(agreed, counted, fallback)
        voters = members.present.sum(0).unsqueeze(1)
        smoothing: float = self.config.smoothing
        smoothed = counted * voters + smoothing
        return (smoothed / smoothed.sum(1, keepdim=True)).log()

    def part_shares(self, part: Part) -> Tensor:
        """The weights."""
        return part["weights"]


def verdict_words(members: Members, *, positive: int = 1) -> list[str]:
    """Four words for how many members call a row positive.

    All of them: Positive. Half or more: Slight Negative. Fewer: Negative. None: Strong Negative. With three
    members that is 3, 2, 1 and 0 votes. A row without a member gets an empty string.

    Raises:
        ValueError: not a classification.

    >>> p = torch.tensor([[[0.1, 0.9], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]], [[0.3, 0.7], [0.8, 0.2]]])
    >>> verdict_words(Members.from_probabilities(["text", "audio", "image"], "classification", p))
    ['Positive', 'Negative']
    """
    if members.kind != "classification":
        raise ValueError(f"the four-word scale needs classes, came {members.kind}")
    votes = ((members.scores.argmax(2) == positive) & members.present).sum(0)
    voters = members.present.sum(0)
    words = []
    for count, out_of in zip(votes.tolist(), voters.tolist(), strict=True):
        place = 3 if count == out_of else 0 if count == 0 else 2 if 2 * count >= out_of else 1
        words.append(WORDS[place] if out_of else "")
    return words
