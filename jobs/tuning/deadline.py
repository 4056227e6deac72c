"""The time that a search may take in all, its start and its last fusion included."""

import time
from dataclasses import dataclass

from cluster.clock import command_began


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a job has to be done; the clock is that of the machine that it runs on."""

    began: float
    """Of `time.monotonic` [s]."""

    budget_s: float | None
    """None: there is no hurry."""

    @classmethod
    def of_minutes(cls, minutes: float | None) -> "Deadline":
        """A deadline some minutes after the command began."""
        return cls(began=command_began(), budget_s=None if minutes is None else 60 * minutes)

    @property
    def spent_s(self) -> float:
        """Time since the beginning [s]."""
        return time.monotonic() - self.began

    @property
    def said(self) -> str:
        """The time spent, and what there was."""
        budget = "" if self.budget_s is None else f" of {self.budget_s:.0f} s"
        return f"{self.spent_s:.1f}{budget}" + ("" if budget else " s")

    def left_s(self, reserve_s: float = 0.0) -> float:
        """Time that is left before the last `reserve_s` seconds [s]; infinite where there is no hurry.

        >>> Deadline(began=0.0, budget_s=None).left_s(10.0)
        inf
        """
        if self.budget_s is None:
            return float("inf")
        return self.budget_s - self.spent_s - reserve_s
