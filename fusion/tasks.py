"""What there is to predict; known without torch, so that a job can read a dataset's facts at once."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "multilabel", "regression"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to predict."""

    kind: Kind
    classes: tuple[str, ...] = ()
    """Class or label names, in order; empty for regression."""

    range: tuple[float, float] | None = None
    """Bounds of a regression target; None where there are none."""

    @property
    def outputs(self) -> int:
        """Width of the logits."""
        return 1 if self.kind == "regression" else len(self.classes)
