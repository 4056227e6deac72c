"""The members that a search would have if it ended now: what a trial under way has to beat."""

from collections.abc import Sequence

from cluster import storage
from jobs.catalog import layout
from jobs.training.run import TrainConfig
from jobs.tuning.member_selection import members_of
from jobs.tuning.trial_records import Record, member_name


class Standing:
    """Follows the trials that ended.

    Args:
        config: of the search.
        keep: members that are chosen at the end.
        ledger: trials of an earlier start.
    """

    def __init__(self, config: TrainConfig, keep: int, ledger: Sequence[Record]) -> None:
        self.config, self.keep = config, keep
        self.finished = [record for record in ledger if record.state == "finished"]
        self.runs: set[int] = set()

    @property
    def members(self) -> list[int]:
        """Numbers of the members, best first."""
        scores = {record.number: record.score for record in self.finished}
        return members_of(self.finished, scores, self.keep)

    def bar(self, inputs: Sequence[str] | None) -> float:
        """The score below which a trial of some inputs becomes a member; infinite while there is room."""
        members = set(self.members)
        if len(members) < self.keep:
            return float("inf")
        weakest = max(record.score for record in self.finished if record.number in members)
        alike = [r.score for r in self.finished if str(r.values.get("inputs")) == str(inputs)]
        return max(weakest, min(alike, default=float("inf")))

    def see(self, record: Record, *, has_run: bool) -> None:
        """A trial ended; nets of trials that are no longer members are removed.

        Args:
            record: of the trial.
            has_run: whether its nets were written as a run.
        """
        if record.state == "finished":
            self.finished.append(record)
        if has_run:
            self.runs.add(record.number)
        for number in self.runs.difference(self.members):
            folder = layout.run_uri(self.config.root, member_name(self.config, number))
            if not storage.exists(storage.join(folder, layout.SUMMARY)):
                storage.remove_tree(folder)
        self.runs.intersection_update(self.members)
