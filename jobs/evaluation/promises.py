"""What a prediction may promise: sets or intervals that hold the truth as often as asked.

The thresholds are fitted on cross-fitted scores of what ships, so on rows that neither its members nor its
fusion were fitted on. What is said of them is measured on people whose rows had no part in the thresholds.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fusion.late.conformal import Conformal, left_out
from jobs.evaluation.judging import Judging

USUAL = 0.9
"""The coverage that tables and reports show."""


@dataclass(frozen=True, kw_only=True)
class Promised:
    """Thresholds of what ships, and what they came to at the usual coverage."""

    conformal: Conformal
    covered: np.ndarray
    """1 or 0 [row part], NaN where the truth or the scores are not known."""

    size: np.ndarray
    """Possible classes, open labels, or the width of the interval [row]."""

    @property
    def said(self) -> str:
        """The measurement in one sentence."""
        kind, groups = self.conformal.kind, self.conformal.groups
        if not self.conformal.measurable(USUAL):
            return f"coverage {USUAL:g}: {groups} groups are too few to say what excludes answers"
        size = float(np.nanmean(self.size))
        answers = {
            "classification": f"by {size:.2f} classes, one alone for {self._alone:.0%} of the clips",
            "multilabel": f"with {size:.2f} labels a clip left open",
            "regression": f"by an interval {size:.2f} wide",
        }
        return (
            f"coverage {USUAL:g}: {np.nanmean(self.covered):.3f} measured on people left out, "
            f"{answers[kind]} (`affuse score --coverage`)"
        )

    @property
    def _alone(self) -> float:
        return float(np.mean(self.size[~np.isnan(self.size)] == 1))


def promised(scores: Tensor, judging: Judging) -> Promised:
    """Fit thresholds on cross-fitted scores [row outputs], and measure them on people left out."""
    kind = judging.task.kind
    conformal = Conformal.fit(kind, scores, judging.target, judging.groups)
    covered, size = left_out(kind, scores, judging.target, judging.groups, USUAL)
    return Promised(conformal=conformal, covered=covered.numpy(), size=size.numpy())
