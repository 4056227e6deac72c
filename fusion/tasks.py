"""What there is to predict; known without torch, so that a job can read a dataset's facts at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["classification", "multilabel", "regression"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to predict."""

    kind: Kind
    classes: tuple[str, ...] = ()
    """Class or label names, in order; empty for regression."""

    range: tuple[float, float] | None = None
    """Bounds of a regression target; None where there are none."""

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Task":
        """The task of plain values; further ones beside them are passed over."""
        bounds = facts.get("range")
        return cls(
            kind=facts["kind"],
            classes=tuple(facts.get("classes") or ()),
            range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        bounds = None if self.range is None else list(self.range)
        return {"kind": self.kind, "classes": list(self.classes), "range": bounds}

    @property
    def outputs(self) -> int:
        """Width of the logits."""
        return 1 if self.kind == "regression" else len(self.classes)
