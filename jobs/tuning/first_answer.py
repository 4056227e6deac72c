"""A bundle of linear models within the first minute of a search; the last bundle takes its place."""

import time
from collections.abc import Callable, Sequence

from cluster import storage
from cluster.clock import command_began
from cluster.errors import AffuseError
from jobs.catalog import layout
from jobs.training.run import TrainConfig
from jobs.tuning.trial_records import Record, member_name

FUSING_S = 10.0
"""What a fusion is thought to take before the first one was timed [s]."""


class FirstAnswer:
    """Fuses the baselines as soon as all of them have ended.

    Args:
        base: the search's config of train.
        count: number of trials that it waits for; they are the first ones.
        fuse: makes the bundle of some runs; None: there is to be none.
    """

    def __init__(
        self, base: TrainConfig, count: int, fuse: Callable[[Sequence[str]], None] | None
    ) -> None:
        self.base, self.fuse = base, fuse
        self.waiting = set(range(count))
        self.runs: list[str] = []
        self.fusing_s = FUSING_S if fuse else 0.0
        bundle = layout.bundle_uri(base.root, str(base.run), layout.BUNDLE)
        self.is_given = fuse is None or storage.exists(bundle)

    @property
    def is_waiting(self) -> bool:
        """Whether some of the baselines have not ended: they are made whatever time there is."""
        return bool(self.waiting)

    def go_on(self, ledger: Sequence[Record]) -> None:
        """Take in the trials of an earlier start."""
        for record in ledger:
            self._note(record)
        self._give()

    def see(self, record: Record) -> None:
        """A trial ended."""
        self._note(record)
        self._give()

    def _note(self, record: Record) -> None:
        if record.number in self.waiting:
            self.waiting.remove(record.number)
            name = member_name(self.base, record.number)
            complete = layout.run_uri(self.base.root, name, layout.SUMMARY)
            if record.state == "finished" and storage.exists(complete):
                self.runs.append(name)

    def _give(self) -> None:
        if self.fuse is None or self.is_given or self.waiting or not self.runs:
            return
        self.is_given, began = True, time.monotonic()
        after_s = began - command_began()
        print(
            f"a first bundle, of {len(self.runs)} linear models, after {after_s:.0f} s:", flush=True
        )
        try:
            self.fuse(sorted(self.runs))
        except AffuseError as error:
            print(f"there is no first bundle: {error}", flush=True)
        self.fusing_s = time.monotonic() - began
