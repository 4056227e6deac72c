"""The shape that every metric shares: a sum over rows, then a closed form of that sum.

Accuracy, F1, NLL, ECE, Pearson and the rest are all functions of sums over rows (counts, losses, bins or
moments). The two halves give row weights and a bootstrap of thousands of resamples by one matrix product,
from the same formula.

Shapes: row, class, statistic; `...` stands for any leading axes (resamples, candidates).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.tasks import Kind

Rows = Callable[[Tensor, Tensor], Tensor]
Finish = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, its convention and its two halves."""

    name: str
    kind: Kind
    higher_is_better: bool
    rows: Rows
    """(prediction, target) -> float64 [row, statistic]: what a row adds."""

    finish: Finish
    """[..., statistic] -> [...]; NaN where the figure is undefined."""

    needs_probabilities: bool = False
    """Predicted labels are not enough."""

    doc: str = ""
    """What it is, its convention and an example."""

    def __call__(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
        """The figure over all rows; `weights` [row] count a row more or less than once.

        Raises:
            ValueError: no rows, or lengths that disagree.
        """
        if len(prediction) != len(target) or len(target) == 0:
            raise ValueError(
                f"{self.name}: {len(prediction)} predictions for {len(target)} targets; "
                "expected the same number, at least one"
            )
        rows = self.rows(prediction, target)
        sums = rows.sum(0) if weights is None else weights.double() @ rows
        return float(self.finish(sums))

    def loss(self, value: float) -> float:
        """The figure turned so that lower is better."""
        return -value if self.higher_is_better else value


def metric_of(
    *, kind: Kind, higher_is_better: bool, rows: Rows, needs_probabilities: bool = False
) -> Callable[[Finish], Metric]:
    """Makes a metric of its closed form: named and documented by the function that holds the formula.

    Args:
        kind: of the task.
        higher_is_better: or lower.
        rows: what a row adds to the sums that the formula takes.
        needs_probabilities: predicted labels are not enough.
    """

    def of(finish: Finish) -> Metric:
        return Metric(
            name=finish.__name__,
            kind=kind,
            higher_is_better=higher_is_better,
            rows=rows,
            finish=finish,
            needs_probabilities=needs_probabilities,
            doc=finish.__doc__ or "",
        )

    return of


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Ratio of part and whole, zero where the whole is zero (the `zero_division=0` of scikit-learn)."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """Mean from total and count, NaN where nothing was counted."""
    return torch.where(count > 0, total / torch.where(count > 0, count, 1.0), torch.nan)


def ratio(sums: Tensor) -> Tensor:
    """Mean of rows [..., 2] of a value and a count."""
    return mean_of(sums[..., 0], sums[..., 1])
