"""Input of a late-fusion rule: the scores of several members on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fusion.tasks import Kind

FLOOR = 1e-15
"""Smallest probability that enters a logarithm."""


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
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"members share a name: {', '.join(self.names)}")
        broken = (self.scores.isnan().any(-1) & self.present).any(1)
        if broken.any():
            names = [name for name, bad in zip(self.names, broken.tolist(), strict=True) if bad]
            raise ValueError(
                f"NaN among the scores of {', '.join(names)}; mark such rows as not present"
            )

    @property
    def num_rows(self) -> int:
        """Rows, whether or not any member is present."""
        return self.scores.shape[1]

    @property
    def outputs(self) -> int:
        """Classes, labels or 1."""
        return self.scores.shape[2]

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

    @classmethod
    def from_probabilities(
        cls, names: Sequence[str], kind: Kind, probabilities: Tensor, present: Tensor | None = None
    ) -> "Members":
        """Members from probabilities (regression: values), floored 1e-15 away from 0 (and 1)."""
        scores = probabilities.double()
        if kind == "classification":
            scores = scores.clamp(min=FLOOR).log()
        elif kind == "multilabel":
            scores = torch.logit(scores, FLOOR)
        return cls.from_logits(names, kind, scores, present)

    def rows(self, index: Tensor) -> "Members":
        """The same members on some of the rows (an index or a boolean mask)."""
        return replace(self, scores=self.scores[:, index], present=self.present[:, index])

    def only(self, names: Sequence[str]) -> "Members":
        """Some of the members, in the given order.

        Raises:
            ValueError: a name that is not among them.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"no members {unknown}; there are: {', '.join(self.names)}")
        index = torch.tensor([self.names.index(name) for name in names])
        return Members(
            names=tuple(names),
            kind=self.kind,
            scores=self.scores[index],
            present=self.present[index],
        )

    def aligned(self, names: Sequence[str]) -> "Members":
        """The members a rule was fitted with, in its order; those that did not come are absent.

        Raises:
            ValueError: a member the rule does not know.
        """
        unknown = [name for name in self.names if name not in names]
        if unknown:
            raise ValueError(
                f"members {unknown} were not there when the rule was fitted; it knows: "
                f"{', '.join(names)}"
            )
        scores = torch.zeros(len(names), self.num_rows, self.outputs, dtype=torch.float64)
        present = torch.zeros(len(names), self.num_rows, dtype=torch.bool)
        for place, name in enumerate(names):
            if name in self.names:
                scores[place] = self.scores[self.names.index(name)]
                present[place] = self.present[self.names.index(name)]
        return Members(names=tuple(names), kind=self.kind, scores=scores, present=present)

    def alone(self, index: int) -> Float[Tensor, "row outputs"]:
        """Scores of one member, NaN in rows where it is not present."""
        return self.scores[index].masked_fill(~self.present[index].unsqueeze(-1), torch.nan)

    def cleaned(self) -> "Members":
        """Absent scores as zeros, log-probabilities and logits within the floor's reach."""
        scores = self.scores.double()
        if not bool(self.present.all()):
            scores = scores.masked_fill(~self.present.unsqueeze(-1), 0.0)
        if self.kind != "regression":
            limit = -torch.tensor(FLOOR, dtype=torch.float64).log()
            scores = scores.clamp(-limit, limit)
        return replace(self, scores=scores)

    def label(self, index: int) -> "Members":
        """One label of a multi-label task as a classification of no (0) and yes (1)."""
        logit = self.scores[:, :, index]
        scores = torch.nn.functional.logsigmoid(torch.stack([-logit, logit], -1))
        return replace(self, kind="classification", scores=scores)


def probabilities(
    kind: Kind, scores: Float[Tensor, "*rows outputs"]
) -> Float[Tensor, "*rows outputs"]:
    """Scores as metrics take them: probabilities of classes or labels; values stay values."""
    if kind == "classification":
        return scores.exp()
    return torch.sigmoid(scores) if kind == "multilabel" else scores


def mean_of_seeds(
    scores: Sequence[Float[np.ndarray, "row outputs"]], kind: Kind
) -> Float[np.ndarray, "row outputs"]:
    """Scores of several seeds as those of one member: the mean of probabilities, or of values."""
    mean = np.mean([to_mean_space(one, kind) for one in scores], axis=0)
    return from_mean_space(mean, kind)


def to_mean_space(
    scores: Float[np.ndarray, "row outputs"], kind: Kind
) -> Float[np.ndarray, "row outputs"]:
    """Scores as what is averaged over seeds: probabilities of classes or labels, or values."""
    if kind == "classification":
        shifted = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True))
    if kind == "multilabel":
        return np.asarray(1 / (1 + np.exp(-scores)))
    return scores


def from_mean_space(
    mean: Float[np.ndarray, "row outputs"], kind: Kind
) -> Float[np.ndarray, "row outputs"]:
    """The scores whose probabilities (values) these are."""
    # A float64 softmax can reach 0 exactly; the log needs a floor far below any real probability.
    floor = 1e-30
    if kind == "classification":
        return np.asarray(np.log(np.maximum(mean, floor)))
    if kind == "multilabel":
        clipped = np.clip(mean, floor, 1 - 1e-16)
        return np.asarray(np.log(clipped) - np.log1p(-clipped))
    return mean


def prior(kind: Kind, target: Shaped[Tensor, "row ..."], outputs: int) -> Float[Tensor, " outputs"]:
    """Scores of the prior: frequency of each class (label), or the median of the values.

    >>> prior("classification", torch.tensor([0, 1, 1, 1]), 2).exp().round(decimals=2).tolist()
    [0.25, 0.75]
    """
    if kind == "classification":
        counts = torch.bincount(target.long(), minlength=outputs).double() + 1e-3
        return (counts / counts.sum()).log()
    if kind == "multilabel":
        return torch.logit(target.double().nanmean(0).nan_to_num(0.5), 1e-3)
    return target.double().nanmedian().nan_to_num().reshape(1)


def answered(
    scores: Float[Tensor, "row outputs"], otherwise: Float[Tensor, "*row outputs"]
) -> Float[Tensor, "row outputs"]:
    """The scores without gaps: rows of NaN get `otherwise`, mostly the prior.

    Whoever is judged against others has to answer for the rows that they answer for. To leave a row out
    because it was not understood would judge everybody on the rows of their choice.
    """
    silent = scores.isnan().any(-1, keepdim=True)
    return torch.where(silent, otherwise.to(scores.dtype), scores)


def shares(
    weights: Float[Tensor, " member"], present: Bool[Tensor, "member row"]
) -> Float[Tensor, "member row"]:
    """Weights over the present members of each row, summing to 1; 0 where no member is present.

    Where every present member has weight 0 they count alike.

    >>> shares(torch.tensor([3.0, 1.0]).double(), torch.tensor([[True, True], [True, False]])).tolist()
    [[0.75, 1.0], [0.25, 0.0]]
    """
    given = weights.unsqueeze(1) * present
    given = torch.where(given.sum(0) > 0, given, present.to(given.dtype))
    return given / given.sum(0).clamp(min=torch.finfo(given.dtype).tiny)
