"""What raters chose: their distribution, and how well one of them guesses the others.

Shapes: vote, row, class. A vote is what one rater chose of one row, as shares of the classes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusion.metrics import metric


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The votes on some rows."""

    row: Int[Tensor, " vote"]
    """Which row a vote is on."""

    share: Float[Tensor, "vote class"]
    """Sums to one."""

    num_rows: int

    @property
    def total(self) -> Float[Tensor, "row class"]:
        """Votes for each class."""
        zeros = self.share.new_zeros(self.num_rows, self.share.shape[1])
        return zeros.index_add(0, self.row, self.share)

    @property
    def distribution(self) -> Float[Tensor, "row class"]:
        """Shares of the votes on each row; zeros where nobody voted."""
        total = self.total
        return total / total.sum(1, keepdim=True).clamp(min=1e-12)

    def human_ceiling(self, name: str) -> float:
        """A figure of single raters, each judged by what most of the others chose.

        Every row with two raters and more counts once. Classes that are chosen equally often by the others
        share the row. Only figures of labels can be given: a rater states no probabilities.

        Args:
            name: of a metric of classification.

        Returns:
            NaN where no row has two raters.

        >>> votes = Votes(row=torch.tensor([0, 0, 0]), share=torch.eye(2)[[0, 0, 1]], num_rows=1)
        >>> round(votes.human_ceiling("accuracy"), 4)
        0.3333
        """
        judge = metric(name)
        if judge.needs_probabilities:
            raise ValueError(f"{name} needs probabilities, and raters state none")
        others = self.total[self.row] - self.share
        raters = torch.bincount(self.row, minlength=self.num_rows)[self.row]
        most = (others >= others.amax(1, keepdim=True) - 1e-9).to(self.share.dtype)
        truth = most / most.sum(1, keepdim=True) / raters.unsqueeze(1)
        weight = self.share.unsqueeze(2) * truth.unsqueeze(1)
        weight = weight * (raters > 1)[:, None, None]
        _, said, true = weight.nonzero(as_tuple=True)
        if not len(said):
            return float("nan")
        return judge(said, true, weight[weight > 0])
